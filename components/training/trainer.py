"""Trainer: trains a checkpoint on captioned images and computes a checkpoint's vectors; needs no ZenML or MLflow."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from image_finder.components.arrays import IntArray, Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig, ModelConfig, TrainingConfig
from image_finder.components.encoders.checkpoint import FORMAT_VERSION, Checkpoint, CheckpointManifest, save_checkpoint
from image_finder.components.encoders.dual_encoder import Assembled, DualEncoder, assemble
from image_finder.components.encoders.hubness import plain_vectors
from image_finder.components.errors import DataError
from image_finder.components.features.content_cache import ContentCache
from image_finder.components.features.frozen_trunk import (
    extract_image_features,
    extract_text_features,
    image_features_cache,
    text_features_cache,
    text_keys,
)
from image_finder.components.records.base import Record
from image_finder.components.storage import sha256_of_bytes, sha256_of_file
from image_finder.components.text import counted
from image_finder.components.training.distributed.ranks import ALONE, Ranks
from image_finder.components.training.loop import OnEpoch, pick_device, train
from image_finder.components.training.sources import (
    CachedImages,
    CachedTexts,
    DecodedImages,
    ImageSource,
    PairedSet,
    TextSource,
    TokenisedTexts,
    embed_all,
    embed_rows,
)
from image_finder.components.training.teachers import taught_by

_FINISHED = "finished"
_EMBED_BATCH = 256  # images times test-time variants, or captions
_BANK_CAPTIONS, _BANK_IMAGES = 20_000, 2_000  # training examples that fit the hubness correction
_RUNTIME_ONLY = {"rendezvous", "restarts", "wait_s", "teacher"}  # do not affect the result
_CODE_FOLDERS = ("captions", "encoders", "features", "images", "metrics", "training")


@dataclass(frozen=True)
class FeatureSettings:
    cache_dir: Path
    embedding: EmbeddingConfig
    progress: bool = False


class TrainingTask(NamedTuple):
    """Input of a training, and where its checkpoint is written."""

    train_data: CaptionedImages
    val_data: CaptionedImages
    configs: tuple[ModelConfig, TrainingConfig]
    settings: FeatureSettings
    path: Path
    dataset: tuple[str, str]  # name and data version


class FeatureSummary(Record):
    """Directories of the feature caches of a data set and the number of examples."""

    image_cache: str  # empty: the whole image trunk learns, so nothing is cached
    text_cache: str
    n_images: int
    n_captions: int


def untrained(config: ModelConfig, seed: int) -> Assembled:
    """Dual encoder with pre-trained trunks and random heads."""
    torch.manual_seed(seed)
    return assemble(config)


def paired_set(
    assembled: Assembled,
    config: ModelConfig,
    data: CaptionedImages,
    settings: FeatureSettings,
    *,
    augmented_views: int = 1,
    teachers: Sequence[Bundle] = (),
) -> PairedSet:
    """Training inputs; computes missing features of frozen trunks, and the soft targets. Raises DataError, BundleError."""
    return PairedSet(
        _image_source(assembled, config, data, settings, augmented_views=augmented_views),
        _text_source(assembled, config, data, settings),
        data.image_of_caption(),
        taught_by(teachers, data, settings.embedding, settings.cache_dir, progress=settings.progress)
        if teachers
        else None,
    )


def extract_features(
    config: ModelConfig,
    seed: int,
    tables: list[CaptionedImages],
    settings: FeatureSettings,
    *,
    augmented_views: int = 1,
) -> FeatureSummary:
    """Fill the caches of frozen trunks for all tables; only the first, which is to train, has augmented views."""
    assembled = untrained(config, seed)
    for number, data in enumerate(tables):
        paired_set(
            assembled,
            config,
            data,
            settings,
            augmented_views=1 if number else augmented_views,
        )
    return FeatureSummary(
        image_cache=""
        if config.image.trained_stages == "all"
        else image_features_cache(assembled, settings.cache_dir).folder.name,
        text_cache="" if config.text.trained_layers else text_features_cache(assembled, settings.cache_dir).folder.name,
        n_images=sum(len(data.image_ids()) for data in tables),
        n_captions=sum(len(data.captions) for data in tables),
    )


def train_checkpoint(task: TrainingTask, *, on_epoch: OnEpoch = lambda _: None, ranks: Ranks = ALONE) -> Checkpoint:
    """Train in this process and write a checkpoint.

    A killed training resumes after its last finished epoch, stored in <cache directory>/training; a finished one with
    the same data, configuration and code is not repeated. Of several ranks (training.distributed.run starts them),
    rank 0 computes the features and writes. Raises DataError, ConfigError, StorageError, ProcessError.
    """
    train_data, val_data, configs, settings, path, (name, version) = task
    model_config, training = configs
    assembled = untrained(model_config, training.seed)
    teachers = [Bundle.open(path) for path in training.teacher]
    identity = _identity(train_data, val_data, configs, teachers)
    work = settings.cache_dir / "training" / identity[:16]
    with ranks.lead_first():
        train_set = paired_set(
            assembled,
            model_config,
            train_data,
            settings,
            augmented_views=training.augmented_views,
            teachers=teachers,
        )
        val_set = paired_set(assembled, model_config, val_data, settings)
    trained = train(
        assembled.model,
        train_set,
        val_set,
        training,
        work=work,
        identity=identity,
        on_epoch=on_epoch,
        progress=settings.progress,
        ranks=ranks,
    )
    manifest = CheckpointManifest(
        format_version=FORMAT_VERSION,
        dataset=name,
        data_version=version,
        epoch=trained.epoch,
        history=trained.history,
        files_sha256={},
    )
    if not ranks.leads:
        ranks.broadcast()  # wait until the checkpoint is written
        return Checkpoint.open(path)
    _fit_hubness(trained.model, train_set, pick_device(training.device))
    _forget_finished(work)
    checkpoint = save_checkpoint(path, assembled._replace(model=trained.model), model_config, manifest)
    ranks.broadcast()
    return checkpoint


def checkpoint_vectors(
    checkpoint: Checkpoint, data: CaptionedImages, settings: FeatureSettings, *, device: str = "auto"
) -> tuple[Vectors, Vectors]:
    """Unit vectors of images (order of image_ids) and captions (order of the table)."""
    assembled = checkpoint.load()
    target = pick_device(device)
    variants = len(assembled.model.image_tower.tta)
    images = (
        _image_source(assembled, checkpoint.config, data, settings, augmented_views=1)
        if variants == 1
        else _decoded_images(assembled, data)  # the cache holds the features of the whole image only
    )
    data_set = PairedSet(images, _text_source(assembled, checkpoint.config, data, settings), data.image_of_caption())
    return embed_all(assembled.model.to(target), data_set, device=target, batch=_EMBED_BATCH // variants)


def _fit_hubness(model: DualEncoder, train_set: PairedSet, device: torch.device) -> None:
    hubness = model.image_tower.hubness
    if hubness is None:
        return
    captions = _thinned(np.arange(len(train_set.texts)), _BANK_CAPTIONS)
    images = _thinned(np.arange(len(train_set.images)), _BANK_IMAGES)
    vectors = embed_rows(model.to(device), train_set, images, captions, device=device)
    model.cpu()
    image_vectors, text_vectors = (plain_vectors(torch.from_numpy(each)) for each in vectors)
    hubness.fit(text_vectors, image_vectors)


def _thinned(rows: IntArray, most: int) -> IntArray:
    return rows[np.linspace(0, len(rows), min(len(rows), most), endpoint=False).astype(np.int64)]


def _image_source(
    assembled: Assembled, config: ModelConfig, data: CaptionedImages, settings: FeatureSettings, *, augmented_views: int
) -> ImageSource:
    if config.image.trained_stages == "all":
        return _decoded_images(assembled, data)
    rows = data.image_rows()
    paths = [data.root / name for name in rows["file_name"]]
    keys = rows["sha256"].tolist()
    caches = []
    for view in range(augmented_views):
        cache = image_features_cache(assembled, settings.cache_dir, view=view)
        _fill(cache, assembled, dict(zip(paths, keys, strict=True)), settings, view=view)
        caches.append(cache)
    return CachedImages(caches, keys)


def _decoded_images(assembled: Assembled, data: CaptionedImages) -> DecodedImages:
    return DecodedImages([data.root / name for name in data.image_rows()["file_name"]], assembled.preprocess)


def _fill(
    cache: ContentCache, assembled: Assembled, keys: dict[Path, str], settings: FeatureSettings, *, view: int
) -> None:
    missing = [path for path, key in keys.items() if key not in cache]
    if not missing:
        return
    found = extract_image_features(assembled, missing, cache, settings.embedding, view=view, progress=settings.progress)
    changed = [path for path in missing if found[path] != keys[path]]
    if changed:
        raise DataError(
            f"{counted(len(changed), 'image')} changed after validation, first {changed[0]}; run the pipeline again"
        )


def _text_source(
    assembled: Assembled, config: ModelConfig, data: CaptionedImages, settings: FeatureSettings
) -> TextSource:
    captions = data.captions["caption"].tolist()
    if config.text.trained_layers:
        return TokenisedTexts(captions, assembled.tokenizer)
    cache = text_features_cache(assembled, settings.cache_dir)
    keys = text_keys(captions)
    missing = [caption for caption, key in zip(captions, keys, strict=True) if key not in cache]
    if missing:
        extract_text_features(assembled, missing, cache, settings.embedding, progress=settings.progress)
    return CachedTexts(cache, keys)


def _forget_finished(work: Path) -> None:
    """Mark this training as finished and remove the states of other finished ones."""
    for other in work.parent.iterdir():
        if other != work and (other / _FINISHED).exists():
            shutil.rmtree(other)
    (work / _FINISHED).touch()


def _identity(
    train_data: CaptionedImages,
    val_data: CaptionedImages,
    configs: tuple[ModelConfig, TrainingConfig],
    teachers: Sequence[Bundle] = (),
) -> str:
    model_config, training = configs
    parts = [model_config.model_dump_json(), training.model_dump_json(exclude=_RUNTIME_ONLY), _code_sha256()]
    parts += [teacher.sha256 for teacher in teachers]
    for data in (train_data, val_data):
        parts += data.image_rows()["sha256"].tolist()
        parts += text_keys(data.captions["caption"].tolist())
        parts.append(data.image_of_caption().tobytes().hex())
    return sha256_of_bytes("\n".join(parts).encode())


def _code_sha256() -> str:
    """Hash of the code that a training runs: changed code starts a new training."""
    components = Path(__file__).resolve().parents[1]
    files = sorted(path for folder in _CODE_FOLDERS for path in (components / folder).rglob("*.py"))
    return sha256_of_bytes(
        "\n".join(f"{path.relative_to(components)}:{sha256_of_file(path)}" for path in files).encode()
    )
