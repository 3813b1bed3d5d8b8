"""Fidelity: compares an imported bundle with the original library, from file to unit vector."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.bundle import ImportedModel
from image_finder.components.bundle.encoder import OnnxEncoder, in_batches
from image_finder.components.errors import QualityError
from image_finder.components.importing.original import Original
from image_finder.components.records.export import ParityReport

BATCHES = (1, 3, 8)  # reveal a fixed batch dimension and dependence between rows
MAX_DIFFERENCE = 1e-4  # of a component, in 32 bits
_PIXEL_DIFFERENCE = 1e-5  # of a normalised value: another rounding of the same byte
_SIZES = ((640, 427), (427, 640), (300, 300), (1001, 201), (33, 47), (225, 224), (224, 225), (512, 3))
# Short, long, longer than any model reads, and what people paste: other scripts, emoji, quotes, blanks, numbers.
PROBES = (
    "",
    "a",
    "dog",
    "A DOG",
    "two dogs play on a beach",
    "a photo of a cat.",
    "It's a man's hat, isn't it?",
    "a red-and-white striped umbrella (open)",
    "route 66, 1234567890 miles",
    "\u201cquoted\u201d \u2018text\u2019 \u2013 and more\u2026",
    "  blanks \t and\nlines  ",
    "a caf\u00e9 in Z\u00fcrich, na\u00efve fa\u00e7ade",
    "cafe\u0301 with a combining accent",
    "ein Hund l\u00e4uft \u00fcber die Stra\u00dfe",
    "\u0441\u043e\u0431\u0430\u043a\u0430 \u0431\u0435\u0436\u0438\u0442 \u043f\u043e \u043f\u043b\u044f\u0436\u0443",
    "\u4e00\u53ea\u72d7\u5728\u6d77\u6ee9\u4e0a\u5954\u8dd1",
    "\u6d5c\u8fba\u3092\u8d70\u308b\u72ac",
    "\u0643\u0644\u0628 \u064a\u062c\u0631\u064a \u0639\u0644\u0649 \u0627\u0644\u0634\u0627\u0637\u0626",
    "\u0938\u092e\u0941\u0926\u094d\u0930 \u0924\u091f \u092a\u0930 \u0915\u0941\u0924\u094d\u0924\u093e",
    "\U0001f436 on the \U0001f3d6\ufe0f with \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "<|endoftext|> is text",
    "snake_case and CamelCase",
    "!!! ??? ...",
    " ".join(["a very long caption about a dog that runs"] * 40),
)


class Fidelity(NamedTuple):
    """Largest difference of a component per tower; number of texts with other tokens and images with other pixels."""

    text: float
    image: float
    texts_differ: tuple[str, ...]
    images_differ: tuple[str, ...]

    @property
    def max_difference(self) -> float:
        return max(self.text, self.image)


def measure_fidelity(original: Original, encoder: OnnxEncoder) -> Fidelity:
    """Compare tokens, pixels and vectors, in batches of 1, 3 and 8, with and without padding."""
    images = _images()
    inputs = np.stack([encoder.preprocess.pixels(image) for image in images])
    with_library = original.reference.images(images)
    image = max(_largest(in_batches(encoder.encode_image, inputs, batch), with_library) for batch in BATCHES)
    texts = original.reference.texts(PROBES)
    alone = _largest(encoder.encode_text(PROBES), texts)
    padded = max(_largest(_padded(encoder, batch), texts) for batch in BATCHES)
    return Fidelity(max(alone, padded), image, _other_tokens(original), _other_pixels(original, images))


def require_fidelity(found: Fidelity, original: Original) -> None:
    """Raise QualityError if the bundle would not answer as the original library does."""
    faults = [f"the text {text!r} gets other tokens" for text in found.texts_differ[:1]]
    faults += [f"an image of {size} pixels is resized differently" for size in found.images_differ[:1]]
    for tower, difference in (("text", found.text), ("image", found.image)):
        if not difference <= MAX_DIFFERENCE:
            faults.append(f"the {tower} tower differs by {difference:.2g}, at most {MAX_DIFFERENCE:g} is allowed")
    if faults:
        raise QualityError(
            f"the exported model differs from {original.library}: {'; '.join(faults)}; nothing was written, import another model"
        )


def parity_of(imported: ImportedModel) -> ParityReport:
    """Fidelity of an imported bundle as the promotion rule reads it; recall was not compared."""
    return ParityReport(
        cases=(),
        min_cosine=min(imported.text_cosine, imported.image_cosine),
        max_difference=imported.max_difference,
        torch_recall_at_10=None,
        onnx_recall_at_10=None,
        n_images=len(_SIZES),
        passed=True,
        reasons=(),
    )


def smallest_cosine(one: Vectors, other: Vectors) -> float:
    return float(np.einsum("ij,ij->i", one.astype(np.float64), other.astype(np.float64)).min())


def probe_vectors(encoder: OnnxEncoder) -> tuple[Vectors, Vectors]:
    """Vectors of the probe texts and images."""
    images = np.stack([encoder.preprocess.pixels(image) for image in _images()])
    return encoder.encode_text(PROBES), encoder.encode_image(images)


def _other_tokens(original: Original) -> tuple[str, ...]:
    differ = []
    for text in PROBES:
        theirs = original.reference.ids([text])[0].tolist()
        row = original.tokenizer([text])
        ours = row.ids[0][: int(row.mask[0].sum())].tolist()
        rest = theirs[len(ours) :]
        if theirs[: len(ours)] != ours or any(each != original.tokenizer.padding.token for each in rest):
            differ.append(text)
    return tuple(differ)


def _other_pixels(original: Original, images: Sequence[Image.Image]) -> tuple[str, ...]:
    mean, std = (
        np.array(each, np.float32)[:, None, None] for each in (original.preprocess.mean, original.preprocess.std)
    )
    differ = []
    for image in images:
        scaled = original.preprocess.pixels(image).transpose(2, 0, 1).astype(np.float32) / 255
        if np.abs((scaled - mean) / std - original.reference.pixels(image)).max() > _PIXEL_DIFFERENCE:
            differ.append(f"{image.width} x {image.height}")
    return tuple(differ)


def _images() -> list[Image.Image]:
    """Images of odd shapes with detail at every scale: sums of noise from coarse to fine."""
    rng = np.random.default_rng(0)
    images = []
    for width, height in _SIZES:
        layers = [
            np.asarray(Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize((width, height)))
            for side in (4, 16, 64)
        ]
        images.append(Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)))
    return images


def _padded(encoder: OnnxEncoder, batch: int) -> Vectors:
    rows = [PROBES[start : start + batch] for start in range(0, len(PROBES), batch)]
    return np.concatenate([encoder.encode_tokens(encoder.tokenizer(texts)) for texts in rows])


def _largest(ours: Vectors, theirs: Vectors) -> float:
    difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
    return float(difference) if np.isfinite(difference) else 2.0
