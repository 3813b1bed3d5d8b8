"""Prompts: the sentences that replace a label or a short text, and the vectors of texts.

A model that was trained on sentences understands a lone word badly, and the mean of a few sentences that contain it
well (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 3.1.4).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from image_finder.components.arrays import Vectors
from image_finder.components.bundle.encoder import OnnxEncoder

TEMPLATES = ("{}", "a {}", "a photo of a {}", "there is a {} in the picture", "a {} outside")
_SHORT_WORDS = 2


def prompts_of(label: str, templates: tuple[str, ...] = TEMPLATES) -> list[str]:
    return [template.replace("{}", label) for template in templates]


def expand(text: str) -> list[str]:
    """Texts whose mean vector represents a text: prompts of one or two words, else the text."""
    return prompts_of(text) if len(text.split()) <= _SHORT_WORDS else [text]


def text_vectors(encoder: OnnxEncoder, texts: Iterable[str]) -> dict[str, Vectors]:
    """Unit vector (dim,) of each text as a search uses it: of a short text the mean prompt."""
    return mean_vectors(encoder, {text: expand(text) for text in texts})


def mean_vectors(encoder: OnnxEncoder, prompts: Mapping[str, Sequence[str]]) -> dict[str, Vectors]:
    """Mean of the vectors of each text's prompts, with length 1: (dim,)."""
    flat = sorted({prompt for several in prompts.values() for prompt in several})
    vectors = dict(zip(flat, encoder.encode_text(flat), strict=True))
    return {text: unit(np.sum([vectors[prompt] for prompt in several], axis=0)) for text, several in prompts.items()}


def unit(vector: Vectors) -> Vectors:
    """The vector with length 1: (dim,) float32."""
    norm = float(np.linalg.norm(vector))
    return (vector / max(norm, 1e-12)).astype(np.float32)
