"""Search engine: a text to hits, through a bundle and an index that belong together."""

from pathlib import Path
from typing import cast

from components.bundle import Bundle
from components.errors import QueryError
from components.records import Hit
from components.search.index import VectorIndex
from components.search.onnx_encoder import OnnxEncoder

MAX_QUERY_CHARACTERS = 1000
MAX_HITS = 1000


class SearchEngine:
    """Answers text queries over one index."""

    def __init__(self, index: VectorIndex, encoder: OnnxEncoder) -> None:
        """Raises IndexMismatchError if the index was made with another bundle."""
        index.require_bundle(encoder.bundle.sha256)
        self.index = index
        self.encoder = encoder

    @classmethod
    def open(cls, index_path: Path, bundle_path: Path | None = None) -> "SearchEngine":
        """Open an index and its bundle (None: the one the index names). Raises StorageError, BundleError,
        IndexMismatchError.
        """
        index = VectorIndex.open(index_path)
        bundle = Bundle.open(bundle_path or Path(index.manifest.bundle_uri))
        return cls(index, OnnxEncoder(bundle, device="cpu"))

    def search(self, text: str, k: int = 10) -> list[Hit]:
        """The k pictures nearest to a text, best first; fewer if the index holds fewer. Raises QueryError."""
        text = _checked_text(text)
        if not 1 <= k <= MAX_HITS:
            raise QueryError(f"k is {k}, expected 1 to {MAX_HITS}")
        near = self.index.search(self.encoder.encode_text([text]), k)
        items = self.index.items_at(near.rows[0])
        return [
            Hit(
                rank=rank,
                score=round(float(score), 6),
                id=str(item["id"]),
                uri=str(item["uri"]),
                captions=tuple(cast("list[str]", item["captions"])),
            )
            for rank, (score, item) in enumerate(zip(near.scores[0], items, strict=True), start=1)
        ]


def _checked_text(text: str) -> str:
    # Halves of characters reach a program from a terminal of another encoding; tokenizers refuse them.
    text = text.encode("utf-8", "replace").decode().strip()
    if not text:
        raise QueryError("the query is empty; say what the picture shows, e.g. 'a dog running on the beach'")
    if len(text) > MAX_QUERY_CHARACTERS:
        raise QueryError(f"the query has {len(text)} characters, at most {MAX_QUERY_CHARACTERS} are read; shorten it")
    return text
