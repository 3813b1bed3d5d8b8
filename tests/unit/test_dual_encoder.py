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
    assert not torch.equal(first["image_tower.pool.positions"], other["image_tower.pool.positions"])


def test_texts_longer_than_the_trunks_positions_are_refused_at_once(tiny_model):
    values = {**tiny_model, "text": {**tiny_model["text"], "max_tokens": 65}}
    with pytest.raises(ConfigError, match=r"^text.max_tokens \(65\) must not be above the 64 positions of"):
        assemble(ModelConfig.parse(values))
