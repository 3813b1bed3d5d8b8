"""The API reference at /docs."""

import re
from html.parser import HTMLParser

import pytest

from image_finder.components.app.api.application import create_app
from image_finder.components.app.api.document import operations_of
from image_finder.components.app.api.error_responses import TITLES
from image_finder.components.app.api.reference import reference_page
from image_finder.components.app.api.settings import Settings


class Elements(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def values(self, name):
        return [attributes[name] for _, attributes in self.found if name in attributes]


@pytest.fixture(scope="module")
def document():
    return create_app(lambda: None, Settings()).openapi()


@pytest.fixture(scope="module")
def page(document):
    return Elements(reference_page(document))


def test_everything_in_the_document_is_on_the_page(document, page):
    anchors = page.values("id")
    assert len(anchors) == len(set(anchors))
    for operation in operations_of(document):
        assert operation.content["operationId"] in anchors
        assert operation.path in page.text
        for parameter in operation.content.get("parameters", []):
            assert parameter["name"] in page.text
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= set(anchors)
    assert set(TITLES) <= set(anchors)  # the addresses of errors


def test_every_link_within_the_page_has_a_target(page):
    inner = {link.removeprefix("#") for link in page.values("href") if link.startswith("#")}
    assert inner <= set(page.values("id"))


def test_the_page_obeys_the_content_security_policy_and_works_below_a_prefix(page):
    assert not [tag for tag, attributes in page.found if tag in {"script", "style"} or "style" in attributes]
    outer = [link for link in (*page.values("href"), *page.values("src")) if not link.startswith("#")]
    assert set(outer) == {"static/icon.svg", "static/reference.css", "openapi.json"}


def test_values_of_the_document_are_escaped(document):
    hostile = {**document, "info": {**document["info"], "description": "<img src=x onerror=alert(1)>"}}
    assert "<img" not in reference_page(hostile)


def test_the_page_needs_no_token_and_is_served_with_the_style_sheet(album_tools, album):
    with album_tools.serving(album / "index", token="a-token-of-some-length") as client:
        answer = client.get("/docs")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert re.search("<h1>API reference</h1>", answer.text)
        assert client.get("/static/reference.css").status_code == 200
        problem = client.get("/api/v1/info").json()
        path, _, anchor = problem["type"].partition("#")
        assert (path, f'id="{anchor}"' in answer.text) == ("/docs", True)
