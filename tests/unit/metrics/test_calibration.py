import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from image_finder.components.errors import DataError
from image_finder.components.metrics.calibration import calibrate_scores
from image_finder.components.records.calibration import ScoreCalibration
from image_finder.components.records.retrieval import EvaluatedOn

IDENTITY = EvaluatedOn(dataset="d", data_version="v", split="val")


def calibrate(images, texts, owners, **options):
    options = {"logit_scale": 10.0, "identity": IDENTITY, **options}
    return calibrate_scores(
        np.asarray(images, np.float32), np.asarray(texts, np.float32), np.asarray(owners), **options
    )


def unit(rng, rows, dim=8):
    vectors = rng.normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_table_worked_by_hand():
    # Images along x and y. Cosines of the captions with (x, y): (1, 0), (0.6, 0.8), (0.8, 0.6).
    found = calibrate([[1, 0], [0, 1]], [[1, 0], [0.6, 0.8], [0.8, 0.6]], [0, 0, 1])
    # True pairs: 1, 0.6, 0.6. Best of each caption: 1, 0.8, 0.8.
    assert found.quantiles[0] == found.quantiles[10] == pytest.approx(0.6, abs=1e-6)
    assert found.quantiles[15] == pytest.approx(0.8, abs=1e-6)  # half-way between the second and the third pair
    assert found.quantiles[20] == 1
    assert found.good_match == pytest.approx(0.8, abs=1e-6)
    assert (found.n_captions, found.gallery_size, found.logit_scale) == (3, 2, 10.0)
    assert (found.dataset, found.data_version, found.split) == ("d", "v", "val")


def test_one_in_twenty_captions_has_its_best_hit_below_the_threshold():
    rng = np.random.default_rng(1)
    images, texts = unit(rng, 50), unit(rng, 2000)
    found = calibrate(images, texts, rng.integers(0, 50, 2000))
    assert np.mean((texts @ images.T).max(axis=1) < found.good_match) == pytest.approx(0.05, abs=0.001)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 60), st.integers(1, 70))
def test_size_of_chunks_and_order_of_captions_change_nothing(seed, n_images, n_captions, chunk_rows):
    rng = np.random.default_rng(seed)
    images, texts, owners = unit(rng, n_images), unit(rng, n_captions), rng.integers(0, n_images, n_captions)
    order = rng.permutation(n_captions)
    whole = calibrate(images, texts, owners)
    assert calibrate(images, texts[order], owners[order], chunk_rows=chunk_rows) == whole
    scores = texts.astype(np.float64) @ images.T.astype(np.float64)
    own = scores[np.arange(n_captions), owners]
    np.testing.assert_allclose(whole.quantiles, np.quantile(own, np.arange(21) / 20), atol=2e-6)
    assert whole.good_match == pytest.approx(np.quantile(scores.max(axis=1), 0.05), abs=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logit_scale": 0.0}, "logit_scale is 0.0, expected a finite number above 0"),
        ({"logit_scale": math.inf}, "logit_scale is inf"),
        ({"logit_scale": math.nan}, "logit_scale is nan"),
        ({"chunk_rows": 0}, "chunk_rows is 0"),
        ({"owners": [0, 2]}, "image_of_caption ranges from 0 to 2, expected rows 0 to 1"),
        ({"texts": [[1, 1], [1, 0]]}, "normalise the rows"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line(change, message):
    values = {"images": [[1, 0], [0, 1]], "texts": [[1, 0], [0, 1]], "owners": [0, 1], **change}
    with pytest.raises(DataError, match=message):
        calibrate(**values)


# The record


def even(**changes):
    values = {"logit_scale": 10.0, "good_match": 0.5, "quantiles": tuple(step / 20 for step in range(21))}
    values |= {"n_captions": 5, "gallery_size": 2, "dataset": "d", "data_version": "v", "split": "val"}
    return ScoreCalibration(**{**values, **changes})


def test_scores_survive_their_file():
    assert ScoreCalibration.model_validate_json(even().model_dump_json()) == even()


@pytest.mark.parametrize(
    "change",
    [
        {"quantiles": tuple(step / 20 for step in range(20))},
        {"quantiles": tuple(1 - step / 20 for step in range(21))},
        {"quantiles": (math.nan, *(step / 20 for step in range(1, 21)))},
        {"quantiles": tuple(step / 10 for step in range(21))},
        {"logit_scale": 0.0},
        {"logit_scale": math.inf},
        {"good_match": math.nan},
        {"n_captions": 0},
    ],
)
def test_scores_that_cannot_be_are_refused(change):
    values = {**even().model_dump(), **change}
    with pytest.raises(ValidationError):
        ScoreCalibration(**values)
    with pytest.raises(ValidationError):
        ScoreCalibration.model_validate_json(json.dumps(values))
