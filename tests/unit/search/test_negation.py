import numpy as np
import pytest
from PIL import Image

from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.search import negation
from image_finder.components.search.engine import SearchEngine
from image_finder.components.search.negation import GROUPS, Group, group_of, lowered
from image_finder.components.search.query import NOT_WEIGHT, Query
from tests.support.galleries import embed_folder

SHADES = {
    "red": (220, 20, 20),
    "yellow": (220, 220, 20),
    "green": (20, 220, 20),
    "turquoise": (20, 200, 200),
    "blue": (20, 20, 220),
    "purple": (180, 20, 180),
}


@pytest.fixture
def engine(tmp_path, write_colour_bundle):
    bundle = write_colour_bundle(tmp_path / "bundle", vocabulary=Vocabulary.of(["white warm"] * 2))
    (tmp_path / "images").mkdir()
    for number, (name, colour) in enumerate(SHADES.items()):
        noise = np.random.default_rng(number).integers(-15, 15, (32, 32, 1))
        Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(
            tmp_path / "images" / f"{name}.png"
        )
    embed_folder(tmp_path / "images", bundle, tmp_path / "index")
    return SearchEngine.open(tmp_path / "index", bundle.path)


@pytest.fixture
def warm(monkeypatch):
    """A group of colours whose word the model does not know."""
    group = Group("warm", ("red", "yellow"), 1.2)
    monkeypatch.setitem(negation._GROUP_OF, "warm", group)
    return group


def scores(engine, text, *not_texts, **weights):
    not_terms = [{"text": each} for each in not_texts]
    not_terms += [{"text": each, "weight": weight} for each, weight in weights.items()]
    result = engine.search(Query.parse({"terms": [{"text": text}], "not": not_terms, "duplicates": "show"}))
    return {hit.name.removesuffix(".png"): hit.score for hit in result.hits}


@pytest.mark.parametrize("text", ["people", "People", "a person", "any humans", "Human beings", " somebody "])
def test_a_general_word_names_its_group_in_every_form(text):
    assert group_of(text) is GROUPS[0]


@pytest.mark.parametrize(
    "text", ["", "a", "people on a beach", "two people", "dog", "a red car", "person's", "-", "人"]
)
def test_any_other_text_names_no_group(text):
    assert group_of(text) is None


def test_every_word_belongs_to_one_group_and_is_found():
    words = [word for group in GROUPS for word in group.words.split()]
    assert len(words) == len(set(words))
    for group in GROUPS:
        assert all(group_of(word.replace("-", " ")) is group for word in group.words.split())
        assert group.terms
        assert all(text == text.strip().lower() for text in group.terms)


def test_one_not_term_subtracts_its_weight_times_its_score():
    terms, not_terms = np.array([0.9, 0.5, 0.1], np.float32), np.array([0.8, 0.0, -0.2], np.float32)
    np.testing.assert_allclose(lowered(terms, [(not_terms, 0.5)]), [0.5, 0.5, 0.2], atol=1e-6)
    assert lowered(terms, []) is terms


def test_several_not_terms_count_less_each_and_more_together():
    wanted = np.zeros(2, np.float32)
    first, second = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    both = lowered(wanted, [(first, 0.6), (second, 0.6)])
    np.testing.assert_allclose(both, [-0.6 / np.sqrt(2)] * 2, atol=1e-6)
    np.testing.assert_allclose(lowered(wanted, [(first, 0.6)] * 4), [-1.2, 0], atol=1e-6)
    np.testing.assert_allclose(lowered(wanted, [(second, 0.6), (first, 0.6)]), both, atol=1e-6)
    # A term of next to no weight changes next to nothing.
    np.testing.assert_allclose(lowered(wanted, [(first, 0.6), (second, 1e-6)]), [-0.6, 0], atol=1e-5)


def test_lowered_vectors_give_lowered_scores():
    rng = np.random.default_rng(0)
    images, query, *not_terms = rng.standard_normal((5, 7, 8)).astype(np.float32)
    weights = (1.0, 0.65, 0.3, 2.0)
    terms = [(each[0], weight) for each, weight in zip((query, *not_terms), weights, strict=True)]
    of_vectors = images @ lowered(terms[0][0], terms[1:])
    of_scores = lowered(images @ terms[0][0], [(images @ vector, weight) for vector, weight in terms[1:]])
    np.testing.assert_allclose(of_vectors, of_scores, atol=1e-4)


def test_a_group_lowers_the_images_of_all_its_terms(engine, warm):
    plain = scores(engine, "white")
    without = scores(engine, "white", "any warm")
    assert set(list(without)[-2:]) == {"red", "yellow"}
    assert set(list(plain)[-2:]) != {"red", "yellow"}
    red, yellow = scores(engine, "red"), scores(engine, "yellow")
    length = np.sqrt(2 + np.sqrt(2))  # of the sum of two unit vectors 45 degrees apart
    for name, score in without.items():
        mean = (red[name] + yellow[name]) / length
        assert score == pytest.approx(plain[name] - 1.2 * NOT_WEIGHT * mean, abs=0.01)


def test_a_weight_scales_the_effect_of_a_group(engine, warm):
    plain, some, much = (scores(engine, "white", **({"warm": weight} if weight else {})) for weight in (0, 0.2, 1))
    for name in SHADES:
        assert plain[name] - much[name] == pytest.approx(5 * (plain[name] - some[name]), abs=1e-4)


def test_matches_well_ignores_the_not_terms(engine):
    without = engine.search(Query.of_text("yellow", not_terms=("warm", "blue")))
    assert without.matches_well is engine.search(Query.of_text("yellow")).matches_well
    assert without.unmet == ("yellow", "blue"), "the words are those of the query, not those of the group"


def test_a_query_with_not_terms_has_the_same_answer_alone_and_in_a_batch(engine, warm):
    queries = [
        Query.of_text("white", not_terms=("warm",)),
        Query.of_text("white"),
        Query.of_text("blue", not_terms=("a warm", "green")),
        Query.of_text("white", not_terms=("green", "blue", "warm")),
    ]
    alone = [SearchEngine(engine.index, engine.encoder).search(query) for query in queries]
    assert engine.search_many(queries) == alone
    assert engine.search_many(queries[::-1]) == alone[::-1]


def test_the_terms_of_a_group_are_encoded_once(engine, warm, monkeypatch):
    encoded = []
    encode_text = engine.encoder.encode_text
    monkeypatch.setattr(engine.encoder, "encode_text", lambda texts: encoded.extend(texts) or encode_text(texts))
    for _ in range(3):
        engine.search(Query.of_text("white and blue", not_terms=("warm",)))
    assert encoded.count("red") == 1
    assert encoded.count("white and blue") == 3


def test_not_terms_can_be_images_and_ids(engine):
    identity = next(hit.id for hit in engine.search("red").hits if hit.name == "red.png")
    stream = engine.image_path(identity).read_bytes()
    by_text = engine.search(Query.parse({"terms": [{"text": "white"}], "not": [{"text": "red"}], "duplicates": "show"}))
    for term in ({"like": identity}, {"image": stream}):
        found = engine.search(Query.parse({"terms": [{"text": "white"}], "not": [term], "duplicates": "show"}))
        assert found.hits[-1].name == by_text.hits[-1].name == "red.png"
