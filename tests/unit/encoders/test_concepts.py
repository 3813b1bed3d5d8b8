"""Concept branch: classes and texts in one space by name, joined to the trained vectors with a fixed weight."""

from typing import cast

import pytest
import timm
import torch
from timm.models.efficientnet import EfficientNet
from torch import nn
from torch.nn import functional

from image_finder.components.configs import ConceptsConfig, ModelConfig
from image_finder.components.encoders.concepts import ImageConcepts, class_names, joined
from image_finder.components.encoders.dual_encoder import Assembled
from image_finder.components.errors import ConfigError
from image_finder.components.training.trainer import untrained

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
    concepts = ImageConcepts(nn.Linear(4, 3), ConceptsConfig(dims=2, temperature=2.0))
    concepts.names.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, -1]]))
    logits = 2 * torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2]]).log()
    expected = functional.normalize(torch.tensor([[0.25, 0.0], [0.0, 0.4]]), dim=1)
    torch.testing.assert_close(concepts(logits), expected)


def test_products_are_those_of_the_heads_and_of_the_concepts_with_their_weight(packaged: Assembled) -> None:
    model = packaged.model.eval()
    pixels = torch.randint(0, 255, (3, 64, 64, 3), dtype=torch.uint8)
    tokens = packaged.tokenizer(["a goldfish", "two lions"])
    ids, mask = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask)
    image, text = model.image_tower, model.text_tower
    assert image.concepts is not None
    with torch.no_grad():
        images, texts = model.encode_image(pixels), model.encode_text(ids, mask)
        branch = image.branch(image.features(pixels), 0)
        learned = branch.vectors[0] @ text.head_vectors(text.features(ids, mask), mask, range(1))[0].t()
        concepts = image.concepts(branch.class_logits) @ _concepts(packaged, ["a goldfish", "two lions"]).t()
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    assert model.product_scale == 1 / 1.5
    torch.testing.assert_close(images @ texts.t(), (learned + 0.5 * concepts) / 1.5, atol=1e-5, rtol=0)


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
