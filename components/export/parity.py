"""Parity: compares a bundle's ONNX towers with the torch towers that they were exported from."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder, in_batches
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.captions.tokens import Tokenizer
from image_finder.components.configs import ExportConfig
from image_finder.components.encoders.checkpoint import Checkpoint
from image_finder.components.encoders.dual_encoder import Assembled
from image_finder.components.errors import QualityError
from image_finder.components.metrics.ranks import UNIT_TOLERANCE, first_match_ranks
from image_finder.components.metrics.recall import recall_at_k
from image_finder.components.records.export import ParityCase, ParityReport

Tower = Literal["image", "text"]

BATCHES = (1, 3, 8)  # reveal a fixed batch dimension and dependence between rows
_TEXTS_PER_CASE = 8
_REFERENCE_BATCH = 32
_K = 10
# Reported for values that are not finite, which JSON lacks: the worst possible between unit vectors.
_WORST_COSINE = -1.0
_WORST_DIFFERENCE = 2.0


def measure_parity(checkpoint: Checkpoint, bundle: Bundle, data: CaptionedImages, config: ExportConfig) -> ParityReport:
    """Compare both towers on the CPU, on the first config.parity_images images and captions.

    Each side uses its own preprocessing and tokenizer, so differences there show too. Batches of 1, 3 and 8; texts are
    short, medium, long, over-length and mixed captions. Raises BundleError, DataError, ImageError.
    """
    assembled = checkpoint.load()
    encoder = OnnxEncoder(bundle, device="cpu")
    ids = data.image_ids()[: config.parity_images]
    rows = data.image_rows().loc[ids]
    paths = [data.root / name for name in rows["file_name"]]
    of_images = data.captions[data.captions["image_id"].isin(ids)]
    captions = of_images["caption"].tolist()

    pixels = np.stack([assembled.preprocess.load(path) for path in paths])
    same = assembled.preprocess == encoder.preprocess
    onnx_pixels = pixels if same else np.stack([encoder.preprocess.load(path) for path in paths])
    torch_images = in_batches(partial(_torch_images, assembled), pixels, _REFERENCE_BATCH)
    onnx_images = {batch: in_batches(encoder.encode_image, onnx_pixels, batch) for batch in BATCHES}
    cases = [_case("image", batch, "images", torch_images, vectors) for batch, vectors in onnx_images.items()]
    for name, texts in _text_cases(captions, assembled.tokenizer).items():
        alone = in_batches(partial(_torch_texts, assembled), texts, 1)  # to show effects of padding
        cases += [
            _case("text", batch, name, alone, in_batches(partial(_onnx_texts, encoder), texts, batch))
            for batch in BATCHES
        ]

    torch_texts = in_batches(partial(_torch_texts, assembled), captions, _REFERENCE_BATCH)
    owners = np.searchsorted(ids, of_images["image_id"].to_numpy())
    recalls = (
        _recall(torch_images, torch_texts, owners),
        _recall(onnx_images[BATCHES[-1]], encoder.encode_text(captions), owners),
    )
    return _judge(cases, recalls, len(paths), config, text_int8=bundle.manifest.text_quantised)


def require_parity(report: ParityReport) -> None:
    """Raise QualityError with the measured numbers unless the report passed."""
    if not report.passed:
        raise QualityError(
            f"the exported model differs from the trained one: {'; '.join(report.reasons)}; nothing was registered"
        )


def _judge(
    cases: Sequence[ParityCase],
    recalls: tuple[float, float],
    n_images: int,
    config: ExportConfig,
    *,
    text_int8: bool,
) -> ParityReport:
    reasons = [reason for case in cases for reason in _faults(case, config, int8=text_int8 and case.tower == "text")]
    torch_recall, onnx_recall = recalls
    if not torch_recall - onnx_recall <= config.max_recall_difference:
        reasons.append(
            f"text-to-image recall@{_K} fell from {torch_recall:.4f} to {onnx_recall:.4f} on {n_images} images, "
            f"at most {config.max_recall_difference:g} less is allowed"
        )
    return ParityReport(
        cases=tuple(cases),
        min_cosine=min(case.min_cosine for case in cases),
        max_difference=max(case.max_difference for case in cases),
        torch_recall_at_10=torch_recall,
        onnx_recall_at_10=onnx_recall,
        n_images=n_images,
        passed=not reasons,
        reasons=tuple(reasons),
    )


def _faults(case: ParityCase, config: ExportConfig, *, int8: bool) -> Iterator[str]:
    """Reasons why a case fails; 8-bit weights have their own cosine limit only."""
    name = f"{case.tower} tower, {case.case}, batch {case.batch}"
    least = config.min_cosine_int8 if int8 else config.min_cosine
    if not case.min_cosine >= least:
        yield f"{name}: cosine {case.min_cosine:.6f}, at least {least:g} is needed"
    if not int8 and not case.max_difference <= config.max_difference:
        yield f"{name}: a component differs by {case.max_difference:.3g}, at most {config.max_difference:g} is allowed"


def _text_cases(captions: Sequence[str], tokenizer: Tokenizer) -> dict[str, list[str]]:
    """Captions by number of tokens; over-length ones are cut, mixed ones padded."""
    distinct = sorted(set(captions))
    counts = tokenizer.count(distinct)
    ordered = [distinct[row] for row in np.argsort(counts, kind="stable")]
    middle = max(0, (len(ordered) - _TEXTS_PER_CASE) // 2)
    cases = {
        "short": ordered[:_TEXTS_PER_CASE],
        "medium": ordered[middle : middle + _TEXTS_PER_CASE],
        "long": ordered[-_TEXTS_PER_CASE:],
    }
    cases["over-length"] = [" ".join([text or "a"] * tokenizer.max_tokens) for text in cases["long"]]
    mixed = [text for texts in zip(*cases.values(), strict=True) for text in texts]
    return {**cases, "mixed": mixed[: 2 * _TEXTS_PER_CASE]}


def _case(tower: Tower, batch: int, name: str, expected: Vectors, measured: Vectors) -> ParityCase:
    """Compare unit rows, both (n, dim)."""
    a, b = expected.astype(np.float64), measured.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.einsum("ij,ij->i", a, b) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        difference = float(np.abs(a - b).max())
    cosine = float(cosines.min())
    return ParityCase(
        tower=tower,
        batch=batch,
        case=name,
        min_cosine=cosine if math.isfinite(cosine) else _WORST_COSINE,
        max_difference=difference if math.isfinite(difference) else _WORST_DIFFERENCE,
    )


def _recall(images: Vectors, texts: Vectors, owners: NDArray[np.int64]) -> float:
    """Text-to-image recall@10; 0 if a row is not a unit vector and so cannot be ranked."""
    for vectors in (images, texts):
        if not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) <= UNIT_TOLERANCE):
            return 0.0
    return recall_at_k(first_match_ranks(images, texts, owners).text_to_image, _K)


def _torch_images(assembled: Assembled, pixels: NDArray[np.uint8]) -> Vectors:
    with torch.inference_mode():
        vectors: Vectors = assembled.model.encode_image(torch.from_numpy(pixels)).numpy()
    return vectors


def _onnx_texts(encoder: OnnxEncoder, texts: Sequence[str]) -> Vectors:
    """Vectors of texts in one padded batch; encode_text would encode each alone."""
    return encoder.encode_tokens(encoder.tokenizer(texts))


def _torch_texts(assembled: Assembled, texts: Sequence[str]) -> Vectors:
    tokens = assembled.tokenizer(texts)
    with torch.inference_mode():
        vectors: Vectors = assembled.model.encode_text(
            torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask)
        ).numpy()
    return vectors
