"""Concept branch: classes and texts in one space by name, joined to the trained vectors with a fixed weight."""

from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from timm.models.efficientnet import EfficientNet
from torch import nn
from torch.nn import functional

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import (
    ConceptsConfig,
    EmbeddingConfig,
    ImageTowerConfig,
    ModelConfig,
    TrainingConfig,
)
from image_finder.components.encoders.concepts import ImageConcepts, class_names, joined
from image_finder.components.encoders.dual_encoder import Assembled, DualEncoder
from image_finder.components.encoders.weights import load_image_trunk
from image_finder.components.errors import ConfigError
from image_finder.components.training.trainer import FeatureSettings, TrainingTask, train_checkpoint, untrained

PACKAGED = {"image": {"input_px": 64}, "embedding_dim": 96, "concepts": {"dims": 64, "weight": 0.5}}


@pytest.fixture(scope="module")
def packaged() -> Assembled:
    return untrained(ModelConfig.parse(PACKAGED), 0)


def _trunk(num_classes: int = 1000) -> EfficientNet:
    return cast("EfficientNet", timm.create_model("tf_efficientnet_lite0", num_classes=num_classes))


def _concepts(assembled: Assembled, texts: list[str]) -> torch.Tensor:
    tower, tokens = assembled.model.text_tower, assembled.tokenizer(texts)
    ids, mask = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask)
    assert tower.concepts is not None
    with torch.no_grad():
        vectors: torch.Tensor = tower.concepts(tower.features(ids, mask), mask)
    return vectors


def test_a_text_is_nearest_to_the_class_that_it_names(packaged: Assembled) -> None:
    concepts = packaged.model.image_tower.concepts
    assert concepts is not None
    names = class_names(_trunk())
    assert names[1] == ["goldfish", "Carassius auratus"]
    texts = {1: "a goldfish", 291: "a lion in the grass", 555: "a red fire engine", 963: "a pizza on a table"}
    scores = _concepts(packaged, list(texts.values())) @ functional.normalize(concepts.names, dim=1).t()
    assert [names[row] for row in scores.argmax(dim=1)] == [names[row] for row in texts]


def test_an_image_is_the_mean_of_its_classes_by_probability() -> None:
    concepts = ImageConcepts(nn.Identity(), nn.Linear(4, 3), ConceptsConfig(dims=2, temperature=2.0))
    concepts.names.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, -1]]))
    logits = 2 * torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2]]).log()
    expected = functional.normalize(torch.tensor([[0.25, 0.0], [0.0, 0.4]]), dim=1)
    torch.testing.assert_close(concepts.of_classes(logits), expected)


def test_products_are_those_of_the_heads_and_of_the_concepts_with_their_weight(packaged: Assembled) -> None:
    model = packaged.model.eval()
    pixels = torch.randint(0, 255, (3, 64, 64, 3), dtype=torch.uint8)
    tokens = packaged.tokenizer(["a goldfish", "two lions"])
    ids, mask = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask)
    image, text = model.image_tower, model.text_tower
    assert image.concepts is not None
    with torch.no_grad():
        images, texts = model.encode_image(pixels), model.encode_text(ids, mask)
        features = image.features(pixels)
        learned = (
            image.branch(features, 0).vectors[0] @ text.head_vectors(text.features(ids, mask), mask, range(1))[0].t()
        )
        concepts = image.concepts(features) @ _concepts(packaged, ["a goldfish", "two lions"]).t()
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    assert model.product_scale == 1 / 1.5
    torch.testing.assert_close(images @ texts.t(), (learned + 0.5 * concepts) / 1.5, atol=1e-5, rtol=0)


def test_an_image_has_the_classes_that_the_packaged_trunk_gives_it(packaged: Assembled) -> None:
    image = packaged.model.eval().image_tower
    assert image.concepts is not None
    trunk = load_image_trunk(ImageTowerConfig()).trunk
    pixels = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(each) for each in (packaged.preprocess.mean, packaged.preprocess.std))
    with torch.no_grad():
        logits = trunk(((pixels / 255 - mean) / std).permute(0, 3, 1, 2))
        expected = image.concepts.of_classes(logits)
        torch.testing.assert_close(image.concepts(image.features(pixels)), expected, atol=1e-5, rtol=0)


def test_cells_that_the_stages_would_pad_are_left_out() -> None:
    stages = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2, padding=1), nn.Conv2d(1, 3, 1))
    concepts = ImageConcepts(stages, nn.Linear(3, 4), ConceptsConfig(dims=2))
    concepts.names.normal_(generator=torch.Generator().manual_seed(0))
    features = torch.randn(2, 5, 5, 1)
    with torch.no_grad():
        assert torch.equal(concepts(features), concepts(features[:, :4, :4]))
        assert not torch.equal(concepts(features[:, :4]), concepts(features[:, :2]))
        assert concepts(features[:, :1, :1]).norm(dim=1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("stages", [0, 1, "all"])
def test_the_classes_stay_while_the_stages_learn(
    scenes: CaptionedImages, tiny_model: dict[str, Any], tmp_path: Path, stages: int | str
) -> None:
    image = {**tiny_model["image"], "trained_stages": stages, "own_tails": stages == 1}
    model = ModelConfig.parse(
        {**tiny_model, "image": image, "embedding_dim": 24, "ensemble_heads": 2, "concepts": {"dims": 8}}
    )
    training = TrainingConfig.parse({"epochs": 1, "batch_images": 9, "device": "cpu", "trunk_rate": 0.01})
    settings = FeatureSettings(tmp_path / "cache", EmbeddingConfig(device="cpu", batch_images=8))
    task = TrainingTask(scenes, scenes, (model, training), settings, tmp_path / "checkpoint", ("scenes", "v1"))
    packaged, trained = untrained(model, 0).model.eval(), train_checkpoint(task).load().model
    pixels = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        before, after = (_of_classes(each, pixels) for each in (packaged, trained))
        learned = [
            each.image_tower.branch(each.image_tower.features(pixels), 0).vectors[0] for each in (packaged, trained)
        ]
    assert torch.equal(before, after)
    assert float(before.abs().max()) > 0
    assert not torch.allclose(learned[0], learned[1], atol=1e-3)


def _of_classes(model: DualEncoder, pixels: torch.Tensor) -> torch.Tensor:
    tower = model.image_tower
    assert tower.concepts is not None
    vectors: torch.Tensor = tower.concepts(tower.features(pixels))
    return vectors


def test_joined_unit_vectors_are_unit_vectors() -> None:
    learned, concepts = (functional.normalize(torch.randn(5, width), dim=1) for width in (7, 3))
    torch.testing.assert_close(joined(learned, concepts, 0.2).norm(dim=1), torch.ones(5))


def test_classes_without_known_names_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^the names of the 7 classes of this image trunk are not known; set concepts"
    ):
        class_names(_trunk(num_classes=7))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embedding_dim": 64}, r"embedding_dim \(64\) less 64 for concepts must be a multiple of"),
        ({"text": {"trained_layers": 1}}, r"text.trained_layers \(1\) must be 0 with concepts"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.parse({**PACKAGED, **values})
