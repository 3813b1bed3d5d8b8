"""The web page in Chromium, against a running `image-finder serve` over images whose answers are known."""

import base64
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.support.servers import PATIENCE_MS

pytestmark = pytest.mark.slow
SEARCH = "**/api/v1/search"
TALL = {"width": 1200, "height": 6000}  # all tiles exist
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def open_page(chromium, address) -> Iterator[Callable[..., Any]]:
    """open_page(path, base, **context options): a page; script and CSP errors fail the test."""
    contexts, faults = [], []

    def note(message) -> None:
        if "Content Security Policy" in message.text:
            faults.append(message.text)

    def opened(path="/", *, base=address, **options):
        context = chromium.new_context(locale="en-GB", **{"viewport": {"width": 1200, "height": 800}, **options})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", note)
        page.goto(base + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def scroll_to_end(page):
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")


def names(page) -> list[str]:
    """Of the tiles that exist: those within about one screen of the visible part."""
    return page.locator("#grid .tile").evaluate_all("tiles => tiles.map(tile => tile.dataset.name)")


def search(page, text, first):
    page.locator("#text").fill(text)
    expect_first(page, first)


def expect_first(page, first):
    expect(page.locator("#grid .tile").first).to_have_attribute("data-name", first)
    expect(page.locator("#grid")).to_have_attribute("aria-busy", "false")


def transfer_of(page, path, *, name=None, kind="image/jpeg"):
    """A DataTransfer with a file, as of a drop or paste."""
    return page.evaluate_handle(
        """([data, name, type]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type }));
            return transfer;
        }""",
        [base64.b64encode(path.read_bytes()).decode(), name or path.name, kind],
    )


def image_path(painted_library, name) -> Path:
    return painted_library.parent / "images" / name


# Search


def test_a_text_finds_its_image_first(open_page):
    page = open_page()
    search(page, "red", "red.jpg")
    expect(page.get_by_role("status").first).to_have_text(re.compile("Top 40 of 52 images"))
    expect(page.get_by_role("link", name=re.compile("^1. red.jpg"))).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()


def test_fast_typing_causes_one_search(open_page):
    page = open_page()
    page.clock.install(time=0)
    page.clock.pause_at(1000)  # s; otherwise real time would be added to the time that the test lets pass
    searches = []
    page.on("request", lambda request: searches.append(request.post_data) if "/search" in request.url else None)
    page.locator("#text").press_sequentially("yellow")
    page.clock.run_for(140)
    assert searches == []
    page.clock.run_for(20)
    expect_first(page, "yellow.jpg")
    assert len(searches) == 1


def test_a_late_answer_is_never_shown(open_page):
    page = open_page()
    held = []

    def hold_blue(route):
        if '"blue"' in route.request.post_data:
            held.append(route)
        else:
            route.continue_()

    page.route(SEARCH, hold_blue)
    with page.expect_request(SEARCH):
        page.locator("#text").fill("blue")
    with page.expect_event("requestfailed", lambda request: '"blue"' in request.post_data):  # it is cancelled
        page.locator("#text").fill("red")
    expect_first(page, "red.jpg")
    held[0].fulfill(json={"hits": [], "candidates": 0, "more": False})
    expect(page.locator("#empty")).to_be_hidden()
    expect_first(page, "red.jpg")


def test_a_word_with_a_minus_and_the_not_field_lower_the_rank(open_page):
    page = open_page()
    search(page, "yellow", "yellow.jpg")
    search(page, "yellow -red", "green.jpg")
    assert "q=yellow&not=red" in page.url
    search(page, "yellow", "yellow.jpg")
    page.locator("#not").fill("red")
    expect_first(page, "green.jpg")


def test_scrolling_loads_more_results_without_repeating_images(open_page):
    page = open_page(viewport=TALL)
    search(page, "white", re.compile("grey"))
    expect(page.locator("#grid .cell")).to_have_count(51)  # 52 minus one folded copy
    expect(page.locator("#more")).to_be_hidden()
    assert len(set(names(page))) == 51


def test_near_duplicates_are_folded_and_shown_on_demand(open_page):
    page = open_page()
    search(page, "red", "red.jpg")
    assert "red copy.jpg" not in names(page)
    expect(page.locator(".copies-badge")).to_have_text("+1")
    page.get_by_role("button", name="Show duplicates").click()
    expect(page.locator(".copies-badge")).to_have_count(0)
    assert set(names(page)[:2]) == {"red.jpg", "red copy.jpg"}
    assert "duplicates=show" in page.url


def test_a_search_without_good_match_shows_a_notice(open_page):
    page = open_page("/?q=red&folder=images/many")
    expect(page.locator("#notice")).to_have_text("No good match; these are the closest images.")


def test_only_tiles_near_the_visible_part_exist(open_page):
    page = open_page(viewport={"width": 600, "height": 300})
    expect_first(page, re.compile("grey"))
    page.locator(".tile").first.focus()
    page.keyboard.press("End")
    expect(page.locator("#more")).to_be_hidden()  # the second page has been loaded
    page.keyboard.press("End")
    last = page.locator(".cell", has=page.locator(".tile:focus"))
    expect(last).to_have_attribute("aria-posinset", "52")
    assert page.locator("#grid .cell").count() < 40
    expect(page.locator("#grid .cell").first).not_to_have_attribute("aria-posinset", "1")
    page.keyboard.press("ArrowUp")
    expect(page.locator(".tile:focus")).to_be_in_viewport()
    page.keyboard.press("Home")
    expect(page.locator(".tile:focus")).to_have_attribute("data-name", re.compile("grey"))
    expect(page.locator(".tile:focus")).to_be_in_viewport()


def test_thousands_of_images_are_browsed_with_few_elements_and_pages_in_memory(open_page):
    n_pages, requests = 70, []

    def browse(route):
        cursor = re.search(r"cursor=(\d+)", route.request.url)
        number = int(cursor[1]) if cursor else 0
        requests.append(number)
        answer = route.fetch(url=f"{route.request.url.partition('?')[0]}?k=40").json()
        images = [
            {**answer["images"][0], "id": f"{40 * number + each:016x}", "name": f"{40 * number + each}.jpg"}
            for each in range(40)
        ]
        following = str(number + 1) if number + 1 < n_pages else None
        route.fulfill(json={**answer, "images": images, "candidates": 40 * n_pages, "cursor": following})

    page = open_page("/static/icon.svg")
    page.route("**/api/v1/images?*", browse)
    page.route("**/thumbnail*", lambda route: route.fulfill(status=404, json={}))
    page.goto(re.match("http://[^/]+", page.url)[0])
    expect_first(page, "0.jpg")
    for number in range(1, n_pages):
        scroll_to_end(page)
        expect(page.locator(f"[aria-posinset='{40 * number + 1}']")).to_be_attached()
    assert requests == list(range(n_pages))
    assert page.locator("#grid .cell").count() < 150
    page.evaluate("scrollTo(0, 0)")
    tile = page.locator("[aria-posinset='13'] .tile")
    expect(tile).to_have_attribute("data-name", "12.jpg")
    assert 0 in requests[n_pages:]  # its page was dropped
    tile.click()
    expect(page.locator("#viewer-name")).to_have_text("12.jpg")
    expect(page.locator("#viewer-position")).to_have_text("13 of 2,800")


def test_results_are_sorted_by_date(open_page):
    page = open_page()
    search(page, "red", "red.jpg")
    page.get_by_label("Sort").select_option("Oldest first")
    expect(page).to_have_url(re.compile(r"order=oldest"))
    expect_first(page, "red.jpg")
    page.get_by_label("Sort").select_option("Newest first")
    expect_first(page, re.compile("grey|blue|green"))
    page.get_by_role("link", name="Image Finder").click()
    page.get_by_label("Sort").select_option("Oldest first")
    expect_first(page, "red.jpg")


def test_recent_searches_are_offered_on_the_start_page(open_page):
    page = open_page()
    expect(page.locator("#recent")).to_be_hidden()
    search(page, "blue", "blue.jpg")
    search(page, "red", "red.jpg")
    page.keyboard.press("Enter")
    page.locator(".tile").first.click()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="Image Finder").click()
    expect(page.locator("#recent-list button")).to_have_text(["red"])
    page.get_by_role("button", name="red", exact=True).click()
    expect_first(page, "red.jpg")
    page.go_back()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator("#recent")).to_be_hidden()
    page.reload()
    expect(page.locator("#examples button").first).to_be_visible()
    expect(page.locator("#recent")).to_be_hidden()


def test_the_line_about_the_starter_model_is_shown_until_it_is_closed(open_page):
    def starter(route):
        answer = route.fetch().json()
        route.fulfill(json={**answer, "bundle": {**answer["bundle"], "starter": True}})

    page = open_page()
    page.route("**/api/v1/info", starter)
    page.reload()
    expect(page.get_by_role("link", name="What it finds and what not")).to_have_attribute("href", "model-card")
    page.get_by_role("button", name="Do not show this again").click()
    page.reload()
    expect(page.locator("#welcome-count")).to_contain_text("52 images")
    expect(page.locator("#starter")).to_be_hidden()


def test_an_unknown_address_leads_back_to_the_start_page(open_page):
    page = open_page("/no/such/page")
    expect(page.get_by_role("heading")).to_have_text("There is no such page")
    page.get_by_role("link", name="start page").click()
    expect(page.locator("#welcome-count")).to_have_text("Search 52 images by what they show.")


def test_a_divider_separates_good_from_less_certain_matches(open_page):
    def with_two_good(route):
        answer = route.fetch().json()
        hits = [{**hit, "good": hit["rank"] <= 42} for hit in answer["hits"]]  # on the second page
        route.fulfill(json={**answer, "hits": hits})

    page = open_page(viewport=TALL)
    page.route("**/api/v1/search*", with_two_good)
    search(page, "red", "red.jpg")
    expect(page.get_by_role("link", name=re.compile("^1. red.jpg, good match"))).to_be_visible()
    expect(page.locator("#grid .divider")).to_have_text(["Good matches", "Less certain"])
    order = page.locator("#grid > li").evaluate_all("items => items.map(item => item.className)")
    assert (order[0], order[43]) == ("divider", "divider")


def test_the_ignored_part_of_a_long_query_is_reported(open_page):
    page = open_page("/?q=red green blue white red green blue white yellow")
    expected = (
        "The query is too long for the model. Used: “red green blue white red green blue white”; ignored: “yellow”."
    )
    expect(page.locator("#notice")).to_contain_text(expected)


def test_words_unknown_to_the_model_are_named(open_page):
    def without_kangaroo(route):
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "unmet": ["kangaroo", "<b>"]})

    page = open_page()
    page.route("**/api/v1/search*", without_kangaroo)
    search(page, "red", "red.jpg")
    expected = "The model has never seen the words “kangaroo”, “<b>”; these results are guesses."
    expect(page.locator("#notice")).to_have_text(expected)


def test_an_empty_library_is_reported_with_any_filters(open_page):
    def emptied(route):
        answer = route.fetch()
        empty = {"hits": [], "candidates": 0, "more": False, "notice": "The library is empty. Run: ..."}
        route.fulfill(response=answer, json={**answer.json(), **empty})

    page = open_page("/?min_px=9")
    page.route("**/api/v1/search*", emptied)
    page.locator("#text").fill("red")
    expect(page.locator("#empty h2")).to_have_text("The library is empty")
    expect(page.locator("#empty p")).to_have_text("Run: image-finder index FOLDER")
    expect(page.locator("#empty button")).to_have_count(0)


def test_a_library_is_indexed_while_the_page_is_open(open_page, serve, new_library, image_finder):
    images, library = new_library.parent / "images", new_library.parent / "other"
    library.mkdir()
    with serve(library=library, health="live") as address:
        page = open_page(base=address)
        expect(page.locator("#welcome-count")).to_have_text("No images indexed yet. Run: image-finder index FOLDER")
        expect(page.locator("#indexing")).to_be_hidden()
        (library / "progress.json").write_text('{"done": 2140, "total": 6000, "seconds": 100}')
        expect(page.locator("#indexing-words")).to_have_text("Indexing 2,140 of 6,000 images, about 3 min")
        (library / "progress.json").unlink()
        image_finder("index", images, "--library", library, "--bundle", new_library.parent / "bundle")
        expect(page.locator("#welcome-count")).to_have_text("Search 52 images by what they show.")
        expect(page.locator("#indexing")).to_be_hidden()
        search(page, "red", "red.jpg")


def test_the_start_page_shows_the_newest_images_and_filters_narrow_it(open_page):
    page = open_page(viewport=TALL)
    expect(page.locator("#summary")).to_have_text("52 images")
    expect(page.get_by_label("Sort")).to_have_value("newest")
    expect(page.locator("#examples button").first).to_be_visible()
    expect(page.locator("#grid .tile")).to_have_count(52)
    assert len(set(names(page))) == 52
    assert names(page)[-2:] == ["yellow.jpg", "red.jpg"]
    page.get_by_role("button", name="Filters").click()
    page.get_by_role("checkbox", name="Canon EOS 80D").check()
    expect(page.locator("#summary")).to_have_text("1 image matching the filters")
    expect(page.locator("#welcome")).to_be_hidden()
    page.locator(".tile").first.click()
    expect(page.locator("#viewer-name")).to_have_text("red.jpg")


def test_names_of_files_are_shown_as_text(open_page):
    page = open_page("/?q=red blue")
    expect_first(page, "<img src=x onerror=alert(1)>.png")
    page.locator(".tile").first.click()
    expect(page.locator("#viewer-name")).to_have_text("<img src=x onerror=alert(1)>.png")


# Filters


def test_filters_narrow_the_search_and_show_what_is_active(open_page):
    page = open_page()
    search(page, "red", "red.jpg")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Filters").click()
    page.get_by_text("Tall", exact=True).click()
    expect_first(page, "yellow.jpg")
    assert names(page) == ["yellow.jpg"]
    expect(page.get_by_role("status").first).to_have_text("Top 1 of 1 image matching the filters")
    expect(page.get_by_role("button", name="Filters, 1 active")).to_be_visible()
    page.get_by_role("button", name="Remove filter: tall").click()
    expect_first(page, "red.jpg")


@pytest.mark.parametrize(
    ("control", "value", "found"),
    [
        ("camera", "Canon EOS 80D", ["red.jpg"]),
        ("place", "Known", ["red.jpg"]),
        ("date", "2023-08-02", ["yellow.jpg"]),
        ("size", "400", ["blue.jpg"]),
        ("name", "*LOW.j", ["yellow.jpg"]),
    ],
)
def test_each_filter_finds_its_images(open_page, control, value, found):
    page = open_page("/?q=red")
    expect_first(page, "red.jpg")
    page.get_by_role("button", name="Filters").click()
    match control:
        case "camera":
            page.get_by_role("checkbox", name=value).check()
        case "place":
            page.get_by_text(value, exact=True).click()
        case "date":
            page.get_by_label("From").fill(value)
            page.get_by_label("To", exact=True).fill(value)
        case "name":
            page.get_by_label("File name").fill(value)
            page.keyboard.press("Enter")
        case "size":
            page.get_by_label("Shorter side, px").fill(value)
            page.keyboard.press("Enter")
    expect(page.locator("#grid .tile")).to_have_count(len(found))
    assert names(page) == found


def test_folders_are_a_tree_and_include_their_subfolders(open_page):
    page = open_page("/?q=blue")
    expect_first(page, "blue.jpg")
    page.get_by_role("button", name="Filters").click()
    expect(page.locator("#folders .number").first).to_have_text("52")
    page.get_by_role("button", name="Subfolders of images").click()
    garden = page.locator("#folders li", has=page.locator("> .tree-row .choice-name[title='images/garden']")).last
    expect(garden.locator(".number").first).to_have_text("3")
    garden.get_by_role("checkbox").first.check()
    expect(page.get_by_role("status").first).to_have_text(re.compile("Top 3 of 3 images"))
    assert set(names(page)) == {"red.jpg", "yellow.jpg", "green.jpg"}
    page.get_by_role("button", name="Clear all").click()
    expect_first(page, "blue.jpg")


def test_filters_without_results_can_be_cleared(open_page):
    page = open_page("/?q=blue&camera=Leica")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect_first(page, "blue.jpg")


# Search by image


def test_a_dropped_image_finds_itself_and_text_refines_it(open_page, painted_library):
    page = open_page()
    transfer = transfer_of(page, image_path(painted_library, "town/blue.jpg"))
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop an image to search by it")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop an image to search by it")).to_be_hidden()
    expect_first(page, "blue.jpg")
    expect(page.get_by_text("Not part of the link")).to_be_visible()
    page.locator("#text").fill("green")
    expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", "image 50 %, text 50 %")
    page.get_by_role("slider").fill("95")
    expect_first(page, "blue.jpg")
    page.get_by_role("slider").fill("5")
    expect_first(page, "green.jpg")
    page.get_by_role("button", name="Search without this image").click()
    expect(page.locator("#image-term")).to_be_hidden()


def test_a_pasted_image_starts_a_search(open_page, painted_library):
    page = open_page()
    transfer = transfer_of(page, image_path(painted_library, "garden/yellow.jpg"), name="image.png")
    page.evaluate(
        "(data) => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))",
        transfer,
    )
    expect_first(page, "yellow.jpg")


def test_a_chosen_image_starts_a_search_and_back_restores_the_text(open_page, painted_library):
    page = open_page("/?q=red")
    expect_first(page, "red.jpg")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Search by image").click()
    chooser.value.set_files(image_path(painted_library, "town/blue.jpg"))
    page.locator("#text").fill("")
    expect_first(page, "blue.jpg")
    page.go_back()
    expect(page.locator("#text")).to_have_value("red")
    page.go_back()
    expect(page.locator("#image-term")).to_be_hidden()
    expect_first(page, "red.jpg")


def test_a_dropped_file_that_is_not_an_image_is_refused(open_page, painted_library):
    page = open_page()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer_of(page, painted_library / "catalog.sqlite")})
    expect(page.get_by_role("alert")).to_contain_text("image")
    notes = transfer_of(page, painted_library / "catalog.sqlite", name="notes.txt", kind="text/plain")
    page.dispatch_event("body", "drop", {"dataTransfer": notes})
    expect(page.locator("#notice")).to_have_text("“notes.txt” is not an image.")


# Keyboard and viewer


def test_the_page_works_with_the_keyboard(open_page):
    page = open_page()
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("red")
    expect_first(page, "red.jpg")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".tile").nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tile").nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    below, above = page.evaluate(
        "[document.activeElement, document.querySelector('.tile')].map("
        "(each) => each.getBoundingClientRect().top + scrollY)"
    )
    assert below > above
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer-name")).to_have_text("red.jpg")
    page.keyboard.press("ArrowRight")
    second = names(page)[1]
    expect(page.locator("#viewer-name")).to_have_text(second)
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator(".tile").nth(1)).to_be_focused()
    page.keyboard.press("m")
    expect_first(page, second)
    assert re.search(r"like=[0-9a-f]{16}", page.url)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    expect(page.locator("#filters")).to_be_visible()


def test_the_viewer_shows_the_metadata(open_page):
    page = open_page("/?q=red")
    page.locator(".tile").first.click()
    viewer = page.get_by_role("dialog", name="red.jpg")
    for words in [
        "17 May 2020",
        "Canon EOS 80D",
        "480 \N{MULTIPLICATION SIGN} 320 px",
        "46.50000° N, 7.90000° E",
        "images/garden",
        "cosine",
    ]:
        expect(viewer.get_by_text(words)).to_be_visible()
    shown = page.locator("#viewer-image")
    expect(shown).to_have_attribute("data-shows", re.compile("/view$"))
    viewer.get_by_role("button", name="Open near-duplicate 1").click()
    expect(page.locator("#viewer-name")).to_have_text("red copy.jpg")


COLOURED = """() => {
    const image = document.querySelector("#viewer-image");
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const spread = (x) => {
        const [r, g, b] = context.getImageData(x * (canvas.width - 1), canvas.height / 2, 1, 1).data;
        return Math.max(r, g, b) - Math.min(r, g, b);
    };
    return [spread(0.05) > 20, spread(0.95) > 20];
}"""
EXPLANATION = "**/api/v1/images/*/explanation"


@pytest.fixture
def two_edges(painted_library):
    """For one test, red.jpg is grey with a red left and a blue right edge."""
    path = image_path(painted_library, "garden/red.jpg")
    painted, status = path.read_bytes(), path.stat()
    image = Image.new("RGB", (480, 320), "grey")
    image.paste("red", (0, 0, 120, 320))
    image.paste("blue", (360, 0, 480, 320))
    image.save(path, quality=95)
    yield
    path.write_bytes(painted)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("two_edges")
def test_an_explanation_colours_regions_that_raise_the_score(open_page):
    page = open_page("/?q=red")
    page.locator(".tile").first.click()
    shown, legend = page.locator("#viewer-image"), page.locator("#legend")
    expect(shown).to_have_attribute("data-shows", re.compile("/view$"))
    expect(legend).to_be_hidden()
    page.keyboard.press("e")
    expect(page.locator("#explain-note")).to_have_text("Coloured regions raise the score for “red”.")
    expect(legend).to_be_visible()
    expect(shown).to_have_attribute("data-shows", re.compile("^blob:"))
    assert page.evaluate(COLOURED) == [True, False]
    page.keyboard.press("e")
    expect(shown).to_have_attribute("data-shows", re.compile("/view$"))
    expect(legend).to_be_hidden()
    assert page.evaluate(COLOURED) == [True, True]
    page = open_page("/?q=blue&folder=images/garden")
    page.get_by_role("link", name=re.compile("red.jpg")).click()
    page.get_by_role("button", name="Explain match", pressed=False).click()
    expect(page.locator("#explain-note")).to_have_text("Coloured regions raise the score for “blue”.")
    expect(page.locator("#viewer-image")).to_have_attribute("data-shows", re.compile("^blob:"))
    assert page.evaluate(COLOURED) == [False, True]


@pytest.mark.usefixtures("two_edges")
def test_a_search_by_image_is_explained(open_page, painted_library):
    page = open_page("/?folder=images/garden")
    page.locator("#file").set_input_files(image_path(painted_library, "town/blue.jpg"))
    page.get_by_role("link", name=re.compile("red.jpg")).click()
    page.keyboard.press("e")
    expect(page.locator("#explain-note")).to_have_text(
        "Coloured regions raise the score for the image you searched by."
    )
    expect(page.locator("#viewer-image")).to_have_attribute("data-shows", re.compile("^blob:"))
    assert page.evaluate(COLOURED) == [False, True]


def test_the_viewer_shows_its_position_steps_by_swipes_and_closes_outside_the_image(open_page):
    page = open_page("/?q=red&folder=images/garden", has_touch=True)
    page.locator(".tile").first.click()
    expect(page.locator("#viewer-position")).to_have_text("1 of 3")
    swipe(page, [(500, 300)], [(300, 310)])
    expect(page.locator("#viewer-position")).to_have_text("2 of 3")
    swipe(page, [(300, 300)], [(330, 300)])
    swipe(page, [(300, 300)], [(200, 600)])
    expect(page.locator("#viewer-position")).to_have_text("2 of 3")
    swipe(page, [(300, 300)], [(500, 300)])
    expect(page.locator("#viewer-position")).to_have_text("1 of 3")
    page.locator(".stage").click(position={"x": 4, "y": 4})
    expect(page.locator("#viewer")).to_be_hidden()


def swipe(page, start, end):
    """Touches that move together, each from its start to its end."""
    devices = page.context.new_cdp_session(page)

    def touch(kind, points):
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        devices.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", start)
    for step in (0.5, 1):
        between = [(x + step * (u - x), y + step * (v - y)) for (x, y), (u, v) in zip(start, end, strict=True)]
        touch("touchMove", between)
    touch("touchEnd", [])


SCALE = "new DOMMatrix(getComputedStyle(document.querySelector('#viewer-image')).transform).a"
LEFT = "document.querySelector('#viewer-image').getBoundingClientRect().left"


def test_the_open_image_is_zoomed_and_moved(open_page):
    page = open_page("/?q=red&folder=images/garden", has_touch=True)
    page.locator(".tile").first.click()
    expect(page.locator("#viewer-image")).to_have_attribute("data-shows", re.compile("/view$"))
    page.mouse.move(400, 400)
    page.mouse.wheel(0, -600)
    expect(page.locator(".stage")).to_have_class("stage zoomed")
    assert page.evaluate(SCALE) > 2
    before = page.evaluate(LEFT)
    page.mouse.down()
    page.mouse.move(420, 400)
    page.mouse.up()
    assert page.evaluate(LEFT) == pytest.approx(before + 20, abs=1)
    expect(page.locator("#viewer")).to_be_visible()  # the end of a drag is not a click
    swipe(page, [(500, 300)], [(300, 300)])  # moves the image instead
    expect(page.locator("#viewer-position")).to_have_text("1 of 3")
    page.keyboard.press("0")
    assert page.evaluate(SCALE) == 1
    page.mouse.dblclick(400, 400)
    assert page.evaluate(SCALE) == pytest.approx(3)
    page.mouse.dblclick(400, 400)
    assert page.evaluate(SCALE) == 1
    swipe(page, [(350, 400), (450, 400)], [(300, 400), (500, 400)])
    assert page.evaluate(SCALE) == pytest.approx(2, rel=0.1)
    page.keyboard.press("-")
    page.keyboard.press("+")
    assert page.evaluate(SCALE) == pytest.approx(2, rel=0.1)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-position")).to_have_text("2 of 3")
    assert page.evaluate(SCALE) == 1


def test_a_slideshow_shows_all_images_and_ends(open_page):
    page = open_page("/?q=red&folder=images/garden")
    expect_first(page, "red.jpg")
    page.locator(".tile").first.click()
    page.clock.install()
    page.get_by_role("button", name="Slideshow", exact=True).click()
    expect(page.locator(".details")).to_be_hidden()
    page.clock.run_for(4100)
    expect(page.get_by_role("button", name="Stop slideshow")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer-position")).to_have_text("2 of 3")
    page.keyboard.press("s")
    page.clock.run_for(4100)
    page.clock.run_for(4100)
    expect(page.locator("#viewer-position")).to_have_text("3 of 3")
    expect(page.locator(".details")).to_be_visible()


def test_an_image_is_selected_in_the_viewer(open_page):
    page = open_page("/?q=red")
    page.locator(".tile").first.click()
    page.get_by_role("button", name="Select", exact=True, pressed=False).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(page.get_by_role("button", name="Select", exact=True, pressed=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("2 images selected")).to_be_visible()
    expect(page.locator(".pick[aria-checked=true]")).to_have_count(2)


def test_an_explanation_without_contributing_regions_is_stated(open_page):
    page = open_page("/?q=red")
    page.locator(".tile").first.click()
    page.keyboard.press("e")
    expect(page.locator("#explain-note")).to_have_text("No region raises the score for “red”, so none is coloured.")
    expect(page.locator("#legend")).to_be_hidden()


def test_a_running_explanation_is_shown_and_can_be_cancelled(open_page):
    page = open_page("/?q=red")
    held = []
    page.route(EXPLANATION, lambda route: held.append(route))  # noqa: PLW0108 - it must be a function
    page.locator(".tile").first.click()
    expect(page.locator("#viewer-image")).to_have_attribute("data-shows", re.compile("/view$"))
    page.keyboard.press("e")
    expect(page.locator("#stage-note")).to_have_text("Finding regions that raise the score …")
    expect(page.locator("#explain")).to_have_attribute("aria-busy", "true")
    with page.expect_event("requestfailed", lambda request: "/explanation" in request.url):
        page.keyboard.press("e")
    expect(page.locator("#explain")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#explain")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#stage-note")).to_be_empty()


def test_a_failed_explanation_keeps_the_image_and_shows_the_reason(open_page):
    page = open_page("/?q=red")
    answer = {"code": "gone", "detail": "the file is missing", "request_id": "1"}
    page.route(EXPLANATION, lambda route: route.fulfill(status=410, json=answer))
    page.locator(".tile").first.click()
    page.keyboard.press("e")
    expect(page.locator("#stage-note")).to_have_text("Could not explain: The file is missing.")
    expect(page.locator("#explain")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#viewer-image")).to_have_attribute("data-shows", re.compile("/view$"))


def test_without_a_search_there_is_nothing_to_explain(open_page):
    page = open_page("/?q=red")
    page.locator(".tile").first.click()
    expect(page.get_by_role("button", name="Explain match")).to_be_visible()
    identity = re.search(r"view=([0-9a-f]{16})", page.url)[1]
    page = open_page(f"/?view={identity}")
    expect(page.locator("#viewer-name")).to_have_text("red.jpg")
    expect(page.get_by_role("button", name="Explain match")).to_be_hidden()


def test_captions_are_shown_as_text_and_the_first_is_the_alternative_text(open_page):
    page = open_page()
    captions = ["A plain <b>red</b> image", "Nothing but red"]

    def with_captions(route):
        answer = route.fetch().json()
        answer["hits"][0]["captions"] = captions
        route.fulfill(json=answer)

    page.route(SEARCH, with_captions)
    search(page, "red", "red.jpg")
    page.locator(".tile").first.click()
    expect(page.locator("#viewer-captions li")).to_have_text(captions)
    expect(page.locator("#viewer-image")).to_have_attribute("alt", captions[0])
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-name")).not_to_have_text("red.jpg")
    expect(page.locator("#viewer-captions li")).to_have_count(0)


def test_the_original_is_downloaded_unchanged(open_page, painted_library):
    page = open_page("/?q=red")
    page.locator(".tile").first.click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "red.jpg"
    assert download.value.path().read_bytes() == image_path(painted_library, "garden/red.jpg").read_bytes()


def test_selected_images_are_downloaded_together(open_page, painted_library, tmp_path):
    page = open_page("/?q=red")
    expect_first(page, "red.jpg")
    page.get_by_role("checkbox", name="Select red.jpg").check()
    expect(page.get_by_text("1 image selected")).to_be_visible()
    search(page, "yellow", "yellow.jpg")
    page.get_by_role("checkbox", name="Select yellow.jpg").check()
    page.locator(".tile").nth(2).focus()
    page.keyboard.press("x")
    expect(page.get_by_text("3 images selected")).to_be_visible()
    third = names(page)[2]
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").click()
    assert started.value.suggested_filename == "images.zip"
    started.value.save_as(tmp_path / "images.zip")
    with zipfile.ZipFile(tmp_path / "images.zip") as archive:
        assert archive.namelist() == ["red.jpg", "yellow.jpg", third]
        assert archive.read("red.jpg") == image_path(painted_library, "garden/red.jpg").read_bytes()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator("#selection")).to_be_hidden()
    expect(page.locator(".pick[aria-checked=true]")).to_have_count(0)


def test_links_of_selected_images_are_copied(open_page):
    page = open_page("/?q=red")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("checkbox", name="Select red.jpg").check()
    page.get_by_role("button", name="Copy links").click()
    expect(page.get_by_text("1 link copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto(link)
    expect(page.locator("#viewer-name")).to_have_text("red.jpg")


@pytest.mark.usefixtures("two_edges")
def test_on_a_phone_an_image_is_found_refined_explained_and_three_are_downloaded(open_page):
    page = open_page(viewport=PHONE, has_touch=True)
    search(page, "yellow", "yellow.jpg")
    expect(page.locator("#not")).to_be_hidden()
    page.get_by_role("button", name="Filters").tap()
    page.locator("#not").fill("red")
    page.get_by_role("button", name="Show results").tap()
    expect_first(page, "green.jpg")
    page.locator("#not").fill("")  # remains visible while it is in use
    page.evaluate("scrollTo(0, 2000)")
    expect(page.locator("#text")).to_be_in_viewport()
    search(page, "red", "red.jpg")
    page.locator(".tile").first.tap()
    page.get_by_role("button", name="Explain match", pressed=False).tap()
    expect(page.locator("#explain-note")).to_have_text("Coloured regions raise the score for “red”.")
    page.get_by_role("button", name="Close").tap()
    for number in range(3):
        page.locator(".pick").nth(number).tap()
    expect(page.get_by_text("3 images selected")).to_be_visible()
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").tap()
    assert started.value.suggested_filename == "images.zip"


def test_labels_are_compared(open_page):
    page = open_page("/?q=yellow")
    page.locator(".tile").first.click()
    page.get_by_label("Compare labels").fill("blue")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Enter at least two labels")).to_be_visible()
    page.get_by_label("Compare labels").fill("blue, yellow, blue")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".bar-name")).to_have_text(["yellow", "blue"])
    assert int(page.locator(".label-list .number").first.inner_text().removesuffix(" %")) > 90


# Links and history


def test_a_link_reproduces_the_search(open_page):
    page = open_page(viewport=TALL)
    search(page, "yellow -red", "green.jpg")
    page.get_by_role("button", name="Filters").click()
    page.get_by_text("Wide", exact=True).click()
    expect(page.get_by_role("button", name="Filters, 1 active")).to_be_visible()
    expect(page.locator("#grid")).to_have_attribute("aria-busy", "false")
    other = open_page(page.url.removeprefix(re.match("http://[^/]+", page.url)[0]), viewport=TALL)
    expect_first(other, "green.jpg")
    assert names(other)[:40] == names(page)[:40]  # the first page of results
    expect(other.locator("#text")).to_have_value("yellow")
    expect(other.locator("#not")).to_have_value("red")


def test_a_link_to_an_image_opens_it(open_page):
    page = open_page("/?q=red")
    page.locator(".tile").first.click()
    expect(page.locator("#viewer-name")).to_have_text("red.jpg")
    other = open_page(page.url.removeprefix(re.match("http://[^/]+", page.url)[0]))
    expect(other.locator("#viewer-name")).to_have_text("red.jpg")
    other.keyboard.press("Escape")
    expect(other).to_have_url(re.compile(r"/\?q=red$"))


def test_back_restores_the_previous_search_and_closes_the_viewer(open_page):
    page = open_page()
    search(page, "red", "red.jpg")
    page.keyboard.press("Enter")
    page.locator("#text").press_sequentially(" blue")
    expect_first(page, "<img src=x onerror=alert(1)>.png")
    page.locator(".tile").first.click()
    expect(page.locator("#viewer")).to_be_visible()
    page.go_back()
    expect(page.locator("#viewer")).to_be_hidden()
    page.go_back()
    expect_first(page, "red.jpg")
    page.go_back()
    expect(page.get_by_text("What are you looking for?")).to_be_visible()
    page.go_forward()
    expect_first(page, "red.jpg")


def test_back_restores_pages_and_position_without_a_request(open_page):
    page = open_page("/?q=white")
    expect_first(page, re.compile("grey"))
    page.locator(".tile").first.focus()
    page.keyboard.press("End")
    expect(page.locator("#more")).to_be_hidden()
    page.keyboard.press("End")
    tile = page.locator("[aria-posinset='51'] .tile")
    expect(tile).to_be_in_viewport()
    top = page.evaluate("scrollY")
    assert top > 200
    tile.click()
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#term-title")).to_have_text("More like this image")
    expect(tile).to_have_count(0)
    requests = []
    page.on("request", lambda request: requests.append(request.url) if "/search" in request.url else None)
    page.go_back()
    expect(tile).to_be_in_viewport()
    assert (page.evaluate("scrollY"), requests) == (top, [])
    expect(page.locator("#summary")).to_have_text("Top 51 of 52 images")


def test_malformed_parameters_of_a_link_are_dropped(open_page):
    page = open_page("/?q=red&since=soon&min_px=many&orientation=up&mix=NaN&like=../etc&min_score=&gps=1&view=x")
    expect_first(page, "red.jpg")
    expect(page.get_by_role("alert")).to_be_hidden()


# Errors


def test_an_unreachable_server_is_reported_and_retried(open_page, serve):
    with serve() as base:
        page = open_page("/?q=red", base=base)
        expect_first(page, "red.jpg")
    page.locator("#text").fill("blue")
    expect(page.get_by_role("alert")).to_contain_text("does not respond")
    with serve(port=int(base.rsplit(":", 1)[1])):
        page.get_by_role("button", name="Try again").click()
        expect_first(page, "blue.jpg")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_error_messages_of_the_server_are_shown(open_page):
    page = open_page("/?q=red&since=2024-01-02&until=2024-01-01")
    expect(page.get_by_role("alert")).to_contain_text("since (2024-01-02) must not be after until (2024-01-01)")


def test_a_removed_folder_in_an_old_link_is_reported_and_can_be_cleared(open_page):
    page = open_page("/?q=red&folder=images/sold")
    expect(page.get_by_role("alert")).to_contain_text(
        "The library has no images in folder 'images/sold'; indexed folders: 'images', "
    )
    expect(page.get_by_role("button", name="Remove filter: images/sold")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect_first(page, "red.jpg")
    expect(page.get_by_role("alert")).to_be_hidden()
    assert "folder" not in page.url


def test_a_busy_server_is_retried_at_the_announced_time(open_page):
    page = open_page()
    refusals = [{"status": 503, "headers": {"Retry-After": "1"}}, {"status": 429, "headers": {"Retry-After": "1"}}]
    page.route(SEARCH, lambda route: route.fulfill(**refusals.pop()) if refusals else route.continue_())
    page.locator("#text").fill("red")
    expect(page.locator("#notice")).to_have_text("The server is busy; retrying in 1 s.")
    expect_first(page, "red.jpg")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_missing_image_keeps_its_tile_and_shows_the_reason(open_page):
    page = open_page("/?q=red yellow&folder=images/town")
    tile = page.get_by_role("link", name=re.compile("gone.jpg"))
    expect(tile.get_by_text("No preview")).to_be_visible()
    expect(page.locator(".frame.loaded")).to_have_count(3)
    tile.click()
    expect(page.locator("#stage-note")).to_contain_text("no longer exists")
    expect(page.locator("#viewer-image")).to_be_hidden()


def test_the_token_is_requested_once(open_page, serve):
    token = "correct horse battery staple"
    with serve(token=token) as base:
        page = open_page("/?q=red", base=base)
        expect(page.get_by_role("heading", name="Access token required")).to_be_visible()
        page.get_by_role("textbox", name="Token").fill("not this one, which is wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Wrong token.")).to_be_visible()
        page.get_by_role("textbox", name="Token").fill(token)
        page.keyboard.press("Enter")
        expect_first(page, "red.jpg")
        expect(page.locator(".frame").first).to_have_class("frame loaded")
        page.reload()
        expect_first(page, "red.jpg")


# Appearance


def test_a_phone_needs_no_sideways_scrolling(open_page):
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    for show in (
        lambda: expect(page.locator("#welcome")).to_be_visible(),
        lambda: search(page, "red", "red.jpg"),
        lambda: page.get_by_role("button", name="Filters").click(),
        lambda: page.get_by_role("button", name="Show results").click(),
        page.locator(".tile").first.click,
    ):
        show()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= 360


def test_tiles_do_not_move_while_images_load(open_page):
    page = open_page()
    held = []
    page.route("**/thumbnail*", lambda route: held.append(route))  # noqa: PLW0108 - it must be a function
    search(page, "red", "red.jpg")
    places = "[...document.querySelectorAll('.frame')].slice(0, 8).map((each) => each.getBoundingClientRect().toJSON())"
    before = page.evaluate(places)
    for route in held:
        route.continue_()
    expect(page.locator(".frame").first).to_have_class("frame loaded")
    assert page.evaluate(places) == before


def test_the_theme_follows_the_system_until_one_is_chosen(open_page):
    page = open_page(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Dark appearance", pressed=True).click()
    light = page.evaluate(background)
    assert sum(map(int, re.findall(r"\d+", dark))) < 150 < 600 < sum(map(int, re.findall(r"\d+", light)))
    page.reload()
    expect(page.get_by_role("button", name="Dark appearance", pressed=False)).to_be_visible()
    assert page.evaluate(background) == light


@pytest.mark.parametrize("appearance", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440, 2560])
def test_axe_finds_no_accessibility_issue(open_page, appearance, width):
    from axe_playwright_python.sync_playwright import Axe

    found = {}

    def check(state):
        found[state] = Axe().run(page)

    viewport = {"width": width, "height": 844 if width < 1000 else 1200}
    page = open_page("/?q=blue", color_scheme=appearance, reduced_motion="reduce", viewport=viewport)
    expect_first(page, "blue.jpg")
    page.keyboard.press("Tab")
    page.locator("#text").fill("")
    page.evaluate("document.getElementById('starter').hidden = false")
    page.evaluate("document.getElementById('add-first-folder').hidden = false")
    expect(page.locator("#welcome-count")).not_to_be_empty()
    check("start")
    search(page, "red -blue", "red.jpg")
    expect(page.locator(".frame").first).to_have_class("frame loaded")
    page.locator(".pick").first.check()
    check("results with a selection")
    page.get_by_role("button", name="Filters").click()
    page.get_by_text("Wide", exact=True).click()
    check("filters")
    if width < 1000:
        page.get_by_role("button", name="Show results").click()
    expect(page.locator("#active")).to_be_visible()
    expect_first(page, "red.jpg")
    page.locator(".tile").first.click()
    page.keyboard.press("e")
    expect(page.locator("#explain-note")).not_to_be_empty()
    expect(page.locator("#viewer-image")).to_have_attribute("data-shows", re.compile("^blob:"))
    page.evaluate("document.getElementById('legend').hidden = false")  # as for a contributing region
    check("viewer")
    page.keyboard.press("s")
    check("slideshow")
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    for dialog in ("keys", "folder-dialog", "token"):
        page.evaluate(f"document.getElementById('{dialog}').showModal()")
        check(dialog)
        page.evaluate(f"document.getElementById('{dialog}').close()")
    page.evaluate("document.getElementById('indexing').hidden = false")
    search(page, "red", "red.jpg")
    page.goto(page.url.partition("?")[0] + "?q=red&folder=nowhere")
    expect(page.locator("#error")).to_be_visible()
    check("error")
    page.goto(page.url.partition("?")[0] + "?q=blue&camera=Leica")
    expect(page.locator("#empty")).to_be_visible()
    check("nothing found")
    page.goto(page.url.partition("?")[0] + "nowhere")
    check("unknown address")
    objections = {where: result.generate_report() for where, result in found.items() if result.violations_count}
    assert objections == {}


def test_photographs_are_indexed_and_searched_with_an_imported_model(open_page, serve, painted_library, tmp_path):
    """With random weights: any order of hits is right, as long as all parts work without our own model's parts."""
    from tests.support.original_models import siglip

    folder = siglip(tmp_path / "siglip")
    images = painted_library.parent / "images"
    for words in (
        ("models", "import", folder, "--to", tmp_path / "bundle"),
        ("index", images, "--library", tmp_path / "library", "--bundle", tmp_path / "bundle"),
    ):
        command = [sys.executable, "-m", "image_finder", *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    with serve(library=tmp_path / "library") as base:
        page = open_page("/?q=\u4e00\u53ea\u72d7 runs past the eiffel tower", base=base)
        expect(page.locator(".tile").first).to_be_visible()
        assert page.locator(".tile").count() > 10
        expect(page.locator("#grid .divider")).to_have_count(0)
        expect(page.locator("#notice")).not_to_contain_text("never seen")
        page.locator(".tile").first.click()
        page.keyboard.press("e")
        expect(page.locator("#explain-note")).to_have_text(re.compile("raise"))
