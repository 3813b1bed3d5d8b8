import pytest

from components.configs import EmbeddingConfig, GalleryConfig
from components.errors import BundleError, IndexMismatchError, QueryError
from components.search.embed import embed_gallery
from components.search.engine import SearchEngine
from components.search.gallery import read_gallery


@pytest.fixture
def colours(tmp_path, paint, colour_bundle):
    for name in ("red", "green", "blue"):
        paint(tmp_path / "pictures" / f"{name}.png", name)
    gallery = read_gallery(GalleryConfig(root=tmp_path / "pictures"))
    config = EmbeddingConfig(device="cpu", threads=1)
    embed_gallery(colour_bundle, gallery, tmp_path / "index", config, cache_dir=tmp_path / "cache", max_failed_share=0)
    return tmp_path / "index"


def test_each_colour_finds_its_picture_first(colours):
    engine = SearchEngine.open(colours)
    for name in ("red", "green", "blue"):
        hits = engine.search(f"  {name} \n", 3)
        assert (hits[0].id, hits[0].rank) == (f"{name}.png", 1)
        assert hits[0].score == pytest.approx(1, abs=1e-3)
        assert hits[1].score < 0.1
        assert hits[0].uri.endswith(f"pictures/{name}.png")


def test_more_hits_than_pictures_give_all_pictures_once(colours):
    assert sorted(hit.id for hit in SearchEngine.open(colours).search("red", 1000)) == [
        "blue.png",
        "green.png",
        "red.png",
    ]


@pytest.mark.parametrize(
    ("text", "k", "message"),
    [
        ("", 1, "the query is empty"),
        (" \n\t", 1, "the query is empty"),
        ("x" * 1001, 1, "has 1001 characters, at most 1000"),
        ("red", 0, "k is 0, expected 1 to 1000"),
        ("red", -3, "k is -3"),
        ("red", 1001, "k is 1001"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(colours, text, k, message):
    with pytest.raises(QueryError, match=message):
        SearchEngine.open(colours).search(text, k)


def test_any_text_has_an_answer(colours):
    engine = SearchEngine.open(colours)
    for text in ("Straßenbahn 🚋", "\0", "赤い", "a" * 1000, "\u202e", "\ud800"):
        assert len(engine.search(text, 2)) == 2


def test_another_bundle_is_refused_with_both_names(colours, write_colour_bundle, tmp_path, colour_bundle):
    other = write_colour_bundle(tmp_path / "other", input_px=16)
    with pytest.raises(IndexMismatchError, match=f"{colour_bundle.sha256[:12]}.*{other.sha256[:12]}"):
        SearchEngine.open(colours, other.path)


def test_a_copy_of_the_bundle_elsewhere_serves(colours, write_colour_bundle, tmp_path):
    copy = write_colour_bundle(tmp_path / "copy")
    assert SearchEngine.open(colours, copy.path).search("blue", 1)[0].id == "blue.png"


def test_a_bundle_that_has_gone_is_named(colours, tmp_path):
    with pytest.raises(BundleError, match=r"no bundle at .*gone"):
        SearchEngine.open(colours, tmp_path / "gone")
