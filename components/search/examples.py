"""Example queries: texts for which a library has images, to start from."""

from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.query import Query

_CANDIDATES = (
    "a dog running on the beach",
    "a cat on a sofa",
    "children playing",
    "a birthday cake",
    "two cups of coffee",
    "a street at night",
    "mountains with snow",
    "a sunset over the sea",
    "people at a table",
    "a bride and groom",
    "a man riding a bicycle",
    "a boat on a lake",
    "a bowl of fruit",
    "a plate of food",
    "a bird on a branch",
    "a horse in a field",
    "a train at a station",
    "an aeroplane in the sky",
    "flowers in a garden",
    "a baby",
    "a football match",
    "a surfer on a wave",
    "someone skiing",
    "a concert",
    "a kitchen",
    "a laptop on a desk",
    "a red car",
    "a tall building",
    "a crowd of people",
    "a person climbing a rock",
    "a skateboarder in the air",
    "a giraffe",
    "an elephant",
    "a pizza",
    "a bathroom",
    "a waterfall",
)


def example_queries(engine: SearchEngine, n: int = 4) -> list[str]:
    """Up to n texts with different best images, those with good matches first, then by score."""
    results = engine.search_many([Query.of_text(text, k=1) for text in _CANDIDATES])
    found = [(text, result.hits[0]) for text, result in zip(_CANDIDATES, results, strict=True) if result.hits]
    found.sort(key=lambda pair: (pair[1].good is True, pair[1].score), reverse=True)
    chosen: dict[str, str] = {}  # by best image
    for text, hit in found:
        chosen.setdefault(hit.id, text)
    return list(chosen.values())[:n]
