"""Data sets as inputs of a run, in a real MLflow store."""

import json

import mlflow
import pandas as pd
import pytest

from image_finder.components.configs import DatasetConfig
from image_finder.components.errors import ConfigError
from image_finder.model_registry.data_sets import log_data_sets
from tests.support.evidence import MANIFEST


def captions(*images):
    texts = [f"a dog on hill {number}" for number in range(len(images))]
    return pd.DataFrame({"image_id": list(images), "caption": texts, "part": "train"})


PARTS = {"train": captions(1, 1, 2), "val": captions(3), "test": captions(), "coco": captions(4, 5)}


def inputs_of(run):
    return {each.dataset.name: each for each in mlflow.get_run(run.info.run_id).inputs.dataset_inputs}


def test_every_part_with_captions_is_an_input_with_its_use_version_and_counts(store):
    with mlflow.start_run() as run:
        log_data_sets(MANIFEST, PARTS)
    found = inputs_of(run)
    contexts = {name: each.tags[0].value for name, each in found.items()}
    assert contexts == {"scratch train": "training", "scratch val": "validation", "scratch coco": "evaluation"}
    train = found["scratch train"].dataset
    assert train.digest.startswith(f"{MANIFEST.version}-")
    assert json.loads(train.profile) == {"images": 2, "captions": 3}
    assert (train.source_type, json.loads(train.source)) == ("local", {"uri": "/data"})


def test_another_split_of_the_same_data_is_another_input(store):
    with mlflow.start_run() as first:
        log_data_sets(MANIFEST, {"train": captions(1, 2, 3)})
    with mlflow.start_run() as second:
        log_data_sets(MANIFEST, {"train": captions(1, 2)})
    profiles = [json.loads(inputs_of(run)["scratch train"].dataset.profile)["images"] for run in (first, second)]
    assert profiles == [3, 2]


def test_the_source_of_a_hub_data_set_is_its_repository_and_commit(store):
    hub = {"hub_dataset": "phiyodr/coco2017", "hub_revision": "0" * 40}
    origin = DatasetConfig(
        name="coco", layout="coco2017_table", parts={"train": {"annotations": "train.parquet", "images": "."}}, **hub
    )
    with mlflow.start_run() as run:
        log_data_sets(MANIFEST, {"train": captions(1)}, origin=origin)
    source = json.loads(inputs_of(run)["scratch train"].dataset.source)
    assert (source["path"], source["revision"]) == ("phiyodr/coco2017", "0" * 40)


def test_without_a_run_nothing_is_logged(store):
    with pytest.raises(ConfigError, match="no MLflow run is open"):
        log_data_sets(MANIFEST, PARTS)
    assert mlflow.search_runs(output_format="list") == []
