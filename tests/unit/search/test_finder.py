import shutil
import threading
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from image_finder.components.configs import GalleryConfig
from image_finder.components.errors import (
    BundleError,
    FinderError,
    ImageError,
    IndexMismatchError,
    QueryError,
    StorageError,
)
from image_finder.components.images.decoding import load_rgb, upright_rgb
from image_finder.components.index.format import VECTORS
from image_finder.components.index.generations import current_generation
from image_finder.components.search.finder import Finder
from image_finder.components.search.query import Query
from tests.support.galleries import publish_gallery

SHADES = [(255 - 25 * step, 20, 25 * step) for step in range(11)]  # red to blue


def publish_album(album, bundle, library):
    publish_gallery(GalleryConfig(root=album), bundle, library)


def paint_shade(path, step, seed=None):
    """A shade with a random pattern, so that no two are near-duplicates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pattern = (
        np.random.default_rng(step if seed is None else seed).integers(-20, 20, (8, 9, 1)).repeat(4, 0).repeat(4, 1)
    )
    Image.fromarray(np.clip(np.array(SHADES[step]) + pattern, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory, colour_bundle):
    """A library of eleven shades in album/warm and album/cold; tests change nothing in it."""
    root = tmp_path_factory.mktemp("library")
    for step in range(11):
        paint_shade(root / "album" / ("warm" if step < 6 else "cold") / f"{step:02d}.png", step)
    publish_album(root / "album", colour_bundle, root)
    return root


@pytest.fixture(scope="module")
def finder(library):
    return Finder.open(library, threads=1)


@pytest.fixture
def growing(tmp_path, colour_bundle):
    """A library that tests publish to again: (root, publish(number of red images))."""

    def grow(n_images):
        for number in range(n_images):
            paint_shade(tmp_path / "album" / f"{number:02d}.png", 0, seed=number)
        publish_album(tmp_path / "album", colour_bundle, tmp_path)

    grow(1)
    return tmp_path, grow


def names(result):
    return [hit.name for hit in result.hits]


# Opening


def test_a_library_its_index_and_a_generation_are_opened_alike(library):
    generation = current_generation(library / "index")
    for place in (library, library / "index", generation, str(library)):
        opened = Finder.open(place, threads=1)
        assert names(opened.search("red", k=2)) == ["00.png", "01.png"]
        assert opened.generation == generation.name
    assert Finder.open(library).path == library / "index"
    assert opened.index_manifest.count == 11
    assert opened.bundle_manifest.dataset == "colours"


def test_the_error_for_a_missing_index_says_what_to_do(tmp_path):
    for place in (tmp_path, tmp_path / "none", "/dev/null"):
        with pytest.raises(
            StorageError, match=r"no images indexed yet in .*\. Run: image-finder index FOLDER"
        ) as caught:
            Finder.open(place)
        assert "\n" not in str(caught.value)


def test_a_moved_library_uses_its_own_bundle(library, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(library / "index", moved / "index")
    with pytest.raises(BundleError, match="no bundle at"):
        Finder.open(moved)
    shutil.copytree(library / "bundles", moved / "bundles")
    assert names(Finder.open(moved).search("red", k=1)) == ["00.png"]


def test_a_bundle_of_another_index_is_refused(library, write_colour_bundle, tmp_path):
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    with pytest.raises(IndexMismatchError, match=other.sha256[:12]):
        Finder.open(library, bundle=other.path)


# Asking


def test_options_are_those_of_a_query(finder):
    assert names(finder.search("red", k=3, folders="album/cold")) == ["06.png", "07.png", "08.png"]
    assert names(finder.search("red", k=2, offset=1, duplicates="show")) == ["01.png", "02.png"]
    both = "red and blue together"
    assert names(finder.search(both, k=1)) == ["05.png"]
    assert names(finder.search(both, k=1, not_terms="red"))[0] in ("08.png", "09.png", "10.png")
    assert finder.search("red", min_score=1.1).hits == ()
    assert finder.search("red", until=date(1999, 1, 1)).candidates == 0
    assert finder.search("red", since="1999-01-01", orientation="landscape", has_gps=False).candidates == 11
    assert finder.search("red", cameras=["canon"]).candidates == 0


def test_folder_label_takes_labels_and_paths(finder, library):
    label = finder.folder_label(str(library / "album" / "cold"))
    assert label == finder.folder_label("album/cold") == "album/cold"
    assert names(finder.search("red", k=1, folders=label)) == ["06.png"]
    with pytest.raises(
        QueryError, match="the library has no images in folder .*; indexed folders: 'album', 'album/cold', 'album/warm'"
    ):
        finder.search("red", folders=str(library / "album" / "cold"))


def test_a_query_object_is_used_unchanged_and_takes_no_options(finder):
    query = Query.of_text("blue", k=2)
    assert names(finder.search(query)) == ["10.png", "09.png"]
    with pytest.raises(QueryError, match="a Query holds its own options, k cannot be added"):
        finder.search(query, k=3)
    first, second = finder.search_many(["red", query])
    assert (names(first)[0], names(second)) == ("00.png", ["10.png", "09.png"])


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (None, {}, "the query is empty; give a text, an image or the id"),
        ("", {}, "the query is empty"),
        ("red", {"k": 0}, "k: Input should be greater than or equal to 1"),
        ("red", {"hits": 3}, "hits: "),
        ("red", {"since": "yesterday"}, "filters.since"),
        ("red", {"since": "2024-02-01", "until": "2024-01-01"}, r"since \(2024-02-01\) must not be after until"),
        ("red", {"orientation": "round"}, "filters.orientation"),
        ("red", {"offset": 4999}, "must not add up to more than 5000"),
        (None, {"like": "nope"}, "no image has the id 'nope'"),
        ("red", {"not_terms": ["blue"] * 17}, "not"),
    ],
)
def test_an_invalid_query_is_a_one_line_error(finder, query, options, message):
    with pytest.raises(QueryError, match=message) as caught:
        finder.search(query, **options)
    assert "\n" not in str(caught.value)


WORDS = st.one_of(st.text(), st.text(st.characters(codec=None)), st.text(min_size=900, max_size=1100))
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "k": st.integers(-2, 600),
        "offset": st.integers(-2, 6000),
        "min_score": st.floats() | st.none(),
        "duplicates": st.sampled_from(["fold", "show"]),
        "not_terms": st.lists(WORDS, max_size=3) | WORDS,
        "like": st.lists(WORDS, max_size=2),
        "folders": st.lists(WORDS, max_size=3),
        "cameras": st.lists(WORDS, max_size=3),
        "since": st.dates() | st.text(max_size=10) | st.none(),
        "until": st.dates() | st.none(),
        "min_px": st.integers(),
        "orientation": st.sampled_from(["landscape", "square", "", None]),
        "has_gps": st.booleans() | st.none(),
    },
)


@settings(max_examples=150, deadline=None)
@given(query=WORDS | st.none(), options=OPTIONS)
def test_any_query_has_an_answer_or_a_one_line_error(finder, query, options):
    try:
        result = finder.search(query, **options)
    except QueryError as error:
        message = str(error)
    else:
        message = "answered"
        assert len(result.hits) <= result.candidates <= 11
        scores = [hit.score for hit in result.hits]
        assert scores == sorted(scores, reverse=True)
        assert [hit.rank for hit in result.hits] == list(
            range(options.get("offset", 0) + 1, options.get("offset", 0) + 1 + len(scores))
        )
    assert len(message.splitlines()) == 1


@settings(max_examples=30, deadline=None)
@given(
    query=st.sampled_from(["red", "blue", "red and blue", "white", "green"]),
    not_terms=st.sampled_from([(), ("red",), ("blue", "green")]),
    k=st.integers(1, 6),
    duplicates=st.sampled_from(["fold", "show"]),
)
def test_pages_hold_every_image_once_in_the_order_of_one_large_page(finder, query, not_terms, k, duplicates):
    whole = finder.search(query, not_terms=not_terms, k=50, duplicates=duplicates)
    pages = [finder.search(query, not_terms=not_terms, k=k, offset=at, duplicates=duplicates) for at in range(0, 12, k)]
    assert [hit.id for page in pages for hit in page.hits] == [hit.id for hit in whole.hits]
    assert len({hit.id for hit in whole.hits}) == len(whole.hits) == 11
    assert [page.more for page in pages] == [at + k < 11 for at in range(0, 12, k)]


# Images


def test_each_image_finds_itself_first(finder, library):
    for path in sorted((library / "album").rglob("*.png")):
        for options in ({"images": path}, {"images": [path.read_bytes()]}):
            first = finder.search(**options, k=1).hits[0]
            assert (first.name, first.score) == (path.name, pytest.approx(1, abs=1e-5))
        assert finder.search(like=first.id, k=1).hits[0].id == first.id


@pytest.mark.parametrize("duplicates", ["fold", "show"])
def test_an_image_finds_itself_first_among_more_equal_images_than_are_shown(tmp_path, colour_bundle, duplicates):
    paint_shade(tmp_path / "album" / "00.png", 0)
    for number in range(1, 30):
        shutil.copy(tmp_path / "album" / "00.png", tmp_path / "album" / f"{number:02d}.png")
    publish_album(tmp_path / "album", colour_bundle, tmp_path)
    finder = Finder.open(tmp_path)
    for hit in finder.search("red", k=30, duplicates="show").hits:
        own = finder.search(like=hit.id, k=1, duplicates=duplicates)
        assert (own.hits[0].id, own.more) == (hit.id, duplicates == "show")
        assert finder.search(like=hit.id, k=1, duplicates=duplicates, has_gps=True).hits == ()


def test_a_pillow_image_is_searched_like_its_file(finder, library):
    path = library / "album" / "cold" / "07.png"
    with Image.open(path) as image:
        assert finder.search(images=image, k=1).hits[0].name == "07.png"
        direct, encoded = finder.encode_images([path, image])
    np.testing.assert_array_equal(direct, encoded)


def test_a_pillow_image_is_rotated_and_laid_over_white_like_its_file(finder, tmp_path):
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    halves = Image.new("RGB", (32, 16), "red")
    halves.paste("blue", (0, 0, 16, 16))
    halves.save(turned, exif=exif)
    clear = tmp_path / "clear.png"
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(clear)
    for path in (turned, clear):
        with Image.open(path) as image:
            assert upright_rgb(image).tobytes() == load_rgb(path).tobytes()
            of_path, of_image = finder.encode_images([path, image])
            np.testing.assert_allclose(of_path, of_image, atol=0.01)
    with Image.open(turned) as image:
        assert upright_rgb(image).size == (16, 32)
    np.testing.assert_allclose(finder.encode_images([clear])[0], np.full(3, 3**-0.5), atol=1e-4)


def test_many_images_are_encoded_in_order(finder, library):
    paths = sorted((library / "album").rglob("*.png")) * 4
    vectors = finder.encode_images(paths)
    assert (vectors.shape, vectors.dtype) == ((44, 3), np.float32)
    np.testing.assert_array_equal(vectors[:11], vectors[33:])
    assert finder.encode_images([]).shape == (0, 3)


def test_encoded_texts_give_the_scores_of_a_search(finder):
    texts = ["red", "a blue thing on green paper", "white"]
    vectors = finder.encode_texts(texts)
    assert finder.encode_texts([]).shape == (0, 3)
    for text, vector in zip(texts, vectors, strict=True):
        best = finder.search(text, k=1).hits[0]
        image = finder.encode_images([finder.image_path(best.id)])[0]
        assert float(vector @ image) == pytest.approx(best.score, abs=1e-5)
    with pytest.raises(QueryError, match="empty"):
        finder.encode_texts(["red", " "])


def test_an_unreadable_image_is_a_one_line_error(finder, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    for image in (tmp_path / "gone.jpg", tmp_path / "text.jpg", tmp_path, b"", b"\xff\xd8"):
        for ask in (
            lambda image=image: finder.search(images=image),
            lambda image=image: finder.encode_images([image]),
            lambda image=image: finder.explain(image, "red"),
            lambda image=image: finder.explain_pooling(image),
            lambda image=image: finder.classify(image, ["red", "blue"]),
        ):
            with pytest.raises(ImageError) as caught:
                ask()
            assert "\n" not in str(caught.value)


def test_a_file_and_an_id_can_be_classified(finder, library):
    path = library / "album" / "warm" / "00.png"
    identity = finder.search("red", k=1).hits[0].id
    for image in (path, path.read_bytes(), identity):
        first, *others = finder.classify(image, ["green", "red", "blue"])
        assert (first.label, first.probability > 0.9) == ("red", True)
        assert first.probability + sum(other.probability for other in others) == pytest.approx(1)


def test_an_id_has_its_image_and_file(finder, library):
    hit = finder.search("blue", k=1).hits[0]
    path = (library / "album" / "cold" / "10.png").resolve()
    assert finder.image(hit.id).model_dump() == {
        name: value for name, value in hit.model_dump().items() if name not in {"rank", "score", "good", "duplicates"}
    }
    assert finder.image_path(hit.id) == path
    assert [facet.value for facet in finder.facets().folders] == ["album/cold", "album/warm"]


def test_an_image_is_explained_for_the_query_it_was_found_by(finder, library, tmp_path):
    path = tmp_path / "two.png"
    image = Image.new("RGB", (64, 32), "grey")
    image.paste("red", (0, 0, 16, 32))
    image.paste("blue", (48, 0, 64, 32))
    image.save(path)

    def marked(*query, **options):
        explanation = finder.explain(path, *query, **options)
        assert (explanation.overlay.size, explanation.overlay.mode) == ((64, 32), "RGB")
        shares = explanation.contributions.shares
        return bool(shares[:, 0].min() > 0), bool(shares[:, -1].min() > 0)

    assert (
        marked("red") == marked(Query.of_text("red")) == marked(images=library / "album/warm/00.png") == (True, False)
    )
    assert marked("blue") == marked("blue", not_terms="red") == (False, True)
    assert marked(like=finder.search("blue", k=1).hits[0].id) == (False, True)
    assert marked("blue", like=finder.search("red", k=1).hits[0].id) == (False, False), "a mixture that neither raises"
    overlay = finder.explain(path, "red").overlay
    for image in (path.read_bytes(), Image.open(path)):
        assert finder.explain(image, "red").overlay.tobytes() == overlay.tobytes()
    hit = finder.search("blue", k=1).hits[0]
    assert finder.explain(hit.id, "red", at_most_px=18).overlay.size == (18, 16)
    assert finder.explain_pooling(hit.id, at_most_px=18).size == (18, 16)
    for unanswerable in (lambda: finder.explain("../../etc/passwd", "red"), lambda: finder.explain(path)):
        with pytest.raises(QueryError):
            unanswerable()


# Keeping up


def test_refresh_switches_to_the_newest_generation_once(growing):
    root, grow = growing
    finder = Finder.open(root)
    before, encoder = finder.engine, finder.engine.encoder
    assert finder.refresh() is False
    assert finder.engine is before
    grow(3)
    assert len(finder.search("red").hits) == 1
    assert finder.refresh() is True
    assert finder.engine.encoder is encoder
    assert finder.generation == current_generation(root / "index").name
    assert len(finder.search("red").hits) == 3
    assert finder.refresh() is False


def test_an_engine_answers_after_its_generation_was_removed(growing):
    root, grow = growing
    finder = Finder.open(root)
    engine = finder.engine
    for n_images in (2, 3, 4):
        grow(n_images)
        finder.refresh()
    assert not engine.index.path.exists()
    assert len(engine.search("red").hits) == 1


def test_refresh_opens_the_bundle_of_the_new_generation(growing, write_colour_bundle):
    root, _ = growing
    finder = Finder.open(root)
    pinned = Finder.open(root, bundle=finder.engine.encoder.bundle.path)
    old = finder.bundle_manifest.sha256
    other = write_colour_bundle(root / "other", input_px=16)
    publish_album(root / "album", other, root)
    assert finder.refresh() is True
    assert finder.bundle_manifest.sha256 == other.sha256 != old
    assert len(finder.search("red").hits) == 1
    with pytest.raises(IndexMismatchError, match=old[:12]):
        pinned.refresh()
    assert len(pinned.search("red").hits) == 1


def test_a_generation_that_cannot_be_opened_leaves_the_old_one_current(growing):
    root, grow = growing
    finder = Finder.open(root)
    before = finder.engine
    grow(2)
    vectors = current_generation(root / "index") / VECTORS
    content = vectors.read_bytes()
    vectors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for _ in range(2):  # the second time without looking at it again
        with pytest.raises(StorageError, match="corrupted"):
            finder.refresh()
        assert finder.engine is before
        assert len(finder.search("red").hits) == 1
        vectors.write_bytes(content)
    grow(3)
    assert finder.refresh() is True
    assert len(finder.search("red").hits) == 3


def test_a_library_that_disappears_is_an_error_and_the_old_index_still_answers(growing):
    root, _ = growing
    finder = Finder.open(root)
    shutil.rmtree(root / "index")
    with pytest.raises(FinderError, match="no images indexed yet in"):
        finder.refresh()
    assert len(finder.search("red").hits) == 1


def test_searches_are_correct_while_generations_are_replaced(growing):
    """Each answer is that of one whole generation: as many images as it has, never a mixture or a failure."""
    root, grow = growing
    finder = Finder.open(root)
    done, answers, faults = threading.Event(), [], []

    def ask():
        while not done.is_set():
            try:
                result = finder.search("red", k=50)
                engine = finder.engine
                answers.append((result.candidates, len(result.hits)))
                assert (
                    engine.search(Query.parse({"terms": [{"like": engine.index.item(0)["id"]}]})).hits[0].score > 0.99
                )
            except BaseException as error:  # noqa: BLE001 - failures of the thread are raised below
                faults.append(error)
                return

    def follow():
        while not done.is_set():
            try:
                finder.refresh()
            except BaseException as error:  # noqa: BLE001
                faults.append(error)
                return

    threads = [threading.Thread(target=each) for each in (ask, ask, ask, follow, follow)]
    for thread in threads:
        thread.start()
    try:
        for n_images in range(2, 8):
            grow(n_images)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert {found for _, found in answers} <= set(range(1, 8))
    assert all(candidates == found for candidates, found in answers)
    finder.refresh()
    assert finder.index_manifest.count == 7
