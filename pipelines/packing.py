"""Packing: writes a registered model as a starter model, without its packaged trunks, with a card."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.configs import EvaluationConfig
from image_finder.components.configs.slices import WORDS
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.errors import ConfigError
from image_finder.components.evaluation.folder_recall import CaptionedPart, read_part
from image_finder.components.evaluation.match_calibration import calibrate_matches
from image_finder.components.evaluation.things_found import ThingFound, things_found
from image_finder.components.export.starter_packing import pack_starter, with_matches
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.retrieval import RetrievalReport
from image_finder.components.starter import CARD, MAX_MB, WEIGHTS
from image_finder.components.starter.assembly import assemble_starter
from image_finder.components.starter.manifest import StarterManifest
from image_finder.components.storage import new_directory
from image_finder.components.temporaries import scratch_directory
from image_finder.components.text import shown_path
from image_finder.model_registry.card import recall_table
from image_finder.pipelines.model_operations import RegisteredModel
from image_finder.pipelines.stores import connect

_MB = 1e6
_LISTED = 10  # things
_LISTED_AT = 5  # k of their recall

_ABOUT = """# The starter model
This model comes with the package. Its trained weights, in 8 bits, are combined with the packaged trunks at first use. It
is meant for a first try with your own photographs. With captions of your own, or with COCO,
`image-finder pipeline run training` gives a better model.

## Licence of the weights
The weights in this folder have the licence of this project. They were trained on photographs and captions whose terms
are below, *for research and educational use*: ask the owners of the data before you use the weights for anything else.
The trunks keep the licences of their packages.
"""

_SNAPSHOTS = """Four of five training images are snapshots of people and dogs outdoors, taken by Flickr users about 2010; the others are
everyday photographs of COCO. All captions are English. Expect weak results for drawings, screenshots, documents, plans and
medical or aerial images; for small things, night scenes and whatever few captions name; for names of persons, places,
brands and species; and for text in images."""
_OTHER_DATA = """The model was trained and evaluated on one data set. Expect weak results for subjects that are rare in it, for other kinds
of images and other languages; for names of persons, places, brands and species; and for text in images."""


class Shipped(NamedTuple):
    """Recall of the packed model on a set of captioned images, and of the captions that name a thing."""

    measurement: BundleMeasurement
    things: list[ThingFound]

    @property
    def report(self) -> RetrievalReport:
        return self.measurement.report


class Packed(NamedTuple):
    manifest: StarterManifest
    measured: list[Shipped]
    weights_bytes: int


def pack(
    registered: RegisteredModel,
    version_or_alias: str,
    to: Path,
    *,
    measure_on: Sequence[Path] = (),
    max_mb: float = MAX_MB,
) -> Packed:
    """Write a version's trained weights, manifest and card to a folder, completely or not at all.

    The weights, of at most max_mb, are combined with the trunks again; the result is measured on each folder of captioned
    images, from which the threshold of a good match is learned. Raises ConfigError if the run that trained the version is
    unknown here or its heads alone exceed max_mb, BundleError, DataError, StorageError.
    """
    version = registered.registry.version(registered.name, version_or_alias).version
    trained = _trained(registered, version)
    with scratch_directory() as folder:
        packed, bundle_path = Path(folder) / "packed", Path(folder) / "bundle"
        manifest = pack_starter(
            trained.checkpoint, trained.scores, packed, vocabulary=trained.vocabulary, max_mb=max_mb
        )
        bundle = assemble_starter(packed, bundle_path)
        parts = [read_part(each, None) for each in measure_on]
        measured = [_shipped(part, bundle) for part in parts]
        if parts:
            data = [part.data for part in parts]
            manifest = with_matches(packed, calibrate_matches(OnnxEncoder(bundle), trained.vocabulary, data))
        (packed / CARD).write_text(
            starter_card(registered.registry.card_of(registered.name, version), manifest.dataset, measured),
            encoding="utf-8",
        )
        with new_directory(to) as target:
            shutil.copytree(packed, target, dirs_exist_ok=True)
    return Packed(manifest, measured, (to / WEIGHTS).stat().st_size)


def packed_text(packed: Packed, to: Path) -> str:
    lines = [f"{shown_path(to)}: {packed.weights_bytes / _MB:.1f} MB of weights, trained on {packed.manifest.dataset}"]
    for each in packed.measured:
        recalls = "/".join(f"{100 * value:.1f}" for _, value in sorted(each.report.text_to_image.recall.items()))
        lines.append(
            f"{each.report.dataset} {each.report.split}, {each.report.n_images:,} images: text to image R@1/5/10 {recalls}"
        )
    return "\n".join(lines)


def _shipped(part: CaptionedPart, bundle: Bundle) -> Shipped:
    measured = part.measured(bundle, EvaluationConfig())
    things = things_found(part.data.captions["caption"].tolist(), measured.ranks, _LISTED_AT)
    return Shipped(measured.measurement, things)


class _Trained(NamedTuple):
    checkpoint: Checkpoint
    scores: ScoreCalibration
    vocabulary: Vocabulary


def _trained(registered: RegisteredModel, version: str) -> _Trained:
    lineage = registered.registry.lineage_of(registered.name, version)
    client = connect(registered.home)  # before ZenML is imported, which reads its environment then
    from image_finder.steps import dual_encoder  # noqa: F401 - registers how a checkpoint is loaded
    from image_finder.steps.materializers import load_artifact

    try:
        run = client.get_pipeline_run(lineage.run_name if lineage else "", allow_name_prefix_match=False)
        steps = ("split_captions", "train_dual_encoder", "evaluate_retrieval")
        outputs = {name: made[0] for step in steps for name, made in run.steps[step].outputs.items()}
        checkpoint = load_artifact(outputs["checkpoint"], Checkpoint)
        scores = load_artifact(outputs["score_calibration"], ScoreCalibration)
        captions = load_artifact(outputs["train_captions"], pd.DataFrame)
    except KeyError as error:
        raise ConfigError(
            f"the run that trained version {version} of '{registered.name}' is not in {registered.home.root}: pack where it ran"
        ) from error
    return _Trained(checkpoint, scores, Vocabulary.of(captions["caption"]))


def starter_card(registered: str, dataset: str, measured: Sequence[Shipped]) -> str:
    sections = registered.split("\n## ")
    facts = [section for section in sections[1:] if not section.startswith(("Promotion history", "Lineage"))]
    limits = next((place for place, section in enumerate(facts) if section.startswith("Limits")), len(facts))
    unmet = _SNAPSHOTS if "flickr8k" in dataset.lower() else _OTHER_DATA
    facts[limits:limits] = [*map(_elsewhere, measured), f"Limits of its training data\n{unmet}"]
    about, licence = _ABOUT.strip().split("\n\n## ")
    first = [about, _finds(measured), licence] if measured else [about, licence]
    return "\n\n## ".join([*first, *(section.strip() for section in facts)]) + "\n"


def _finds(measured: Sequence[Shipped]) -> str:
    ks = sorted(measured[0].report.text_to_image.recall)
    head = " | ".join(["data", "captions", *(f"recall@{k}" for k in ks), "queries"])
    rows = "\n".join(row for each in measured for row in _rows_by_words(each.report, ks))
    return f"""What it finds
Recall as shipped: the share of captions whose own image is among the first k. A word is met in training if at least two
training captions contain it.

| {head} |
|{" --- |" * (len(ks) + 3)}
{rows}
{"".join(_things(each) for each in measured).rstrip()}"""


def _rows_by_words(report: RetrievalReport, ks: Sequence[int]) -> list[str]:
    data = f"{report.dataset} {report.split}, {report.n_images:,} images"
    whole = report.text_to_image
    groups = [(f"words {each.value}", each) for each in report.slices if each.slice == WORDS.name]
    rows = [*((name, each.recall, each.n_queries) for name, each in groups), ("all", whole.recall, whole.n_queries)]
    return [
        f"| {data} | {name} | {' | '.join(f'{100 * recall[k]:.1f} %' for k in ks)} | {n_queries:,} |"
        for name, recall, n_queries in rows
    ]


def _things(shipped: Shipped) -> str:
    if len(shipped.things) < 2 * _LISTED:
        return ""
    most, least = (
        ", ".join(f"{each.thing} {100 * each.recall:.0f} %" for each in things)
        for things in (shipped.things[:_LISTED], shipped.things[: -_LISTED - 1 : -1])
    )
    return f"""
On {shipped.report.dataset}, recall@{_LISTED_AT} is highest for captions that name: {most}.
It is lowest for: {least}.
"""


def _elsewhere(shipped: Shipped) -> str:
    report = shipped.report
    return f"""As shipped, on part `{report.split}` of `{report.dataset}`
{report.n_images:,} images, {report.n_captions:,} captions, searched with the ONNX towers made of these
weights (`image-finder models evaluate`).

{recall_table(report)}"""
