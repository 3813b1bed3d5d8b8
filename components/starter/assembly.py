"""Assembly of a starter model: its own tensors and packaged trunks become a bundle of ONNX towers, with NumPy alone.

image_encoder.onnx, text_encoder.onnx   graphs of the towers without their weights
weights.safetensors                     see weights.py
starter.json                            StarterManifest
"""

import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from image_finder.components.bundle.bundle import (
    FORMAT_VERSION,
    PREPROCESS,
    SCORES,
    TOKENIZER,
    VOCABULARY,
    Bundle,
    BundleManifest,
)
from image_finder.components.configs import ModelConfig
from image_finder.components.errors import BundleError
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.starter import WEIGHTS
from image_finder.components.starter.manifest import StarterManifest
from image_finder.components.starter.onnx_file import append_initializers
from image_finder.components.starter.trunk_files import TrunkTensors, located
from image_finder.components.starter.weights import ModelTensors, initializer
from image_finder.components.storage import hash_directory, new_directory
from image_finder.components.text import one_line


def scores_json(scores: ScoreCalibration) -> str:
    """Content of the file of scores in an assembled bundle."""
    return scores.model_dump_json(indent=2)


def assemble_starter(source: Path, path: Path, *, unpacked: Path | None = None) -> Bundle:
    """Write the bundle of a starter model.

    unpacked: directory of unpacked packages, see located. Raises TrunkError for a package that is missing or differs,
    BundleError, StorageError.
    """
    manifest = StarterManifest.verified(source)
    config = ModelConfig.parse(manifest.config)
    trunks = {name: located(file, unpacked) for name, file in manifest.trunks.items()}
    tokenizer = located(manifest.tokenizer, unpacked)
    try:
        tensors = ModelTensors(load_file(source / WEIGHTS), TrunkTensors(trunks, manifest.packaged))
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{source / WEIGHTS} cannot be read: {one_line(error)}; {manifest.repair}") from error
    with new_directory(path) as folder:
        for name, sources in manifest.towers.items():
            shutil.copyfile(source / name, folder / name)
            try:
                weights = [(each.name, initializer(each, tensors)) for each in sources]
            except (KeyError, ValueError) as error:
                raise BundleError(f"{source / name} does not fit its weights: {error}; {manifest.repair}") from error
            with (folder / name).open("ab") as file:
                append_initializers(file, weights)
        shutil.copyfile(tokenizer, folder / TOKENIZER)
        (folder / PREPROCESS).write_text(manifest.preprocess.model_dump_json(indent=2), encoding="utf-8", newline="\n")
        (folder / SCORES).write_text(scores_json(manifest.scores), encoding="utf-8", newline="\n")
        if manifest.vocabulary is not None:
            (folder / VOCABULARY).write_text(manifest.vocabulary.model_dump_json(), encoding="utf-8", newline="\n")
        made = BundleManifest(
            format_version=FORMAT_VERSION,
            embedding_dim=config.embedding_dim,
            max_tokens=config.text.max_tokens,
            files_sha256=hash_directory(folder),
            dataset=manifest.dataset,
            data_version=manifest.data_version,
            image_trunk=config.image.origin,
            text_trunk=config.text.origin,
            text_quantised=True,
            config=config.model_dump(mode="json"),
            starter=True,
        )
        made.write(folder)
    return Bundle(path, made)
