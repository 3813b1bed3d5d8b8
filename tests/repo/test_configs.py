"""The configurations that come with the package: each is loadable, known to ZenML, and says how it is run."""

import inspect
from datetime import date
from typing import Any

import pytest

from image_finder.components.configs import (
    EvaluationConfig,
    PartConfig,
    RegistryConfig,
    SplitConfig,
    TrainingParameters,
)
from image_finder.components.errors import ConfigError
from image_finder.components.hub import require_pinned
from image_finder.pipelines import run_config

SHIPPED = sorted(run_config.configs_folder().glob("*.yaml"))


def pipeline_of(name):
    if name == "training":
        from image_finder.pipelines.training import finder_training

        return finder_training
    from image_finder.pipelines.indexing import finder_indexing

    return finder_indexing


def test_there_is_a_configuration_for_demo_local_and_gpu_of_both_pipelines():
    names = {path.stem for path in SHIPPED}
    assert {f"{p}.{e}" for p in ("training", "indexing") for e in ("demo", "local", "gpu")} <= names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_key_of_a_shipped_configuration_is_known(path, tmp_path):
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    name = path.stem.split(".")[0]
    values = run_config.load(name, str(path))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "annotations" / "captions_train.json").touch()
    configs: dict[str, Any] = run_config.checked(name, run_config.with_data(name, values, tmp_path))
    if name == "training":
        require_pinned(configs["model"], configs["dataset"])
    assert set(values) <= set(PipelineRunConfiguration.model_fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["model.image.revision=null"],
            r"^image.revision is not set: timm/efficientnet_b0.ra_in1k on the hub may change",
        ),
        (["model.text.revision=null"], r"^text.revision is not set: distilbert-base-uncased on the hub may change"),
        (
            ["dataset.layout=coco2017_table", "dataset.hub_dataset=someone/captions"],
            r"^dataset.hub_revision is not set: .* `git ls-remote \S+huggingface.co/datasets/someone/captions HEAD`",
        ),
    ],
)
def test_a_repository_without_a_commit_is_refused_before_a_run_starts(changes, message, tmp_path):
    from image_finder.pipelines.runs import run_training
    from image_finder.pipelines.stores import Home

    values = run_config.override(run_config.load("training", "gpu"), changes)
    with pytest.raises(ConfigError, match=message):
        run_training(values, Home(tmp_path / "home"), None)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_configuration_begins_with_the_command_that_runs_it(path):
    first = path.read_text(encoding="utf-8").splitlines()[:2]
    pipeline, environment, _ = path.name.split(".")
    assert all(line.startswith("# ") for line in first)
    assert any(
        "image-finder demo" in line or f"--config {environment}" in line for line in path.read_text().splitlines()[:3]
    )
    assert pipeline in path.read_text().split("parameters:")[0] or "demo" in first[0]


@pytest.mark.parametrize("name", ["training", "indexing"])
def test_checked_parameters_are_those_of_the_pipeline(name):
    signature = inspect.signature(pipeline_of(name).entrypoint)
    expected = {key for key in signature.parameters if not key.endswith("_fingerprint")}
    assert expected == set(run_config.PARAMETERS[name].model_fields)


def test_a_registered_version_records_every_parameter_of_its_training():
    assert run_config.PARAMETERS["training"] is TrainingParameters
    parts = TrainingParameters(dataset={"name": "x", "layout": "demo"}).parts()
    assert {name: type(part) for name, part in parts.items()} == {
        name: field.annotation for name, field in TrainingParameters.model_fields.items()
    }


def test_the_starter_learns_by_the_recipe_of_flickr8k_from_more_images():
    starter, flickr8k = (run_config.load("training", name)["parameters"] for name in ("starter", "flickr8k"))
    model = starter["model"]
    assert (
        model["image"].pop("input_px") == flickr8k["model"]["image"].pop("input_px") - 4
    )  # 8 x 8 instead of 9 x 9 cells
    assert model.pop("embedding_dim") == flickr8k["model"].pop("embedding_dim") + model.pop("concepts")["dims"]
    for part in ("model", "training", "export"):
        assert starter[part] == flickr8k[part], part
    sets = starter["evaluation"].pop("extra_sets")
    assert starter["evaluation"] == flickr8k["evaluation"]
    assert {name: each["min_recall_at_10"] for name, each in sets.items()} == {"coco": 0.8}
    assert starter["dataset"]["parts"]["val"]["annotations"].endswith(
        flickr8k["dataset"]["parts"]["val"]["annotations"]
    )
    assert len(starter["dataset"]["parts"]["train"]) == 3


def test_a_misspelt_parameter_is_refused_with_the_known_ones():
    values = run_config.override(run_config.load("training", "demo"), ["trainning.epochs=3"])
    with pytest.raises(ConfigError, match="unknown parameter 'trainning' for training: known are dataset, validation"):
        run_config.checked("training", values)


def test_a_misspelt_field_is_refused_by_its_path():
    values = run_config.override(run_config.load("training", "demo"), ["model.image.trunc=x"])
    with pytest.raises(ConfigError, match=r"ModelConfig: image.trunc: Extra inputs are not permitted"):
        run_config.checked("training", values)


def test_an_override_is_read_as_yaml_and_leaves_its_neighbours():
    values = run_config.override(
        run_config.load("training", "demo"), ["training.epochs=3", "model.image.trained_stages=all"]
    )
    configs: dict[str, Any] = run_config.checked("training", values)
    assert configs["training"].epochs == 3
    assert configs["training"].batch_images == 128
    assert configs["model"].image.trained_stages == "all"


@pytest.mark.parametrize(
    ("kind", "values", "fault"),
    [
        (SplitConfig, {"seed": -1}, "seed: Input should be greater than or equal to 0, got -1"),
        (SplitConfig, {"seed": "x"}, "seed: Input should be a valid integer, unable to parse string as an integer, got 'x'"),
        (SplitConfig, {"seed": None}, "seed: Input should be a valid integer, got None"),
        (SplitConfig, {"seed": date(2024, 2, 1)}, "seed: Input should be a valid integer, got 2024-02-01"),
        (SplitConfig, {"seed": [1]}, "seed: Input should be a valid integer, got [1]"),
        (SplitConfig, {"val_fraction": 0.5, "test_fraction": 0.5}, "val_fraction (0.5) and test_fraction (0.5) must add up to less than 1"),
        (EvaluationConfig, {"extra_sets": {"val": {"annotations": "a", "images": "a"}}}, "extra_sets names a set 'val': choose another name than baseline, drift, promotion, test, train, val"),
        (EvaluationConfig, {"extra_sets": {"coco": {"annotations": "a", "images": "a", "min_recall": 1}}}, "extra_sets.coco.min_recall: Extra inputs are not permitted, got 1"),
        (RegistryConfig, {"promotion": {"slice_allowances": {"size": 0.1}}}, "promotion: slice_allowances names 'size': known slices are direction, caption length, image shape, captions of the image, license, words"),
        (RegistryConfig, {"promotion": {"slice_allowances": {"words: not met": 0.1}}}, "promotion: slice_allowances names 'words: not met': values of 'words' are all met in training, some not met"),
        (RegistryConfig, {"promotion": {"slice_allowances": {"license: free": 0.1}}}, "promotion: slice_allowances names 'license: free': values of 'license' are license 1, license 2, ..."),
        (PartConfig, {"images": "x"}, "annotations: Field required"),
    ],
)  # fmt: skip
def test_a_fault_is_fault_by_its_key_and_one_of_several_values_without_the_record_they_are_in(kind, values, fault):
    with pytest.raises(ConfigError) as caught:
        kind.parse(values)
    assert str(caught.value) == f"{kind.__name__}: {fault}"


@pytest.mark.parametrize("assignment", ["training.epochs", "=3", "training..epochs=3"])
def test_a_malformed_override_is_refused(assignment):
    with pytest.raises(ConfigError, match="expected a.b=value"):
        run_config.override(run_config.load("training", "demo"), [assignment])


def test_an_unknown_configuration_names_the_known_ones():
    with pytest.raises(ConfigError, match="known are cluster, coco, demo, flickr8k, gpu, local, plain"):
        run_config.load("training", "nowhere")
