import numpy as np
import pytest
import torch
from torch.nn import functional

from image_finder.components.configs import HubnessConfig, ModelConfig
from image_finder.components.encoders.hubness import SCALE, HubnessCorrection, plain_vectors, with_extra_dims
from image_finder.components.training.trainer import untrained

DIM = 16


def unit(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n, DIM, generator=generator), dim=1)


def fitted(texts, images, **values):
    hubs = HubnessCorrection(DIM, HubnessConfig(centres=values.pop("centres", len(texts)), **values))
    hubs.fit(texts, images)
    return hubs


def test_without_a_bank_products_keep_their_order_and_rows_are_unit_vectors():
    images, texts = unit(30, 0), unit(20, 1)
    hubs = HubnessCorrection(DIM, HubnessConfig(centres=5))
    corrected, lifted = hubs(images), with_extra_dims(texts)
    assert corrected.shape == (30, DIM + 2)
    assert lifted.shape == (20, DIM + 2)
    for rows in (corrected, lifted):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    torch.testing.assert_close(lifted @ corrected.t(), SCALE * texts @ images.t())
    torch.testing.assert_close(plain_vectors(corrected), images)
    torch.testing.assert_close(plain_vectors(lifted), texts)


def test_the_score_is_the_cosine_less_the_nearness_to_the_bank():
    bank, images, texts = unit(40, 0), unit(30, 1), unit(20, 2)
    hubs = fitted(bank, images, strength=0.3, sharpness=4.0)
    near = np.log(np.exp(4.0 * (images @ bank.t()).double().numpy()).mean(axis=1)) / 4.0
    expected = (texts @ images.t()).double().numpy() - 0.3 * (near - near.mean())
    corrected = hubs(images)
    torch.testing.assert_close(corrected.norm(dim=1), torch.ones(30))
    scores = (with_extra_dims(texts) @ corrected.t()).numpy() / SCALE
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_hub_stands_back():
    axes = torch.eye(DIM)
    texts = axes[:8]
    images = 0.3 * texts + (1 - 0.3**2) ** 0.5 * axes[8:]  # each a little like its own text, and like no other
    gallery = torch.cat([images, texts.mean(dim=0, keepdim=True) * 8**0.5])  # the last is 0.35 near to every text
    assert ((texts @ gallery.t()).argmax(dim=1) == 8).all()
    corrected = with_extra_dims(texts) @ fitted(texts, gallery)(gallery).t()
    torch.testing.assert_close(corrected.argmax(dim=1), torch.arange(8))


def test_few_centres_stand_for_many_texts():
    topics = unit(12, 0)
    texts = functional.normalize(topics.repeat_interleave(100, dim=0) + 0.2 * unit(1200, 1), dim=1)
    images = unit(200, 2)
    whole, condensed = (fitted(texts, images, centres=k, sharpness=20.0) for k in (1200, 60))
    differences = (whole.bank_similarity(images) - condensed.bank_similarity(images)).abs()
    assert differences.max() < 0.02
    assert whole.bank_similarity(images).std() > 0.05


def test_more_centres_than_texts_and_an_extreme_image_are_borne():
    texts = unit(3, 0)
    hubs = fitted(texts, unit(50, 1), centres=10, strength=2.0)
    rows = hubs(torch.cat([texts, -texts]))
    assert torch.isfinite(rows).all()
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))
    same = fitted(texts, unit(50, 1), centres=3, strength=2.0)
    torch.testing.assert_close(hubs.bank_similarity(texts), same.bank_similarity(texts))


@pytest.mark.parametrize("centres", [0, 7])
def test_towers_end_in_the_configured_width_with_and_without(tiny_model, centres):
    assembled = untrained(ModelConfig.parse({**tiny_model, "hubness": {"centres": centres}}), 0)
    model = assembled.model.eval()
    size = assembled.preprocess.input_px
    with torch.no_grad():
        images = model.encode_image(torch.randint(0, 255, (3, size, size, 3), dtype=torch.uint8))
        texts = model.encode_text(torch.tensor([[101, 3899, 102]]), torch.ones(1, 3, dtype=torch.int64))
    assert images.shape == (3, tiny_model["embedding_dim"])
    assert texts.shape == (1, tiny_model["embedding_dim"])
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    assert ("image_tower.hubness.centres" in model.state_dict()) == bool(centres)
