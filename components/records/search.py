"""Records of a search: images, hits and facets."""

from datetime import date, datetime

from image_finder.components.records.base import Record


class IndexedImage(Record):
    """One image of an index, with the metadata of its file and its captions."""

    id: str  # stable while the file keeps its path
    uri: str  # absolute path as text
    folder: str  # label: name of the indexed folder, then the folders below it
    name: str
    captions: tuple[str, ...]
    sha256: str
    bytes: int
    width_px: int  # as displayed
    height_px: int
    taken_at: datetime | None  # the camera's local time, without a zone
    modified_at: datetime | None  # of the file, with the UTC offset of this machine's time zone
    camera: str  # "" if unknown
    latitude: float | None  # degrees, WGS84
    longitude: float | None


class Hit(IndexedImage):
    """One search result."""

    rank: int  # counted from 1 over all pages
    score: float
    good: bool | None  # whether it and every hit before it is a good match; None if unknown
    duplicates: tuple[str, ...]  # ids of the near-duplicates folded into this hit


class TruncatedText(Record):
    """A text of a query that exceeds the model's limit: the used beginning, the unused rest."""

    used: str
    unused: str


class SearchResult(Record):
    """Answer to one query.

    matches_well: whether any hit is good or scores like the best hits of captions whose image was in the gallery; None
    unless the query consists of texts.
    """

    hits: tuple[Hit, ...]
    candidates: int  # images that pass the filters
    more: bool  # whether there is a next page
    matches_well: bool | None
    unmet: tuple[str, ...] = ()  # words of the query that are in no training caption
    truncated: tuple[TruncatedText, ...] = ()  # texts of the query that were used in part


class Facet(Record):
    """A value of images, and how many have it."""

    value: str
    count: int


class Facets(Record):
    """Values that the filters offer."""

    folders: tuple[Facet, ...]
    cameras: tuple[Facet, ...]
    first_day: date | None
    last_day: date | None
    with_gps: int
    images: int
