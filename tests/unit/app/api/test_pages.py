"""Pages: the search page and its files also below a path prefix, unknown addresses, and the model's card."""

import pytest

HTML = {"Accept": "text/html,application/xhtml+xml"}
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module", params=["", "/images/finder"])
def prefix(request):
    return request.param


@pytest.fixture(scope="module")
def client(album_tools, album, prefix):
    with album_tools.serving(album / "index", root_path=prefix) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/static/sizes.js", "/api/v1/info", "/health/live"])
def test_everything_is_served_with_the_prefix_and_where_a_proxy_removes_it(client, prefix, path):
    assert client.get(path).status_code == 200
    assert client.get(prefix + path).status_code == 200


def test_the_page_contains_relative_addresses_only(client):
    page = client.get("/").text
    assert 'src="static/app.js"' in page
    assert 'href="/' not in page
    assert 'src="/' not in page


def test_the_prefix_alone_leads_to_the_page(client, prefix):
    if prefix:
        answer = client.get(prefix, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (308, f"{prefix}/")


def test_browsers_receive_a_page_for_an_unknown_address(client, prefix):
    for path in ("/nothing", "/nothing/<b>", f"{prefix}/nothing"):
        answer = client.get(path, headers=HTML)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert f'<a href="{prefix}/">start page</a>' in answer.text
        assert "<b>" not in answer.text


def test_programs_receive_a_problem_for_an_unknown_address(client):
    assert "json" in client.get("/nothing").headers["content-type"]
    assert "json" in client.get("/api/v1/nothing", headers=HTML).headers["content-type"]


def test_a_model_without_a_card_is_stated(client):
    answer = client.get("/model-card")
    assert answer.status_code == 200
    assert "The model has no card in this library." in answer.text


def test_the_card_of_an_imported_model_is_shown_without_its_html(album_tools, album, client):
    card = next((album / "bundles").glob("*/manifest.json"), next((album / "bundles").iterdir()) / "x").parent
    path = card / "MODEL_CARD.md"
    path.write_text("# Blue\n\n| a | b |\n| - | - |\n| 1 | <script>x</script> |\n\n[bad](javascript:alert(1))\n")
    try:
        page = client.get("/model-card").text
    finally:
        path.unlink()
    assert "<h1>Blue</h1>" in page
    assert "<td>&lt;script&gt;x&lt;/script&gt;</td>" in page
    assert "<script>x" not in page
    assert 'href="javascript' not in page


def test_the_session_of_a_page_is_limited_to_its_prefix(album_tools, album):
    with album_tools.serving(album / "index", root_path="/finder", token=TOKEN) as guarded:
        answer = guarded.post("/api/v1/session", headers={"Authorization": f"Bearer {TOKEN}"})
        assert "Path=/finder/;" in answer.headers["set-cookie"]
        assert guarded.get("/finder/static/app.js").status_code == 200
        guarded.cookies.clear()
        assert guarded.get("/finder/api/v1/info").status_code == 401
