"""Folded batch norms: same results and gradients as the modules' own, with less memory, and undone afterwards."""

import copy
from typing import cast

import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from image_finder.components.encoders.folded_norms import folded_norms

TRUNKS = ("tf_efficientnet_lite0", "tf_efficientnet_b0", "efficientnetv2_rw_t")  # ReLU6; SiLU; fused blocks


def _stages(trunk: str) -> nn.Sequential:
    """The last two stages with statistics as those of a trained trunk, in evaluation mode."""
    torch.manual_seed(0)
    model = cast("EfficientNet", timm.create_model(trunk))
    stages = nn.Sequential(*list(model.blocks)[-2:], model.conv_head, model.bn2)
    for module in stages.modules():
        if isinstance(module, BatchNormAct2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 3)  # so that ReLU6 cuts at both ends
            module.momentum = 1.0
    with torch.no_grad():
        stages.train()(_input(stages))
    return stages.eval()


def _input(stages: nn.Sequential) -> Tensor:
    channels = next(module for module in stages.modules() if isinstance(module, nn.Conv2d)).in_channels
    return torch.randn(3, channels, 9, 9, generator=torch.Generator().manual_seed(1))


def _gradients(stages: nn.Sequential, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    stages.zero_grad()
    y = stages(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return y.detach(), {name: each.grad.clone() for name, each in stages.named_parameters()}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_results_and_gradients_are_those_of_the_modules(trunk: str) -> None:
    stages = _stages(trunk)
    x = _input(stages)
    expected, expected_gradients = _gradients(stages, x)
    with folded_norms(stages):
        found, gradients = _gradients(stages, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        scale = float(expected_gradients[name].abs().max())
        assert float((gradient - expected_gradients[name]).abs().max()) <= 1e-3 * scale, name


def test_every_norm_is_folded_and_unfolded_again() -> None:
    stages = _stages("tf_efficientnet_lite0")
    x, calls = _input(stages), []
    expected = stages(x)
    for module in stages.modules():
        if isinstance(module, nn.ReLU6):
            module.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(KeyError), folded_norms(stages):
        stages(x)
        assert not calls
        raise KeyError
    assert torch.equal(stages(x), expected)
    assert calls
    assert not any("forward" in vars(module) for module in stages.modules())


def test_a_copy_made_before_keeps_its_own_norms() -> None:
    stages = _stages("tf_efficientnet_lite0")
    average, x = copy.deepcopy(stages), _input(stages)
    with folded_norms(stages), torch.no_grad():
        for parameter in stages.parameters():
            parameter.zero_()
        assert not stages(x).any()
        assert average(x).any()


def test_less_is_kept_for_the_backward_pass() -> None:
    stages = _stages("tf_efficientnet_lite0")
    x = _input(stages)
    plain = _kept_bytes(stages, x)
    with folded_norms(stages):
        assert _kept_bytes(stages, x) < 0.5 * plain


def _kept_bytes(stages: nn.Sequential, x: Tensor) -> int:
    """Bytes of the activations that a forward pass keeps."""
    weights = {each.untyped_storage().data_ptr() for each in stages.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.ndim == 4 and tensor.shape[0] == len(x) and storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = stages(x)
    assert y.requires_grad
    return sum(kept.values())
