"""Dual encoder: both towers in one space, and what a config must fit to."""

import pytest
import torch

from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.dual_encoder import assemble
from image_finder.components.errors import ConfigError
from image_finder.components.training.trainer import untrained


def test_logits_are_scaled_cosines(tiny_assembled, pixels):
    model, _, tokenizer = tiny_assembled
    tokens = tokenizer(["a red circle", "two dogs in the snow"])
    with torch.no_grad():
        images = model.eval().encode_image(torch.from_numpy(pixels))
        texts = model.encode_text(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask))
        logits = model.logits(images, texts)
    cosines = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1)
    torch.testing.assert_close(logits, cosines / 0.07, atol=1e-4, rtol=1e-4)


def test_one_seed_draws_one_model(tiny_model):
    config = ModelConfig.parse(tiny_model)
    first, second, other = (untrained(config, seed).model.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["image_tower.heads.0.pool.positions"], other["image_tower.heads.0.pool.positions"])


def test_texts_longer_than_the_trunks_positions_are_refused_at_once(tiny_model):
    values = {**tiny_model, "text": {**tiny_model["text"], "max_tokens": 65}}
    with pytest.raises(ConfigError, match=r"^text.max_tokens \(65\) must not be above the 64 positions of"):
        assemble(ModelConfig.parse(values))


@pytest.mark.parametrize("own_tails", [False, True])
@pytest.mark.parametrize("centres", [0, 3])
def test_the_product_of_whole_vectors_is_the_mean_of_the_heads_cosines(tiny_model, pixels, centres, own_tails):
    model, _, tokenizer = untrained(ModelConfig.parse(of_heads(tiny_model, 3, centres, own_tails=own_tails)), 0)
    tokens = tokenizer(["a red circle", "two dogs in the snow"])
    ids, mask, x = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask), torch.from_numpy(pixels)
    image, text = model.eval().image_tower, model.text_tower
    with torch.no_grad():
        whole = model.encode_image(x) @ model.encode_text(ids, mask).t()
        features = image.features(x)
        images = [v for tail in range(len(image.tails)) for v in image.branch(features, tail).vectors]
        texts = text.head_vectors(text.features(ids, mask), mask, range(3))
    assert len(image.tails) == (3 if own_tails else 1)
    for vectors in (*images, *texts):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    mean = sum(i @ t.t() for i, t in zip(images, texts, strict=True)) / 3
    offset = whole - model.product_scale * mean  # what an unlearned correction adds to all products alike
    torch.testing.assert_close(offset, offset[:1, :1].expand_as(offset), atol=1e-6, rtol=0)
    assert centres or offset.abs().max() < 1e-6
    assert not torch.allclose(images[0], images[1], atol=1e-2), "drawn each for itself"


def of_heads(tiny_model, heads, centres=0, *, own_tails=False):
    image = {**tiny_model["image"], "trained_stages": 1, "own_tails": own_tails}
    width = 8 * heads + (2 if centres else 0)
    return {
        **tiny_model,
        "image": image,
        "ensemble_heads": heads,
        "embedding_dim": width,
        "hubness": {"centres": centres},
    }


def test_a_space_that_heads_cannot_share_is_refused(tiny_model):
    with pytest.raises(ConfigError, match=r"embedding_dim \(256\) less 2 for hubness must be a multiple of"):
        ModelConfig.parse({**tiny_model, "embedding_dim": 256, "hubness": {"centres": 8}, "ensemble_heads": 3})


def test_a_head_and_its_own_tail_learn_from_its_loss_alone(tiny_model, pixels):
    model, _, tokenizer = untrained(ModelConfig.parse(of_heads(tiny_model, 2, own_tails=True)), 0)
    tokens = tokenizer(["a red circle", "two dogs in the snow"])
    ids, mask = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask)
    image, text = model.image_tower, model.text_tower
    (images,) = image.branch(image.features(torch.from_numpy(pixels)), 1).vectors
    (texts,) = text.head_vectors(text.features(ids, mask), mask, image.heads_of(1))
    model.logits(images, texts).square().sum().backward()
    for parts in (image.heads, image.tails, text.heads):
        assert [any(p.grad is not None and p.grad.any() for p in part.parameters()) for part in parts] == [False, True]
