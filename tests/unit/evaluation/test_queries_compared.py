"""Queries on which models differ, and their nearest images, with two tiny bundles of known answers."""

import base64
import io

import numpy as np
from PIL import Image

from image_finder.components.configs import EvaluationConfig
from image_finder.components.evaluation.bundle_recall import measure_bundle
from image_finder.components.evaluation.queries_compared import RankedModel, compare_queries, most_different
from image_finder.components.records.retrieval import EvaluatedOn
from tests.support.tiny_bundle import BAD, GOOD, draw_images, write_tiny_bundle

IDENTITY = EvaluatedOn(dataset="scratch", data_version="0123456789ab", split="test")


def test_the_largest_difference_of_reciprocal_ranks_is_first_and_each_image_occurs_once():
    first, second = np.array([1, 1, 5, 9, 2]), np.array([1, 50, 1, 8, 40])
    assert most_different([first, second], np.array([0, 1, 2, 3, 1]), 9) == [1, 2, 3]
    assert most_different([first, second], np.array([0, 1, 2, 3, 4]), 2) == [1, 2]
    assert most_different([first, first], np.arange(5), 9) == []


def ranked(name, data, tables, folder):
    bundle = write_tiny_bundle(folder / name, **tables)
    config = EvaluationConfig(bootstrap_samples=100)
    measured = measure_bundle(bundle, data, config, identity=IDENTITY, code_sha256="")
    return RankedModel(name, bundle, measured.ranks.text_to_image)


def test_both_models_answer_with_their_nearest_images_and_the_correct_one_is_marked(tmp_path):
    data = draw_images(tmp_path / "images")
    models = [ranked(name, data, tables, tmp_path) for name, tables in (("good", GOOD), ("bad", BAD))]
    queries = compare_queries(models, data, count=3, top=4)
    assert len(queries) == 3
    for query in queries:
        assert [answer.model for answer in query.answers] == ["good", "bad"]
        assert len({answer.rank for answer in query.answers}) == 2
        for answer in query.answers:
            assert [image.score for image in answer.images] == sorted((i.score for i in answer.images), reverse=True)
            marked = [rank for rank, image in enumerate(answer.images, 1) if image.correct]
            assert marked == ([answer.rank] if answer.rank <= 4 else [])
    image = Image.open(io.BytesIO(base64.b64decode(queries[0].answers[0].images[0].jpeg)))
    assert image.format == "JPEG"
    assert max(image.size) <= 180


def test_models_that_agree_have_no_queries(tmp_path):
    data = draw_images(tmp_path / "images")
    model = ranked("good", data, GOOD, tmp_path)
    assert compare_queries([model, model], data) == []
