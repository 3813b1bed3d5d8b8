"""Bundle measurement: recall, latency and size of an exported model on captioned images, as served.

Challenger and champion are measured by the same function on the same images, so that nothing but the model differs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.bundle.onnx_session import device_of
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EvaluationConfig
from image_finder.components.metrics.comparison import MeasuredBundle, RankedQueries
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.metrics.recall import report_ranks
from image_finder.components.metrics.slices import caption_slices
from image_finder.components.records.export import BundleMeasurement
from image_finder.components.records.retrieval import EvaluatedOn, RetrievalReport
from image_finder.components.storage import sha256_of_bytes
from image_finder.components.system import available_cores

_TIMED = 25  # encodings; their median is robust against short interruptions by other programs
_NO_SETS: Mapping[str, CaptionedImages] = MappingProxyType({})


def measure_bundle(
    bundle: Bundle,
    data: CaptionedImages,
    config: EvaluationConfig,
    *,
    identity: EvaluatedOn,
    code_sha256: str,
    extra_sets: Mapping[str, CaptionedImages] = _NO_SETS,
) -> MeasuredBundle:
    """Measure recall of a bundle's ONNX towers on data and on each extra set, median time of one encoding, and size.

    Recall is measured on the available device, times on the CPU, where searches run. The time of an image excludes
    decoding and resizing, which depend on the file. code_sha256: hash of the code in use, for the record. Raises
    DataError, ImageError, BundleError.
    """
    sets = {name: each.first_captions(config.captions_per_image) for name, each in extra_sets.items()}
    data = data.first_captions(config.captions_per_image)
    device: Literal["cpu", "cuda"] = "cuda" if device_of() == "cuda" else "cpu"
    encoder = OnnxEncoder(bundle, device=device)
    main = _ranked(encoder, bundle, data)
    ranked = {name: _ranked(encoder, bundle, each) for name, each in sets.items()}

    def report(queries: RankedQueries, identity: EvaluatedOn) -> RetrievalReport:
        return report_ranks(queries.ranks, config=config, identity=identity, slices=queries.slices)

    paths, captions = _paths(data), data.captions["caption"].tolist()
    served = encoder if device == "cpu" else OnnxEncoder(bundle, device="cpu")
    measurement = BundleMeasurement(
        report=report(main, identity).model_copy(
            update={"extra_sets": {name: report(each, identity.of_set(name)) for name, each in ranked.items()}}
        ),
        text_ms=_median_ms(lambda row: served.encode_text([captions[row]]), len(captions)),
        image_ms=_time_images(served, paths),
        bundle_mb=bundle.size_mb,
        embedding_dim=encoder.embedding_dim,
        device=device,
        threads=available_cores(),
        test_sha256=_sha256_of_all(data, sets),
        code_sha256=code_sha256,
    )
    return MeasuredBundle(measurement, *main, ranked)


def _ranked(encoder: OnnxEncoder, bundle: Bundle, data: CaptionedImages) -> RankedQueries:
    texts = encoder.encode_text(data.captions["caption"].tolist())
    ranks = first_match_ranks(image_vectors(encoder, _paths(data)), texts, data.image_of_caption())
    return RankedQueries(ranks, caption_slices(data.captions, bundle.vocabulary()))


def _paths(data: CaptionedImages) -> list[Path]:
    return [data.root / name for name in data.image_rows()["file_name"]]


def image_vectors(encoder: OnnxEncoder, paths: Sequence[Path]) -> Vectors:
    """Vectors of images; a batch is decoded while the one before is encoded."""
    return encoder.encode_image(encoder.preprocess.load(path) for path in paths)


def _time_images(encoder: OnnxEncoder, paths: Sequence[Path]) -> float:
    pixels = np.stack([encoder.preprocess.load(paths[row]) for row in _sample(len(paths))])
    return _median_ms(lambda row: encoder.encode_image(pixels[row][None]), len(pixels))


def _median_ms(encode: Callable[[int], object], n_rows: int) -> float:
    """Median time of one call in ms, without the first call, which prepares the session."""
    rows = _sample(n_rows)
    encode(rows[0])
    seconds = []
    for row in rows:
        started = time.perf_counter()
        encode(row)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) * 1000


def _sample(n_rows: int) -> list[int]:
    rows: list[int] = np.unique(np.linspace(0, n_rows - 1, _TIMED).round().astype(np.int64)).tolist()
    return rows


def _sha256_of_all(data: CaptionedImages, sets: Mapping[str, CaptionedImages]) -> str:
    main = _test_sha256(data)
    if not sets:
        return main
    return sha256_of_bytes(
        "\n".join([main, *(f"{name}:{_test_sha256(each)}" for name, each in sorted(sets.items()))]).encode()
    )


def _test_sha256(data: CaptionedImages) -> str:
    """Hash of the images' contents in order, and of each caption with its image's row."""
    contents = data.image_rows()["sha256"].tolist()
    captions = zip(data.image_of_caption().tolist(), data.captions["caption"].tolist(), strict=True)
    return sha256_of_bytes("\n".join([*contents, *(f"{row} {caption!r}" for row, caption in captions)]).encode())
