"""Image tower: cuts, freezing, norms."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from image_finder.components.configs import ModelConfig
from image_finder.components.encoders.image_tower import ImageTower
from image_finder.components.errors import ConfigError

VARIANTS = ("whole", "mirrored", "centre")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def config(stages, **image):
    values = {"trunk": "test_efficientnet", "input_px": 64, "pool_width": 32, "pool_heads": 4, "trained_stages": stages}
    return ModelConfig.parse({"image": {**values, **image}, "embedding_dim": 16, "dropout": 0.5})


def tower(stages, **image):
    """The same weights whatever the cut: trunk and heads are drawn by separate seeds."""
    torch.manual_seed(0)
    trunk = timm.create_model(image.get("trunk", "test_efficientnet"))
    assert isinstance(trunk, timm.models.EfficientNet)
    for module in trunk.modules():  # statistics that differ from the initial 0 and 1, so that forgetting them shows
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    torch.manual_seed(1)
    return ImageTower(trunk.eval(), MEAN, STD, config(stages, **image)), trunk


@pytest.mark.parametrize("stages", [0, 1, 2, 5, 9, "all"])
def test_wherever_the_trunk_is_cut_the_embedding_is_that_of_the_uncut_trunk(stages, pixels):
    cut, trunk = tower(stages)
    cut.eval()
    x = torch.from_numpy(pixels)
    with torch.no_grad():
        vectors, attention = cut(x)
        normalised = (x.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        grid = trunk.forward_features(normalised)  # timm's own path through the trunk
        tokens = grid.flatten(2).transpose(1, 2)
        (head,) = cut.heads
        pooled, shares = head.pool(tokens)
        expected = head.projection(head.norm(pooled + head.residual(tokens.mean(dim=1))))
    torch.testing.assert_close(vectors, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(attention.flatten(1), shares, atol=1e-5, rtol=1e-4)
    assert attention.shape[1:] == grid.shape[2:]


@pytest.mark.parametrize("stages", [0, 1, "all"])
def test_cached_features_and_pixels_give_the_same_embedding(stages, pixels):
    cut = tower(stages)[0].eval()
    x = torch.from_numpy(pixels)
    with torch.no_grad():
        torch.testing.assert_close(cut.embed_features(cut.features(x))[0], cut(x)[0])


def test_vectors_are_of_unit_length_and_do_not_depend_on_their_batch(pixels):
    cut = tower(1)[0].eval()
    x = torch.from_numpy(pixels)
    with torch.no_grad():
        together = cut(x)[0]
        alone = torch.cat([cut(x[i : i + 1])[0] for i in range(len(x))])
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(x)))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-4, "different images have different vectors"


def test_tta_averages_the_variants_vectors_and_keeps_the_whole_images_attention():
    colours = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    whole = Image.fromarray(colours).resize((64, 64), Image.Resampling.BILINEAR)
    mirrored = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    centre = whole.crop((10, 10, 54, 54)).resize((64, 64), Image.Resampling.BILINEAR)  # 44 of 64: 0.7
    seen = torch.from_numpy(np.stack([np.asarray(each) for each in (whole, mirrored, centre)]))
    with torch.no_grad():
        one, shares = tower(1)[0].eval()(seen)
        for tta, rows in ((("whole", "mirrored"), [0, 1]), (("whole", "centre"), [0, 2]), (VARIANTS, [0, 1, 2])):
            several = tower(1, tta=tta)[0].eval()
            vectors, attention = several(seen[[0, 2]])
            expected = torch.nn.functional.normalize(one[rows].mean(dim=0), dim=0)
            torch.testing.assert_close(vectors[0], expected, atol=1e-4, rtol=0)
            torch.testing.assert_close(attention, shares[[0, 2]], atol=1e-5, rtol=1e-4)
            assert (vectors[0] - one[0]).abs().max() > 1e-3, "the other variants count"
            torch.testing.assert_close(
                vectors, torch.cat([several(seen[[row]])[0] for row in (0, 2)]), atol=1e-5, rtol=0
            )


@pytest.mark.parametrize(
    "tta", [[], ["centre"], ["mirrored", "whole"], ["whole", "centre", "centre"], ["whole", "left"]]
)
def test_tta_without_the_whole_image_or_with_repeats_is_refused(tta):
    with pytest.raises(ConfigError, match="tta"):
        config(1, tta=tta)


def changed_by_a_step(model, forward):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    forward(model).square().mean(dim=0).sum().mul(-1).add(forward(model)[:, 0].sum()).backward()
    optimizer.step()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def trunk_part(name):
    return name.startswith(("stem.", "tails."))


def test_with_heads_only_a_step_leaves_the_trunk_and_its_statistics_alone(pixels):
    cut, _ = tower(0)
    changed = changed_by_a_step(cut, lambda m: m(torch.from_numpy(pixels))[0])
    assert not {name for name in changed if trunk_part(name)}
    heads = {"pool.positions", "pool.query.weight", "projection.linear.weight", "residual.weight"}
    assert {f"heads.0.{name}" for name in heads} <= changed


def test_with_a_trained_stage_a_step_changes_it_but_no_statistics_and_no_earlier_stage(pixels):
    cut, _ = tower(1)
    changed = changed_by_a_step(cut, lambda m: m(torch.from_numpy(pixels))[0])
    assert not {name for name in changed if name.startswith("stem.")}
    assert not {name for name in changed if "running" in name or "num_batches" in name}
    learned = {name for name, _ in cut.named_parameters() if name.startswith("tails.")}
    assert learned
    assert learned <= changed


def test_a_whole_trunk_learns_with_its_statistics(pixels):
    cut, _ = tower("all")
    changed = changed_by_a_step(cut, lambda m: m(torch.from_numpy(pixels))[0])
    assert {name for name in cut.state_dict() if "running_mean" in name} <= changed
    assert {name for name, _ in cut.named_parameters() if name.startswith("tails.")} <= changed
    assert not [name for name in cut.state_dict() if name.startswith("stem.layers")]


@pytest.mark.parametrize(("px", "side"), [(64, 2), (100, 4), (97, 4)])
def test_positions_fit_the_grid_of_any_input_size(px, side):
    cut, _ = tower(0, input_px=px)
    with torch.no_grad():
        _, attention = cut.eval()(torch.zeros(1, px, px, 3, dtype=torch.uint8))
    assert attention.shape == (1, side, side)
