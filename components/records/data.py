"""Records of a data set: its manifest and its validation."""

import hashlib
from typing import ClassVar, Literal, get_args

from image_finder.components.records.base import PartName, Record


class DatasetManifest(Record):
    """Identity of a data set's content: the data version."""

    former_names: ClassVar = {"pictures_sha256": "images_sha256", "unreadable_pictures": "unreadable_images"}

    name: str
    layout: str
    root: str
    n_images: int
    n_captions: int
    n_images_of_part: dict[str, int]  # extra evaluation sets included
    annotations_sha256: dict[str, str]
    images_sha256: str  # of the sorted (file name, content hash) pairs of all readable images
    mean_caption_characters: float
    unreadable_images: int

    @property
    def extra_sets(self) -> tuple[str, ...]:
        """Names of the extra evaluation sets."""
        return tuple(name for name in self.annotations_sha256 if name not in get_args(PartName))

    @property
    def version(self) -> str:
        """Short data version: 12 hex digits of the hash of annotations and images."""
        parts = [f"{part}:{digest}" for part, digest in sorted(self.annotations_sha256.items())]
        return hashlib.sha256("\n".join([*parts, self.images_sha256]).encode()).hexdigest()[:12]


class ExpectationResult(Record):
    name: str
    column: str
    description: str
    severity: Literal["quarantine", "error", "warning"]
    success: bool
    n_checked: int
    n_failed: int
    observed: str = ""
    examples: tuple[str, ...] = ()


class ValidationReport(Record):
    """Outcome of the data validation. `quarantined` maps a reason to the caption ids it removed."""

    dataset: str
    data_version: str
    n_images: int
    n_captions: int
    n_valid_captions: int
    expectations: tuple[ExpectationResult, ...]
    quarantined: dict[str, tuple[int, ...]]
    max_quarantined_share: float
    success: bool

    @property
    def quarantined_share(self) -> float:
        """Share of the captions that were quarantined, 0 to 1."""
        return (self.n_captions - self.n_valid_captions) / self.n_captions if self.n_captions else 0.0
