"""Dual encoder: both towers in one space, and what a config must fit to."""

import pytest
import torch

from components.configs import ModelConfig
from components.encoders.dual_encoder import assemble
from components.errors import ConfigError
from components.training.trainer import untrained


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


@pytest.mark.parametrize("centres", [0, 3])
def test_heads_stand_side_by_side_and_the_mean_of_their_cosines_is_that_of_the_whole(tiny_model, pixels, centres):
    values = {**tiny_model, "heads": 3, "embedding_dim": 24 + (2 if centres else 0), "hubs": {"centres": centres}}
    model, _, tokenizer = untrained(ModelConfig.parse(values), 0)
    tokens = tokenizer(["a red circle", "two dogs in the snow"])
    with torch.no_grad():
        images = model.eval().encode_image(torch.from_numpy(pixels))
        texts = model.encode_text(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask))
    pairs = model.by_head(images, texts)
    assert len(pairs) == 3
    lengths = {round(float(vector.norm()), 4) for pair in pairs for each in pair for vector in each}
    assert len(lengths) == (2 if centres else 1), "of pictures and of texts, which a correction shortens differently"
    mean = sum(i @ t.t() for i, t in pairs) / 3
    whole = images[:, : model.image_tower.plain_dim] @ texts[:, : model.image_tower.plain_dim].t()
    torch.testing.assert_close(mean, whole)
    assert not torch.allclose(pairs[0][0], pairs[1][0], atol=1e-2), "drawn each for itself"


def test_a_space_that_heads_cannot_share_is_refused(tiny_model):
    with pytest.raises(ConfigError, match=r"embedding_dim \(256\) less 2 of the hub correction must be a multiple of"):
        ModelConfig.parse({**tiny_model, "embedding_dim": 256, "hubs": {"centres": 8}, "heads": 3})


def test_a_head_learns_from_its_own_loss_alone(tiny_model, pixels):
    model, _, tokenizer = untrained(ModelConfig.parse({**tiny_model, "heads": 2, "embedding_dim": 16}), 0)
    tokens = tokenizer(["a red circle", "two dogs in the snow"])
    images = model.encode_image(torch.from_numpy(pixels))
    texts = model.encode_text(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask))
    first, _ = model.by_head(images, texts)
    model.logits(*first).square().sum().backward()
    for tower in (model.image_tower, model.text_tower):
        learned = [any(p.grad is not None and p.grad.any() for p in head.parameters()) for head in tower.heads]
        assert learned == [True, False]
