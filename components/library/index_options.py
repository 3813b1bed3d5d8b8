"""Index options and summary: what an update of a library is given, and what it reports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.library.engine import Engine, embed_here
from image_finder.components.library.library import Library
from image_finder.components.library.scan import Scan
from image_finder.components.records.base import Record

Warn = Callable[[str], None]


@dataclass(frozen=True)
class IndexOptions:
    config: EmbeddingConfig
    bundle: Path | None = None  # None: the library's own, or a newer default bundle
    default_bundles: Path | None = None  # where the pipeline publishes bundles
    starter: Callable[[], Bundle] | None = None  # makes the bundle for a library without one
    dry_run: bool = False
    prune: bool = False  # also remove entries that are kept because a disk may be unmounted
    galleries: Sequence[GalleryConfig] = ()  # more sources: galleries, also on object stores
    engine: Engine = embed_here
    publish: bool = True  # False: only embed, for an update that publishes later
    self_check: bool = False  # whether a sample of the images must find itself before the index is published
    wait_s: float = 0  # for another process that is writing
    progress: bool = False  # bars on stderr
    on_scan: Callable[[Scan], object] | None = None  # called with the scan before any image is read

    def home_of(self, library: Library) -> Path | None:
        home = self.default_bundles.parent if self.default_bundles is not None else None
        return home if home is not None and library.root.is_relative_to(home) else None


class IndexSummary(Record):
    """What an update did or a dry run would do, which recognises moved files by size and time."""

    library: str
    folders: tuple[str, ...]
    images: int  # in the index
    added: int
    changed: int
    moved: int
    copied: int = 0  # new files whose content another file has
    removed: int
    unchanged: int
    absent: int  # not found, but kept
    kept: dict[str, int]  # source or disk -> those of absent that --prune removes
    vanished: int = 0  # deleted during the update
    embedded: int = 0
    failed: dict[str, str] = Field(default_factory=dict)  # file -> reason, of this run
    still_failing: int  # unchanged unreadable files
    unreadable: dict[str, str]  # folder or file that could not be listed -> reason
    unsupported: dict[str, dict[str, int]]  # kind -> ending -> files of formats that are not supported
    cut: dict[str, str] = Field(
        default_factory=dict
    )  # JPEG files whose end is missing -> how much, of this run; they are indexed
    links_outside: int  # links out of the folders, which are not followed
    bundle: str  # sha256
    published: bool = False
    dry_run: bool
    watching: Literal["", "events", "polling"] = ""  # how `index --watch` learns of changes, "" elsewhere
    seconds: float
