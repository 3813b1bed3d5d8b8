import io
import shutil
from datetime import UTC, date, datetime

import numpy as np
import pytest
from PIL import Image

from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.errors import BundleError, DataError, ImageError, IndexMismatchError, QueryError
from image_finder.components.search import filters
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.query import NOT_WEIGHT, NotTerm, Query, Term
from tests.support.galleries import embed_folder

RED_TO_BLUE = [(255 - 25 * step, 20, 25 * step) for step in range(11)]


def index_of(folder, bundle, place):
    embed_folder(folder, bundle, place / "index")
    return place / "index"


@pytest.fixture
def colours(tmp_path, paint, colour_bundle):
    for name in ("red", "green", "blue"):
        paint(tmp_path / "images" / f"{name}.png", name)
    return index_of(tmp_path / "images", colour_bundle, tmp_path)


@pytest.fixture
def shades(tmp_path, colour_bundle, paint):
    """Eleven shades from red to blue, each with its own pattern, in two folders."""
    noise = np.random.default_rng(0)
    for step, colour in enumerate(RED_TO_BLUE):
        folder = tmp_path / "album" / ("warm" if step < 6 else "cold/deep")
        folder.mkdir(parents=True, exist_ok=True)
        pattern = noise.integers(-20, 20, (8, 9, 1)).repeat(4, 0).repeat(4, 1)
        pixels = np.clip(np.array(colour) + pattern, 0, 255).astype(np.uint8)
        Image.fromarray(pixels if step % 2 else pixels.transpose(1, 0, 2)).save(folder / f"{step:02d}.png")
    return SearchEngine.open(index_of(tmp_path / "album", colour_bundle, tmp_path))


def names(result):
    return [hit.name for hit in result.hits]


def test_each_colour_finds_its_image_first(colours):
    engine = SearchEngine.open(colours)
    for name in ("red", "green", "blue"):
        hits = engine.search(f"  {name} \n", 3).hits
        assert (hits[0].name, hits[0].rank, hits[0].folder) == (f"{name}.png", 1, "images")
        assert hits[0].score == pytest.approx(1, abs=1e-2)
        assert hits[1].score < 0.1
        assert hits[0].uri.endswith(f"images/{name}.png")


def test_more_hits_than_images_give_all_images_once(colours):
    result = SearchEngine.open(colours).search("red", 500)
    assert sorted(names(result)) == ["blue.png", "green.png", "red.png"]
    assert (result.candidates, result.more) == (3, False)


@pytest.mark.parametrize(
    ("text", "k", "message"),
    [
        ("", 1, "the query is empty"),
        (" \n\t", 1, "the query is empty"),
        ("x" * 1001, 1, "has 1001 characters, the limit is 1000"),
        ("red", 0, "k: Input should be greater than or equal to 1, got 0"),
        ("red", -3, "got -3"),
        ("red", 501, "got 501"),
        ("red", 10**9, "got 1000000000"),
    ],
)
def test_the_error_for_an_invalid_query_gives_the_reason(colours, text, k, message):
    with pytest.raises(QueryError, match=message) as caught:
        SearchEngine.open(colours).search(text, k)
    assert "\n" not in str(caught.value)


def test_any_text_has_an_answer(colours):
    engine = SearchEngine.open(colours)
    for text in ("Straßenbahn 🚋", "\0", "赤い", "a" * 1000, "\u202e", "\ud800"):
        assert len(engine.search(text, 2).hits) == 2


def test_the_result_reports_that_nothing_matches_well(colours):
    engine = SearchEngine.open(colours)
    good, poor = engine.search("red"), engine.search("white")
    assert (good.matches_well, poor.matches_well) == (True, False)
    assert {hit.good for hit in (*good.hits, *poor.hits)} == {None}  # too few images to judge by


@pytest.fixture
def reds(tmp_path, paint, write_colour_bundle, good_from):
    """5 red images among 60; a hit of a short text is a good match from a cosine of 0.9 on."""
    for n in range(60):
        paint(tmp_path / "images" / f"{n:02d}.png", (220, n, n) if n < 5 else (20, n, 200))
    bundle = write_colour_bundle(
        tmp_path / "bundle", vocabulary=Vocabulary.of(["a red car and a blue bus"] * 40), matches=good_from(0.9)
    )
    return SearchEngine.open(index_of(tmp_path / "images", bundle, tmp_path))


def test_good_matches_come_first_and_are_equal_on_every_page(reds):
    whole = reds.search(Query.of_text("red", k=12, duplicates="show"))
    assert [hit.good for hit in whole.hits] == [True] * 5 + [False] * 7
    pages = [reds.search(Query.of_text("red", k=3, offset=3 * page, duplicates="show")) for page in range(4)]
    assert [hit for page in pages for hit in page.hits] == list(whole.hits)
    assert whole.matches_well


def test_good_matches_are_sorted_by_time(reds):
    def sorted_by(order, **values):
        return reds.search(Query.of_text("red", duplicates="show", order=order, **values))

    by_time = {hit.name: hit.modified_at for hit in sorted_by("match", k=60).hits}
    newest, oldest = sorted_by("newest"), sorted_by("oldest")
    assert [hit.good for hit in newest.hits] == [True] * 5
    assert sorted(by_time[name] for name in names(oldest)) == [by_time[name] for name in names(oldest)]
    assert names(oldest) == names(newest)[::-1]
    pages = [sorted_by("newest", k=2, offset=offset) for offset in (0, 2, 4)]
    assert [name for page in pages for name in names(page)] == names(newest)
    assert [page.more for page in pages] == [True, True, False]
    assert [hit.rank for hit in pages[1].hits] == [3, 4]
    assert {by_time[name] for name in names(sorted_by("newest", min_score=-1, k=60))} == set(by_time.values())
    assert len(sorted_by("newest", min_score=-1, k=60).hits) == 60


def test_without_known_matches_the_best_hits_are_sorted_by_time(shades):
    result = shades.search(Query.of_text("red", order="oldest"))
    assert [hit.good for hit in result.hits] == [None] * 11
    assert [hit.modified_at for hit in result.hits] == sorted(hit.modified_at for hit in result.hits)


def test_hits_are_called_good_only_where_the_model_justifies_it(reds):
    def good(**values):
        return {hit.good for hit in reds.search(Query.parse({"k": 3, "duplicates": "show", **values})).hits}

    assert good(terms=[{"text": "red"}]) == {True}
    for text in ("1234", "猫", "the", "red kangaroo"):  # no word met, or one that is not known well
        assert good(terms=[{"text": text}]) == {False}
    assert good(terms=[{"text": "red car, blue bus"}]) == {None}  # no model for longer texts
    assert reds.search("1234").matches_well is False
    assert good(terms=[{"text": "red"}, {"like": reds.index.item(0)["id"]}]) == {None}
    assert good(terms=[{"text": "red"}], filters={"min_px": 1000}) == set()


def test_good_matches_follow_the_ranking_that_not_terms_change(reds):
    hits = reds.search(Query.of_text("red", not_terms=("red",), k=60, duplicates="show")).hits
    labels = [hit.good for hit in hits]
    assert labels == sorted(labels, reverse=True)


def test_the_unused_part_of_a_long_text_is_reported(shades):
    text = "red green blue white red green blue white yellow  green "
    (cut,) = shades.search(text).truncated
    assert (cut.used, cut.unused) == ("red green blue white red green blue white", "yellow  green")
    assert shades.search("red green blue white red green blue white").truncated == ()
    long = Query(terms=[Term(text="red"), Term(text=text)], not_terms=[NotTerm(text=text)])
    assert shades.search(long).truncated == (cut, cut)


def test_words_that_did_not_occur_in_training_are_reported(tmp_path, paint, write_colour_bundle):
    bundle = write_colour_bundle(tmp_path / "bundle", vocabulary=Vocabulary.of(["a red one", "a red two"]))
    paint(tmp_path / "images" / "red.png", "red")
    engine = SearchEngine.open(index_of(tmp_path / "images", bundle, tmp_path))
    assert engine.search("a red kangaroo").unmet == ("kangaroo",)
    image = (tmp_path / "images" / "red.png").read_bytes()
    parts = [Term(text="a red"), Term(image=image)]
    assert engine.search(Query(terms=parts, not_terms=[NotTerm(text="Zebras")])).unmet == ("Zebras",)
    assert engine.search(Query(terms=[Term(image=image)])).unmet == ()


def test_without_a_vocabulary_no_words_are_reported(shades):
    assert shades.search("a kangaroo").unmet == ()


def test_a_not_term_reverses_the_order(shades):
    assert names(shades.search("red"))[:3] == ["00.png", "01.png", "02.png"]
    both = Query.of_text("red and blue together", k=11)
    without_red = Query.of_text("red and blue together", not_terms=("red",), k=11)
    assert names(shades.search(both))[0] == "05.png"
    assert names(shades.search(without_red))[0] in ("08.png", "09.png", "10.png")
    score = {hit.name: hit.score for hit in shades.search(without_red).hits}
    terms, not_terms = (
        {hit.name: hit.score for hit in shades.search(text, 11).hits} for text in ("red and blue together", "red")
    )
    assert score["03.png"] == pytest.approx(terms["03.png"] - NOT_WEIGHT * not_terms["03.png"], abs=1e-5)


def test_weights_shift_a_query_from_one_term_to_the_other(shades):
    def first(red, blue):
        return names(
            shades.search(Query.parse({"terms": [{"text": "red", "weight": red}, {"text": "blue", "weight": blue}]}))
        )[0]

    assert first(10, 0.1) == "00.png"
    assert first(1, 1) == "05.png"
    assert first(0.1, 10) == "10.png"


def test_an_image_finds_itself_first_also_among_its_copies(shades, tmp_path, colour_bundle):
    source = tmp_path / "album" / "warm" / "03.png"
    for name in ("00 copy.png", "zz copy.png"):
        shutil.copy(source, tmp_path / "album" / name)
    engine = SearchEngine.open(index_of(tmp_path / "album", colour_bundle, tmp_path))
    everything = engine.search(Query.parse({"terms": [{"text": "red"}], "duplicates": "show"})).hits
    identity = next(hit.id for hit in everything if hit.name == "03.png")
    own = engine.search(Query.parse({"terms": [{"like": identity}], "duplicates": "show"}))
    assert (own.hits[0].id, own.hits[0].score) == (identity, pytest.approx(1))
    upload = engine.search(Query.parse({"terms": [{"image": source.read_bytes()}]}))
    assert upload.hits[0].sha256 == own.hits[0].sha256
    assert len(upload.hits[0].duplicates) == 2
    assert (upload.matches_well, upload.hits[0].good) == (None, None)


def test_an_image_that_is_not_in_the_index_finds_similar_ones(shades):
    stream = io.BytesIO()
    Image.new("RGB", (300, 200), RED_TO_BLUE[8]).save(stream, "JPEG")
    assert names(shades.search(Query.parse({"terms": [{"image": stream.getvalue()}]})))[0] == "08.png"
    with pytest.raises(ImageError, match="not a readable image"):
        shades.search(Query.parse({"terms": [{"image": b"no image"}]}))


def test_pages_are_consecutive_without_gap_or_repetition(shades):
    whole = shades.search("red", 11)
    pages = [shades.search(Query.of_text("red", k=3, offset=offset)) for offset in range(0, 12, 3)]
    assert [hit for page in pages for hit in page.hits] == list(whole.hits)
    assert [page.more for page in pages] == [True, True, True, False]
    assert shades.search(Query.of_text("red", k=3, offset=50)).hits == ()


def test_near_duplicates_are_folded_into_the_best_one_or_shown_on_request(shades, tmp_path, colour_bundle):
    best = tmp_path / "album" / "warm" / "00.png"
    for number in range(30):  # more than the search looks at in its first go
        Image.open(best).convert("RGB").save(tmp_path / "album" / f"again {number}.jpg", quality=60 + number)
    engine = SearchEngine.open(index_of(tmp_path / "album", colour_bundle, tmp_path))
    folded = engine.search(Query.of_text("red", k=3))
    assert len(folded.hits[0].duplicates) == 30
    assert names(folded)[1:] == ["01.png", "02.png"]
    assert folded.more
    assert (
        len([name for name in names(engine.search(Query.of_text("red", k=31, duplicates="show"))) if "again" in name])
        == 30
    )


def test_filtered_searches_return_k_hits_if_there_are_k(shades):
    deep = shades.search(Query.of_text("red", k=5, folders=["album/cold/"]))
    assert names(deep) == ["06.png", "07.png", "08.png", "09.png", "10.png"]
    assert deep.candidates == 5
    upright = shades.search(Query.of_text("red", orientation="portrait"))
    assert all(hit.height_px > hit.width_px for hit in upright.hits)
    assert upright.candidates + shades.search(Query.of_text("red", orientation="landscape")).candidates == 11
    assert shades.search(Query.of_text("red", min_px=33)).candidates == 0
    assert shades.search(Query.of_text("red", has_gps=False)).candidates == 11
    assert shades.search(Query.of_text("red", has_gps=True)).candidates == 0
    today = datetime.now(UTC).date()
    assert shades.search(Query.of_text("red", since=today.replace(year=today.year - 1))).candidates == 11
    assert shades.search(Query.of_text("red", until=date(1999, 1, 1))).candidates == 0


@pytest.mark.parametrize("folder", ["album/col", "albu", "", "/", "ALBUM", "album/cold/deep/er"])
def test_a_folder_that_is_not_in_the_index_is_refused_with_the_names_of_some_that_are(shades, folder):
    wanted = [["album/warm", folder], [folder]]
    for folders in wanted:
        with pytest.raises(QueryError) as caught:
            shades.search(Query.of_text("red", folders=folders))
        assert str(caught.value) == (
            f"the library has no images in folder {folder!r}; indexed folders: 'album', 'album/warm', 'album/cold/deep'"
        )


def test_the_error_for_an_unknown_folder_names_the_outermost_folders(tmp_path, paint, colour_bundle):
    for number in range(12):
        paint(tmp_path / "many" / f"{number:02d}" / "a.png", (number * 20, 0, 0))
    engine = SearchEngine.open(index_of(tmp_path / "many", colour_bundle, tmp_path))
    with pytest.raises(
        QueryError, match=r"indexed folders: 'many', 'many/00', 'many/01', 'many/02', 'many/03' and 8 more$"
    ):
        engine.search(Query.of_text("red", folders=["x" * 10_000]))


@pytest.mark.posix
def test_a_folder_has_the_same_label_by_its_label_and_by_its_path(shades, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "album")
    (tmp_path / "link").symlink_to(tmp_path / "album" / "cold")
    for name, label in {
        "album/cold": "album/cold",
        "cold": "album/cold",
        "./cold/deep/": "album/cold/deep",
        ".": "album",
        f"{tmp_path}/album": "album",
        f"{tmp_path}/link/deep": "album/cold/deep",
        f"{tmp_path}/album/warm/../cold": "album/cold",
    }.items():
        assert filters.folder_label(shades.index.items, shades.index.manifest.roots, name) == label, name
    for name in ("..", "~", "~nobody", "/", "", "deep", "a\0b", f"{tmp_path}/album/warm/00.png"):
        with pytest.raises(QueryError, match="the library has no images in folder "):
            filters.folder_label(shades.index.items, shades.index.manifest.roots, name)


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("0", {f"{step:02d}.png" for step in range(11)}),
        ("05", {"05.png"}),
        ("PNG", {f"{step:02d}.png" for step in range(11)}),
        ("1*.p", {"01.png", "10.png"}),
        ("%", set()),
        ("0_", set()),
        ("\\", set()),
    ],
)
def test_images_are_found_by_part_of_their_file_name(shades, part, found):
    assert set(names(shades.search(Query.of_text("red", name=part)))) == found


def test_hits_below_min_score_are_left_out(shades):
    result = shades.search(Query.of_text("red", min_score=0.9))
    assert names(result) == ["00.png", "01.png", "02.png", "03.png"]
    assert not result.more


def test_an_image_reaches_its_own_rounded_score_as_min_score(shades, tmp_path):
    for path in (tmp_path / "album").rglob("*.png"):
        result = shades.search(Query.parse({"terms": [{"image": path.read_bytes()}], "min_score": 1}))
        assert names(result) == [path.name]
        assert shades.search(Query.parse({"terms": [{"image": path.read_bytes()}], "min_score": 1.00001})).hits == ()


def test_several_queries_have_the_same_answers_together_and_alone(shades):
    queries = [
        Query.of_text("red", k=2),
        Query.of_text("a very blue thing", k=5, offset=2),
        Query.of_text("red", not_terms=("blue",), folders=["album/cold"]),
        Query.of_text("blue", min_score=2),
    ]
    for one, many in zip([shades.search(query) for query in queries], shades.search_many(queries), strict=True):
        assert [hit.id for hit in one.hits] == [hit.id for hit in many.hits]
        assert (one.candidates, one.more, one.matches_well) == (many.candidates, many.more, many.matches_well)
        np.testing.assert_allclose([h.score for h in one.hits], [h.score for h in many.hits], atol=2e-6)


def test_folders_cameras_and_days_are_counted(shades):
    facets = filters.facets(shades.index.items)
    assert [(each.value, each.count) for each in facets.folders] == [("album/cold/deep", 5), ("album/warm", 6)]
    assert (facets.cameras, facets.with_gps, facets.images) == ((), 0, 11)


@pytest.mark.posix
def test_an_image_outside_the_indexed_folders_is_not_opened(shades, tmp_path, paint):
    hit = shades.search("red", 1).hits[0]
    assert shades.image_path(hit.id) == (tmp_path / "album" / "warm" / "00.png").resolve()
    secret = paint(tmp_path / "secret.png", "red")
    (tmp_path / "album" / "warm" / "00.png").unlink()
    (tmp_path / "album" / "warm" / "00.png").symlink_to(secret)
    with pytest.raises(DataError, match="is outside the indexed folders"):
        shades.image_path(hit.id)
    for identity in ("../../etc/passwd", "", "nope"):
        with pytest.raises(QueryError, match="no image has the id"):
            shades.image_path(identity)


def test_another_bundle_is_refused_with_both_hashes(colours, write_colour_bundle, tmp_path, colour_bundle):
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    with pytest.raises(IndexMismatchError, match=f"{colour_bundle.sha256[:12]}.*{other.sha256[:12]}"):
        SearchEngine.open(colours, other.path)


def test_a_copy_of_the_bundle_elsewhere_is_accepted(colours, write_colour_bundle, tmp_path):
    copy = write_colour_bundle(tmp_path / "copy")
    assert names(SearchEngine.open(colours, copy.path).search("blue", 1)) == ["blue.png"]


def test_a_missing_bundle_is_named(colours, tmp_path):
    with pytest.raises(BundleError, match=r"no bundle at .*gone"):
        SearchEngine.open(colours, tmp_path / "gone")
