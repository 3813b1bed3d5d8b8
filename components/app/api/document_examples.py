"""Examples of the OpenAPI document: answers of the starter model for 200 photographs of COCO's validation part."""

from typing import Any

from image_finder.components.app.api.error_responses import TITLES
from image_finder.components.app.api.settings import REFERENCE

Json = dict[str, Any]

IDENTITY = "02d74b6bd8e5ce68"
_OTHER = "cb808fcd74991169"
_TEXT = "a laptop on a desk"
_GENERATION = "00000001-f3e26aba"
_BUNDLE = "9cdf8a6f0a90d0a4"
_UNKNOWN: Json = {"captions": [], "taken_at": None, "camera": "", "latitude": None, "longitude": None}
_IMAGE = {
    **_UNKNOWN,
    "id": IDENTITY,
    "name": "000000255165.jpg",
    "folder": "val2017",
    "width_px": 640,
    "height_px": 480,
    "bytes": 136829,
    "modified_at": "2026-12-01T10:04:41+01:00",
    "thumbnail": f"images/{IDENTITY}/thumbnail?v=f40a9e54810f4bb1",
}
_HIT = {**_IMAGE, "rank": 1, "score": 0.640039, "good": True, "duplicates": []}
_SECOND = {
    **_HIT,
    "id": _OTHER,
    "name": "000000011813.jpg",
    "width_px": 333,
    "height_px": 500,
    "bytes": 74788,
    "modified_at": "2026-12-01T10:04:40+01:00",
    "thumbnail": f"images/{_OTHER}/thumbnail?v=0a4acdd7522ae059",
    "rank": 2,
    "score": 0.616819,
}
_SEARCH = {
    "hits": [_HIT, _SECOND],
    "candidates": 200,
    "more": True,
    "matches_well": True,
    "unmet": [],
    "truncated": [],
    "took_ms": {"wait": 0.523, "encode": 8.485, "rank": 2.943, "total": 12.994},
    "generation": _GENERATION,
    "bundle": _BUNDLE,
}
_FOLDER = {"value": "val2017", "count": 200}
_LABEL = {"label": "a living room", "probability": 0.989587, "score": 0.39432}
_INDEXING = {"done": 1200, "total": 5000, "remaining_s": 95.0}
_MODEL = {
    "sha256": f"{_BUNDLE}bb20a6f716763afcb547b4e1830038536d8ade92ed391f8d",
    "dataset": "flickr8k+coco2017",
    "data_version": "fe72d14768e9",
    "image_trunk": "tf_efficientnet_lite2",
    "text_trunk": "minilm-l6",
    "embedding_dim": 320,
    "starter": True,
}
_LIMITS = {
    "query_characters": 1000,
    "terms": 16,
    "hits": 500,
    "reach": 5000,
    "queries": 32,
    "labels": 100,
    "embedded_texts": 64,
    "embedded_images": 16,
    "upload_bytes": 20_000_000,
    "upload_pixels": 50_000_000,
}
# Status -> code and detail of an error.
_ERRORS = {
    400: ("bad_query", "the query is empty; describe the image, e.g. 'a dog running on the beach'"),
    401: ("unauthorized", "this server requires an access token"),
    403: ("refused", "folders are added with: image-finder index FOLDER"),
    404: ("not_found", f"no image has the id '{'0' * 16}'; it may have been removed from the index, search again"),
    408: ("too_slow", "only 4,096 bytes of the body arrived within 5.3 s; send at least 16,000 bytes/s"),
    409: ("busy", "another folder is being added; wait until it is indexed"),
    410: ("gone", "the image file no longer exists; the next update removes it from the index"),
    413: ("too_large", "the body is larger than 20,000,000 bytes"),
    415: ("not_an_image", "not a readable image"),
    422: ("bad_request", "k: Input should be greater than or equal to 1"),
    429: ("too_many_attempts", "too many wrong tokens from this address; retry in 6 seconds"),
    503: ("busy", "server busy (searches queued: 256); retry shortly"),
}
_INVALID = {"location": "query.k", "message": "Input should be greater than or equal to 1"}


def problem(status: int) -> Json:
    """The error answer with a status."""
    code, detail = _ERRORS[status]
    facts = {"type": f"{REFERENCE}#{code}", "title": TITLES[code], "status": status, "detail": detail, "code": code}
    return {**facts, "request_id": "994cc5379423e0fa", **({"errors": [_INVALID]} if status == 422 else {})}


# Name of a schema -> example
SCHEMAS: dict[str, Json] = {
    "BrowseAnswer": {
        "images": [_IMAGE],
        "candidates": 200,
        "cursor": f"1796119481:{IDENTITY}",
        "generation": _GENERATION,
    },
    "BundleInfo": _MODEL,
    "EmbedAnswer": {"texts": [[-0.0486, 0.0585, -0.0388, 0.0091]], "images": [], "bundle": _BUNDLE},
    "ExamplesAnswer": {"queries": ["a pizza", "a horse in a field", "an elephant", "a plate of food"]},
    "Facet": _FOLDER,
    "Facets": {
        "folders": [_FOLDER],
        "cameras": [],
        "first_day": "2026-12-01",
        "last_day": "2026-12-01",
        "with_gps": 0,
        "images": 200,
    },
    "FieldError": _INVALID,
    "FoldersAnswer": {"allowed": True, "running": True, "failure": "", "suggested": "/home/ada/Photos"},
    "HealthAnswer": {"status": "ready", "generation": _GENERATION, "images": 200, "watching": "events"},
    "HitAnswer": _HIT,
    "ImageAnswer": _IMAGE,
    "IndexingAnswer": _INDEXING,
    "InfoAnswer": {
        "version": "0.1.0",
        "gallery": "photographs",
        "generation": _GENERATION,
        "images": 200,
        "failed": 0,
        "bundle": _MODEL,
        "good_match": 0.474493,
        "up_to_date": True,
        "limits": _LIMITS,
    },
    "LabelScore": _LABEL,
    "LabelsAnswer": {"labels": [_LABEL, {"label": "a beach", "probability": 0.010071, "score": 0.189322}]},
    "Problem": problem(422),
    "ProgressAnswer": {"images": 200, "generation": _GENERATION, "indexing": _INDEXING},
    "QueryOutcome": {"answer": _SEARCH, "error": None},
    "SearchAnswer": _SEARCH,
    "SearchesAnswer": {"results": [{"answer": _SEARCH, "error": None}, {"answer": None, "error": problem(400)}]},
    "TruncatedText": {"used": "a laptop on a desk beside a window", "unused": "through which a street is seen"},
}
# Id of an operation -> JSON of its body; with uploads: the part `query`, which names the part `image`
BODIES: dict[str, Json] = {
    "search_with_uploads": {"q": [_TEXT], "not": ["people"], "orientation": "landscape", "k": 5},
    "several_searches": {"queries": [{"q": [_TEXT], "k": 2}, {"like": [IDENTITY], "k": 2}]},
    "embed": {"texts": [_TEXT]},
    "add_folder": {"folder": "~/Photos"},
    "explanation_with_uploads": {"terms": [{"text": _TEXT, "weight": 2}, {"like": _OTHER}]},
    "labels": {"id": IDENTITY, "labels": ["a living room", "a beach"]},
}
UPLOADS: dict[str, Json] = {
    "search_with_uploads": {"terms": [{"image": "image"}, {"text": "at night", "weight": 0.5}], "k": 5},
    "embed": {"texts": [_TEXT], "images": ["image"]},
    "explanation_with_uploads": {"terms": [{"image": "image"}]},
    "labels": {"image": "image", "labels": ["a living room", "a beach"]},
}
METRICS = "# TYPE image_finder_index_images gauge\nimage_finder_index_images 200.0\n"
# Name of a parameter -> example; an item, if the parameter is a list
PARAMETERS: Json = {
    "q": _TEXT,
    "like": IDENTITY,
    "not": "people",
    "folder": "val2017",
    "camera": "Canon",
    "since": "2024-06-01",
    "until": "2024-08-31",
    "min_px": 400,
    "orientation": "landscape",
    "name": "IMG_2024*",
    "gps": True,
    "k": 5,
    "offset": 0,
    "min_score": 0.3,
    "duplicates": "fold",
    "order": "newest",
    "X-Folder-Key": "the-key-that-the-server-has-printed",
    "cursor": f"1796119481:{IDENTITY}",
    "id": IDENTITY,
    "px": 320,
    "v": "f40a9e54810f4bb1",
    "kind": "query",
    "labels": "a living room",
}
# Id of an operation -> parameters of its example call
CALLS: dict[str, Json] = {
    "search": {"q": [_TEXT], "not": ["people"], "k": 5},
    "browse": {"k": 5, "order": "oldest"},
    "thumbnail": {"px": 320, "v": "f40a9e54810f4bb1"},
    "explanation": {"q": [_TEXT]},
    "archive_of_images": {"id": [IDENTITY, _OTHER]},
    "search_with_uploads": {"q": ["at night"], "k": 5},
    "explanation_with_uploads": {},
    "labels": {"labels": ["a living room", "a beach"]},
}
