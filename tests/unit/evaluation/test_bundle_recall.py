"""Measurement of a bundle on images whose right answers are known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EvaluationConfig
from image_finder.components.errors import BundleError, DataError
from image_finder.components.evaluation.bundle_recall import measure_bundle
from image_finder.components.metrics.comparison import compare_bundles
from image_finder.components.metrics.ranks import first_match_ranks
from image_finder.components.records.retrieval import EvaluatedOn, Interval
from image_finder.components.storage import sha256_of_file

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "white": (250, 250, 250)}
CONFIG = EvaluationConfig(ks=(1, 2, 10), bootstrap_samples=100)
IDENTITY = EvaluatedOn(dataset="colours", data_version="abc", split="test")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """40 images in four colours, each a little different; two captions each, every tenth wrong."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    captions, files = [], []
    for image_id in range(40):
        word = list(COLOURS)[image_id % 4]
        colour = np.clip(np.array(COLOURS[word]) + rng.integers(-40, 40, 3), 0, 255).astype(np.uint8)
        Image.fromarray(np.tile(colour, (8, 8, 1))).save(root / f"{image_id}.png")
        digest = sha256_of_file(root / f"{image_id}.png")
        files.append({"image_id": image_id, "file_name": f"{image_id}.png", "sha256": digest})
        for number, text in enumerate([word, "yellow" if image_id % 10 == 9 else f"{word} {word}"]):
            captions.append({"image_id": image_id, "caption_id": 2 * image_id + number, "caption": text})
    table = pd.DataFrame(captions).assign(width_px=8, height_px=8, license=0, part="test")
    return CaptionedImages(table, pd.DataFrame(files), root)


def measured(bundle, data, config=CONFIG):
    return measure_bundle(bundle, data, config, identity=IDENTITY, code_sha256="c" * 64)


def test_recall_is_that_of_the_vectors_a_search_would_use(colour_bundle, images):
    found = measured(colour_bundle, images)
    encoder = OnnxEncoder(colour_bundle)
    vectors = np.concatenate(
        [encoder.encode_image(encoder.preprocess.load(images.root / f"{n}.png")[None]) for n in range(40)]
    )
    texts = np.concatenate([encoder.encode_text([text]) for text in images.captions["caption"]])
    ranks = first_match_ranks(vectors, texts, images.image_of_caption())
    np.testing.assert_array_equal(found.ranks.text_to_image, ranks.text_to_image)
    np.testing.assert_array_equal(found.ranks.image_to_text, ranks.image_to_text)
    report = found.measurement.report
    assert (report.n_images, report.n_captions, report.split) == (40, 80, "test")
    assert report.text_to_image.recall[10] == np.mean(ranks.text_to_image <= 10)
    assert report.text_to_image.recall[10] > 0.9 > report.text_to_image.recall[1]


def test_a_bundle_is_measured_on_each_extra_set_too(colour_bundle, images):
    half = dataclasses.replace(images, captions=images.captions[images.captions["image_id"] < 20])
    other = measured(colour_bundle, half)
    found = measure_bundle(
        colour_bundle, images, CONFIG, identity=IDENTITY, code_sha256="c" * 64, extra_sets={"half": half}
    )
    alone = measured(colour_bundle, images)
    report = found.measurement.report
    assert report.model_copy(update={"extra_sets": {}}) == alone.measurement.report
    assert report.extra_sets == {"half": other.measurement.report.model_copy(update={"split": "half"})}
    np.testing.assert_array_equal(found.extra_sets["half"].ranks.text_to_image, other.ranks.text_to_image)
    hashes = {each.measurement.test_sha256 for each in (found, alone, other)}
    assert len(hashes) == 3
    assert compare_bundles(found, found).gain == 0.0


def test_size_is_that_of_all_files_and_times_are_positive(colour_bundle, images):
    found = measured(colour_bundle, images).measurement
    assert found.bundle_mb == sum(path.stat().st_size for path in colour_bundle.path.iterdir()) / 1e6
    assert found.text_ms > 0
    assert found.image_ms > 0
    assert (found.embedding_dim, found.device, found.code_sha256) == (3, "cpu", "c" * 64)


def test_the_same_bundle_measured_twice_gains_nothing(colour_bundle, images):
    once, again = measured(colour_bundle, images), measured(colour_bundle, images)
    assert once.measurement.test_sha256 == again.measurement.test_sha256
    assert once.measurement.report == again.measurement.report
    found = compare_bundles(once, again)
    assert (found.gain, found.interval) == (0.0, Interval(low=0.0, high=0.0))
    assert {each.slice for each in found.slices} == {"direction"}


def test_a_test_is_another_one_when_a_caption_an_image_or_their_pairing_differs(colour_bundle, images):
    def digest(data):
        return measured(colour_bundle, data).measurement.test_sha256

    reworded, paired, replaced = (images.captions.copy(), images.captions.copy(), images.images.copy())
    reworded.loc[3, "caption"] = "blue red"
    paired.loc[[0, 2], "caption"] = paired.loc[[2, 0], "caption"].to_numpy()
    replaced.loc[5, "sha256"] = "f" * 64
    tests = [
        images,
        dataclasses.replace(images, captions=reworded),
        dataclasses.replace(images, captions=paired),
        dataclasses.replace(images, images=replaced),
    ]
    assert len({digest(data) for data in tests}) == 4


def test_only_the_first_captions_of_an_image_are_scored_when_the_config_says_so(colour_bundle, images):
    found = measured(colour_bundle, images, CONFIG.model_copy(update={"captions_per_image": 1}))
    assert found.measurement.report.n_captions == 40
    assert found.measurement.test_sha256 != measured(colour_bundle, images).measurement.test_sha256


def test_an_image_that_has_gone_and_a_graph_that_is_none_are_one_line(write_colour_bundle, images, tmp_path):
    bundle = write_colour_bundle(tmp_path / "colours")
    gone = images.images.copy()
    gone.loc[39, "file_name"] = "gone.png"
    with pytest.raises(DataError, match=r"gone\.png"):
        measured(bundle, dataclasses.replace(images, images=gone))
    (bundle.path / "text_encoder.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot open ONNX graph"):
        measured(bundle, images)
