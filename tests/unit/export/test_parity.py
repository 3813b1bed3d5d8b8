import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from image_finder.components.bundle.bundle import IMAGE_ENCODER, MANIFEST, TEXT_ENCODER, Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.configs import EmbeddingConfig, ExportConfig, ModelConfig
from image_finder.components.encoders.checkpoint import FORMAT_VERSION, CheckpointManifest, save_checkpoint
from image_finder.components.errors import QualityError
from image_finder.components.export.exporter import export_bundle
from image_finder.components.export.parity import measure_parity, require_parity
from image_finder.components.records.export import ParityReport
from image_finder.components.storage import sha256_of_file
from image_finder.components.training.trainer import FeatureSettings, checkpoint_vectors, untrained

CONFIG = ExportConfig(parity_images=20)


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    config = ModelConfig.parse(tiny_model)
    manifest = CheckpointManifest(
        format_version=FORMAT_VERSION, dataset="scenes", data_version="0", epoch=0, history=(), files_sha256={}
    )
    return save_checkpoint(tmp_path_factory.mktemp("parity") / "checkpoint", untrained(config, 0), config, manifest)


@pytest.fixture(scope="module")
def exported(checkpoint, colour_scores, tmp_path_factory):
    return export_bundle(checkpoint, tmp_path_factory.mktemp("parity") / "bundle", CONFIG, scores=colour_scores)


@pytest.fixture
def spoilt(exported, tmp_path):
    """spoilt(file, change): a copy whose last projection weight went through change; its manifest is made to fit."""

    def make(name, change):
        path = tmp_path / "spoilt"
        shutil.copytree(exported.path, path)
        model = onnx.load(path / name)
        weight = next(w for w in model.graph.initializer if "projection" in w.name and len(w.dims) == 2)
        weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight).copy()), weight.name))
        onnx.save(model, path / name)
        hashes = {**exported.manifest.files_sha256, name: sha256_of_file(path / name)}
        manifest = exported.manifest.model_copy(update={"files_sha256": hashes})
        (path / MANIFEST).write_text(manifest.model_dump_json())
        return Bundle.open(path)

    return make


def test_an_export_passes_on_every_batch_and_length(checkpoint, exported, scenes):
    report = measure_parity(checkpoint, exported, scenes, CONFIG)
    assert (report.passed, report.reasons, report.n_images) == (True, (), 20)
    measured = {(case.tower, case.case, case.batch) for case in report.cases}
    texts = {
        ("text", case, batch) for case in ("short", "medium", "long", "over-length", "mixed") for batch in (1, 3, 8)
    }
    assert measured == texts | {("image", "images", batch) for batch in (1, 3, 8)}
    assert report.min_cosine > 0.99999
    assert report.max_difference < 1e-4
    assert report.onnx_recall_at_10 == pytest.approx(report.torch_recall_at_10, abs=1e-9)
    require_parity(report)


def test_several_looks_are_in_the_graph_and_in_the_evaluation(tiny_model, colour_scores, scenes, tmp_path):
    variants = {"tta": ["whole", "mirrored", "centre"]}
    config = ModelConfig.parse({**tiny_model, "image": {**tiny_model["image"], **variants}, "hubness": {"centres": 4}})
    manifest = CheckpointManifest(
        format_version=FORMAT_VERSION, dataset="scenes", data_version="0", epoch=0, history=(), files_sha256={}
    )
    checkpoint = save_checkpoint(tmp_path / "checkpoint", untrained(config, 0), config, manifest)
    bundle = export_bundle(checkpoint, tmp_path / "bundle", CONFIG, scores=colour_scores)
    require_parity(measure_parity(checkpoint, bundle, scenes, CONFIG))
    settings = FeatureSettings(tmp_path / "cache", EmbeddingConfig(device="cpu"))
    evaluated, _ = checkpoint_vectors(checkpoint, scenes, settings, device="cpu")
    encoder = OnnxEncoder(bundle, device="cpu")
    paths = [scenes.root / name for name in scenes.image_rows()["file_name"]]
    served = encoder.encode_image(np.stack([encoder.preprocess.load(path) for path in paths]))
    np.testing.assert_allclose(evaluated, served, atol=1e-4)


@pytest.mark.parametrize(("name", "tower"), [(IMAGE_ENCODER, "image"), (TEXT_ENCODER, "text")])
def test_a_tower_of_other_weights_is_refused_with_the_measured_numbers(checkpoint, spoilt, scenes, name, tower):
    bundle = spoilt(name, lambda weight: weight + np.random.default_rng(0).normal(0, 0.3, weight.shape).astype("f4"))
    report = measure_parity(checkpoint, bundle, scenes, CONFIG)
    assert not report.passed
    faulty = {case.tower for case in report.cases if case.min_cosine < CONFIG.min_cosine}
    assert faulty == {tower}
    with pytest.raises(QualityError, match=rf"{tower} tower, .*batch 1: cosine .*, at least 0\.999 is needed"):
        require_parity(report)


@pytest.mark.parametrize("name", [IMAGE_ENCODER, TEXT_ENCODER])
def test_values_that_are_not_finite_never_pass_and_are_kept_as_json(checkpoint, spoilt, scenes, name):
    report = measure_parity(checkpoint, spoilt(name, lambda weight: weight * np.nan), scenes, CONFIG)
    assert (report.passed, report.min_cosine, report.max_difference) == (False, -1.0, 2.0)
    assert ParityReport.model_validate_json(report.model_dump_json()) == report


def test_limits_are_the_configs(checkpoint, exported, scenes):
    strict = measure_parity(checkpoint, exported, scenes, CONFIG.model_copy(update={"max_difference": 1e-12}))
    assert not strict.passed
    assert all("a component differs by" in reason for reason in strict.reasons)


def test_eight_bit_text_weights_have_a_limit_of_their_own(checkpoint, colour_scores, scenes, tmp_path):
    config = CONFIG.model_copy(update={"int8_text": True})
    bundle = export_bundle(checkpoint, tmp_path / "bundle", config, scores=colour_scores)
    loose = CONFIG.model_copy(update={"min_cosine_int8": 0.9, "max_recall_difference": 1.0})
    report = measure_parity(checkpoint, bundle, scenes, loose)
    assert report.passed, report.reasons
    assert report.max_difference > 1e-4
    strict = measure_parity(checkpoint, bundle, scenes, loose.model_copy(update={"min_cosine_int8": 1.0}))
    assert {reason.split(",")[0] for reason in strict.reasons} == {"text tower"}
