"""Stored values whose fields were renamed are still read."""

import pytest

from image_finder.components.configs import DatasetConfig, DriftConfig, EmbeddingConfig, ExportConfig
from image_finder.components.errors import ConfigError
from image_finder.components.index.format import SelfCheck
from image_finder.components.records.promotion import PromotionDecision


@pytest.mark.parametrize(
    ("kind", "former", "current"),
    [
        (DatasetConfig, "demo_pictures", "demo_images"),
        (DriftConfig, "reference_pictures", "reference_images"),
        (DriftConfig, "compared_pictures", "compared_images"),
        (DriftConfig, "min_pictures", "min_images"),
        (EmbeddingConfig, "self_check_pictures", "self_check_images"),
        (EmbeddingConfig, "ray_shard_pictures", "ray_shard_images"),
        (ExportConfig, "parity_pictures", "parity_images"),
    ],
)
def test_a_configuration_with_a_former_name_is_read(kind, former, current):
    required = {"name": "demo", "layout": "demo"} if kind is DatasetConfig else {}
    assert getattr(kind.parse({**required, former: 1234}), current) == 1234


def test_a_self_check_and_a_decision_with_former_names_are_read():
    check = SelfCheck.model_validate({"n_pictures": 80, "found_themselves_first": 80, "recall_at_10": 1.0})
    assert check.n_images == 80
    decision = PromotionDecision.model_validate(
        {
            "promoted": False, "candidate_version": "2", "champion_version": "1", "reasons": [], "checks": [],
            "candidate_mean_recall": 0.5, "champion_mean_recall": 0.6, "gain": None, "gain_interval": None,
        }
    )  # fmt: skip
    assert (decision.challenger_version, decision.challenger_mean_recall) == ("2", 0.5)


def test_a_former_name_beside_the_current_one_is_refused():
    with pytest.raises(ConfigError, match="parity_pictures is the former name of parity_images: give one of them"):
        ExportConfig.parse({"parity_pictures": 8, "parity_images": 9})
