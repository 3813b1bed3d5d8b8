"""Slices: the only list of the query groups of an evaluation, and of their values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """A division of queries into groups.

    numbered: instead of fixed values, this word and a number from 1, such as "license 4".
    """

    name: str
    values: tuple[str, ...] = ()
    numbered: str = ""

    def has(self, value: str) -> bool:
        """Whether an evaluation can report this value."""
        word, _, number = value.rpartition(" ")
        return value in self.values or bool(self.numbered and word == self.numbered and number.isdecimal())

    @property
    def described(self) -> str:
        """The values, for a message."""
        return ", ".join(self.values) or f"{self.numbered} 1, {self.numbered} 2, ..."


DIRECTION = Slice("direction", ("text to image", "image to text"))
CAPTION_LENGTH = Slice("caption length", ("1-8 words", "9-13 words", "14 words or more"))
IMAGE_SHAPE = Slice("image shape", ("landscape", "portrait", "square"))
CAPTION_COUNT = Slice("captions of the image", ("1-4", "5", "6 or more"))
LICENSE = Slice("license", numbered="license")
WORDS = Slice("words", ("all met in training", "some not met"))
SLICES = {each.name: each for each in (DIRECTION, CAPTION_LENGTH, IMAGE_SHAPE, CAPTION_COUNT, LICENSE, WORDS)}


def slice_fault(key: str) -> str:
    """The fault of a slice name, 'slice' or 'slice: value'; "" if there is none."""
    name, colon, value = key.partition(": ")
    if name not in SLICES:
        return f"known slices are {', '.join(SLICES)}"
    if colon and not SLICES[name].has(value):
        return f"values of '{name}' are {SLICES[name].described}"
    return ""
