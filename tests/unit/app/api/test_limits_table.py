"""The table of limits in components/README.md shows the values of the program."""

import re

import pytest

from image_finder.components.app.api import archive, request_bodies, request_models, server
from image_finder.components.app.api.settings import Settings
from image_finder.components.search import query
from tests.support.checkout import CHECKOUT

S = Settings()
TABLE = {
    "text of a query": f"{query.MAX_QUERY_CHARACTERS:,} characters",
    "terms of a query": f"{query.MAX_TERMS}",
    "images per page; `offset` + `k`": f"{query.MAX_HITS}; {query.MAX_REACH:,}",
    "queries of `POST /searches`": f"{request_models.MAX_QUERIES}",
    "texts, images of `POST /embed`": f"{request_models.MAX_TEXTS}, {request_models.MAX_IMAGES}",
    "labels; files of an archive": f"{request_models.MAX_LABELS}; {archive.MOST_FILES}",
    "request body": f"{S.max_upload_bytes:,} bytes",
    "its JSON": f"{request_bodies._MAX_QUERY_BYTES:,} bytes",
    "uploads in memory together": f"{S.max_uploads_bytes:,} bytes",
    "uploaded image": f"{S.max_upload_pixels:,} pixels",
    "file that is shown or explained": f"{S.max_original_bytes:,} bytes",
    "time for a request head": f"{server._HEAD_S:g} s, {server._HEAD_BYTES:,} bytes",
    "time for a request body": (
        f"{S.upload_timeout_s:g} s; {S.min_upload_bytes_per_s:,} bytes/s after {S.upload_grace_s:g} s"
    ),
    "time to the answer": f"{S.timeout_s:g} s",
    "queued requests of a kind": f"{S.waiting}",
    "open connections": f"{S.max_connections:,}",
    "wrong tokens of an address": f"{S.token_attempts}, then one per {S.token_attempt_s:g} s",
    "session of a browser": f"{S.session_s:,} s",
}


@pytest.fixture(scope="module")
def documented():
    text = (CHECKOUT / "components" / "README.md").read_text(encoding="utf-8")
    section = text.partition("### Limits and time-outs")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|", section, re.MULTILINE)[2:])


def test_the_table_shows_the_limits_of_the_program(documented):
    assert documented == TABLE


def test_the_description_in_the_openapi_document_is_made_of_the_settings(album_tools, album):
    changed = {"upload_timeout_s": 31, "max_upload_bytes": 20_000_001, "timeout_s": 11, "token_attempts": 12}
    with album_tools.serving(album / "index", **changed) as client:
        description = client.get("/openapi.json").json()["info"]["description"]
    for words in ("within 31 s", "20,000,001 bytes (413)", "within 11 s", "12 wrong tokens"):
        assert words in description
