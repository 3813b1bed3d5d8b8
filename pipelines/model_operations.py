"""Model operations: promotes, rolls back and fetches models by hand, together with the index."""

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from image_finder.components.app.champion_index import pending_change
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import (
    DatasetConfig,
    EvaluationConfig,
    RegistryConfig,
    SplitConfig,
    ValidationConfig,
)
from image_finder.components.errors import BundleError, ConfigError, FinderError, QualityError
from image_finder.components.index.generations import is_published_root
from image_finder.components.index.publish import current_bundle_sha256, restore
from image_finder.components.library.library import Library
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.temporaries import scratch_directory
from image_finder.model_registry import names
from image_finder.model_registry.code_hash import code_hash
from image_finder.model_registry.comparison_text import Side
from image_finder.model_registry.decision import (
    Challenger,
    decide_from_stored,
    decide_measured,
    forced_decision,
    stored_measurements,
)
from image_finder.model_registry.ledger.entries import Event
from image_finder.model_registry.promotion_page import Sides, store_page
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.registry_errors import limit_waiting, shown_address
from image_finder.pipelines.stores import Home, existing_registry

if TYPE_CHECKING:
    from image_finder.components.evaluation.folder_recall import CaptionedPart

_REQUEST_S, _RETRIES = 30, 1  # a person waits for the answer
_LIBRARY_WAIT_S = 60.0  # for a process that is indexing


class RegisteredModel(NamedTuple):
    home: Home
    uri: str
    promotions: Promotions
    name: str

    @property
    def registry(self) -> Registry:
        return self.promotions.registry

    def side(self, version_or_alias: str) -> Side:
        version = self.registry.version(self.name, version_or_alias)
        return Side(version, self.registry.report_of(self.name, version.version))


class Change(NamedTuple):
    version: str
    before: str | None
    decision: PromotionDecision | None
    index_text: str  # which index searches use now, in words
    page: str | None = None  # path or URI of the decision as HTML


def open_model(home: Path | None, mlflow_uri: str | None, model: str | None) -> RegisteredModel:
    """Open the named model, the default one, or the only one. Raises ConfigError."""
    place = Home.resolve(home)
    uri = existing_registry(place, mlflow_uri)
    limit_waiting(_REQUEST_S, _RETRIES)
    quieten_mlflow()
    registry = Registry.existing(uri)
    return RegisteredModel(place, uri, Promotions(registry, home=place.root), _chosen(registry, model))


def quieten_mlflow() -> None:
    """No progress bars, warnings or notes of MLflow beside the messages of a command."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    warnings.filterwarnings("ignore", module=r"mlflow\.")
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def promote(
    registered: RegisteredModel,
    version_or_alias: str,
    *,
    force: bool,
    reason: str,
    part: "CaptionedPart | None" = None,
) -> Change:
    """Make a version the champion if the rule or `force` allows it, and update the index.

    part: captioned images to measure both versions on; None compares their stored measurements. For the current champion
    only the index is updated. Raises QualityError, ConfigError.
    """
    promotions, model = registered.promotions, registered.name
    with promotions.exclusive(model):
        promotions.reconcile(model)
        version = registered.registry.version(model, version_or_alias).version
        before = promotions.champion(model).version
        decision, sides = None, Sides()
        if version != before:
            if force:
                decision = forced_decision(promotions, model, version, reason)
            elif part is not None:
                decision, sides = _measured_decision(registered, version, part)
            else:
                decision = decide_from_stored(promotions, model, version)
            if reason and not force:
                decision = decision.model_copy(update={"reasons": (*decision.reasons, f"requested: {reason}")})
            entry = promotions.record(model, decision)
            if part is None:
                sides = Sides.of(*stored_measurements(registered.registry, model, version, before))
            store_page(registered.registry, decision, entry, sides=sides)
            if not decision.promoted:
                raise QualityError(
                    f"version {version} of '{model}' is not promoted: {'; '.join(decision.reasons)}; to promote it all the "
                    f'same: image-finder models promote {version} --force --reason "..."'
                )
            promotions.move_champion(model, version, reason="", decision=decision)
    page = registered.registry.where(model, version, names.PROMOTION_ARTIFACT)
    return Change(version, before, decision, _update_index(registered, version), page)


def _measured_decision(
    registered: RegisteredModel, version: str, part: "CaptionedPart"
) -> tuple[PromotionDecision, Sides]:
    """Measure a version and the champion on the same captioned images, and apply the rule; records nothing."""
    from image_finder.components.metrics.comparison import MeasuredBundle

    def measure(bundle: Bundle) -> MeasuredBundle:
        return part.measured(bundle, EvaluationConfig(), code_sha256=code_hash())

    with scratch_directory() as folder:
        challenger = Challenger(registered.name, version, _bundle(registered, version))
        decision, measured = decide_measured(
            registered.promotions, challenger, measure, validation=part.validation, folder=Path(folder)
        )
    return decision, Sides.of(*measured)


def rollback(registered: RegisteredModel, *, reason: str) -> Change:
    """Restore the previous champion and its index. Raises ConfigError if there is none.

    If the last change was a rollback whose index is not current here yet (it was interrupted, or done on another machine),
    only the index is restored.
    """
    promotions, model = registered.promotions, registered.name
    with promotions.exclusive(model):
        promotions.reconcile(model)
        before = version = promotions.champion(model).version
        if before is None or not _rolled_back_to(registered, before) or not _index_is_of_another(registered, before):
            version = promotions.rollback(model, reason=reason).to_version
    assert version is not None, "a rollback names its version"
    return Change(version, before, None, _update_index(registered, version))  # an indexing run takes the lock itself


def pending(registered: RegisteredModel) -> list[str]:
    """What completes a change of the champion whose index in the home is missing: at most one sentence."""
    index = registered.home.index_dir
    champion = registered.registry.champion_version(registered.name)
    if champion is None or not is_published_root(index):
        return []
    change = pending_change(index, note=registered.promotions.champion_note(registered.name, champion))
    return [change.text()] if change is not None else []


def fetch(registered: RegisteredModel, version_or_alias: str, to: Path) -> Bundle:
    """Copy a bundle to a new folder, completely or not at all, and verify it. Raises ConfigError."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} exists already: name a folder that does not")
    return registered.registry.download_bundle(registered.name, version_or_alias, to)


def held_out_images(registered: RegisteredModel, version_or_alias: str) -> "CaptionedPart":
    """The images that a version was measured on after its training, without the extra evaluation sets.

    Raises ConfigError if its data are not here or were changed since, DataError.
    """
    from image_finder.components.evaluation.folder_recall import held_out_part

    registry, name = registered.registry, registered.name
    lineage, manifest = registry.lineage_of(name, version_or_alias), registry.manifest_of(name, version_or_alias)
    configs = lineage.configs if lineage else {}
    if manifest is None or "dataset" not in configs:
        raise ConfigError(f"version {version_or_alias} names no data; name captioned images with --data")
    # Data in the home move with it.
    roots = (Path(manifest.root), registered.home.data_dir / Path(manifest.root).name)
    root = next((each for each in roots if each.is_dir()), None)
    if root is None:
        raise ConfigError(
            f"the data of version {version_or_alias} are not here: there is no directory {manifest.root}; name captioned "
            "images with --data"
        )
    part = held_out_part(
        DatasetConfig.parse({**configs["dataset"], "root": root}),
        root,
        split=SplitConfig.parse(configs.get("split") or {}),
        validation=ValidationConfig.parse(configs.get("validation") or {}),
    )
    if not part.manifest.annotations_sha256.items() <= manifest.annotations_sha256.items():
        raise ConfigError(
            f"the captions in {root} were changed since version {version_or_alias} was trained; name captioned "
            "images with --data"
        )
    return part


def _chosen(registry: Registry, model: str | None) -> str:
    known = registry.model_names()
    usual = model or RegistryConfig().model_name
    if usual in known:
        return usual
    if model is None and len(known) == 1:
        return known[0]
    where = shown_address(registry.tracking_uri)
    if not known:
        raise ConfigError(f"no model is registered at {where}: run 'image-finder pipeline run training' first")
    wanted = f"no model '{model}'" if model else "more than one model"
    raise ConfigError(f"{wanted} at {where}: name one of {', '.join(known)} with --model")


def _rolled_back_to(registered: RegisteredModel, version: str) -> bool:
    entries = registered.promotions.history(registered.name).entries
    moves = [entry for entry in entries if entry.kind in {"moved", "forced", "rollback"}]
    return bool(moves) and moves[-1].kind == "rollback" and moves[-1].to_version == version


def _index_is_of_another(registered: RegisteredModel, version: str) -> bool:
    now = current_bundle_sha256(registered.home.index_dir)
    return bool(now) and now != registered.registry.version(registered.name, version).tags.get(names.BUNDLE_SHA256)


def _update_index(registered: RegisteredModel, version: str) -> str:
    """Make a version's index current: the stored one, else a new one. Searches continue."""
    home, registry = registered.home, registered.registry
    if not is_published_root(home.index_dir):
        return f"no index in {home.root}"
    if not _index_is_of_another(registered, version):
        return f"the index in {home.index_dir} is of version {version}"
    before = registry.version_of_bundle(registered.name, current_bundle_sha256(home.index_dir))
    registered.promotions.note_champion(registered.name, version)
    try:
        bundle = _bundle(registered, version)
        with Library(home.library_dir).writing(wait_s=_LIBRARY_WAIT_S):
            restored = restore(bundle, bundles=home.bundles_dir, target=home.index_dir)
        if restored is not None:
            kept = f"{restored.manifest.count:,} images in {home.index_dir}, kept from before"
            event = Event(kind="index", from_version=before, to_version=version, reasons=(kept,))
            registered.promotions.record(registered.name, event)
            return f"version {version} is serving searches again: {kept}"
        from image_finder.pipelines.scheduling.retrain import reindex

        manifest = reindex(home, registered.uri, model_name=registered.name)
    except FinderError as error:
        raise type(error)(
            f"version {version} of '{registered.name}' is champion, but searches still answer with the index of version "
            f"{before or '?'}: {error}; run the same command again"
        ) from error
    if manifest is None:
        return (
            f"searches still answer with version {before or '?'}: the library belongs to another model; "
            "run 'image-finder pipeline run indexing'"
        )
    return f"version {version} is serving searches: {manifest.count:,} images indexed"


def _bundle(registered: RegisteredModel, version: str) -> Bundle:
    """The home's copy if it is complete; it needs no artefact store. Else the registered one."""
    sha256 = registered.registry.version(registered.name, version).tags.get(names.BUNDLE_SHA256, "")
    try:
        bundle = Bundle.open(registered.home.bundles_dir / sha256[:16])
        if bundle.sha256 == sha256:
            return bundle
    except BundleError:
        pass
    return registered.registry.download_bundle(registered.name, version, registered.home.bundles_dir / sha256[:16])
