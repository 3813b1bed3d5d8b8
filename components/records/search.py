"""Records of a search: images, hits and facets."""

from datetime import date, datetime

from image_finder.components.records.base import Record


class IndexedImage(Record):
    """One image of an index, as far as its file and its captions tell."""

    id: str  # stable as long as the file keeps its place
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
    good: bool | None  # whether it is a good match, as every hit before it; None where that cannot be said
    duplicates: tuple[str, ...]  # ids of the near-duplicates that this one stands for


class TruncatedText(Record):
    """A text of a query that exceeds the model's limit: the beginning that was used, and the rest, which was not."""

    used: str
    unused: str


class SearchResult(Record):
    """Answer to one query.

    matches_well: whether any hit is good or scores as the best hits of captions whose image was in the gallery; None
    unless the query is of texts.
    """

    hits: tuple[Hit, ...]
    candidates: int  # images that pass the filters
    more: bool  # whether there is a next page
    matches_well: bool | None
    unmet: tuple[str, ...] = ()  # words of the query that the model's training captions lack: their hits are guesses
    truncated: tuple[TruncatedText, ...] = ()  # texts of the query that were used in part


class Facet(Record):
    """A value that images have, and how many have it."""

    value: str
    count: int


class Facets(Record):
    """What the filters can choose among."""

    folders: tuple[Facet, ...]
    cameras: tuple[Facet, ...]
    first_day: date | None
    last_day: date | None
    with_gps: int
    images: int
