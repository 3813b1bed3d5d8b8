"""Frozen batch norms folded into their convolutions during training: the same function with fewer passes over memory.

A batch norm with frozen statistics is a scale and a shift per channel. The scale moves into the convolution's weights,
the shift and the activation are one operation on the convolution's output. Gradients still reach all parameters.

A ReLU6 done in place by torch copies its input for the backward pass. Its output says as much: the gradient is zero
where the output is 0 or 6. Only that is stored, as in in-place activated batch norm (Rota Bulo et al. 2018).
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from timm.layers.conv2d_same import Conv2dSame, conv2d_same
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional

_LOWEST, _HIGHEST = 0.0, 6.0


class _ShiftedReLU6(torch.autograd.Function):
    """min(max(x + shift, 0), 6) of x (N, C, H, W) and shift (C,), written over x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor) -> Tensor:  # noqa: ANN401 - torch's context has no type
        y = x.add_(shift[:, None, None]).clamp_(_LOWEST, _HIGHEST)
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        ctx.dtype = shift.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        (y,) = ctx.saved_tensors
        gradient = torch.ops.aten.hardtanh_backward(gradients[0], y, _LOWEST, _HIGHEST)
        return gradient, gradient.sum((0, 2, 3), dtype=ctx.dtype)


@contextlib.contextmanager
def folded_norms(root: nn.Module) -> Iterator[None]:
    """Inside the with statement, each convolution below root computes the frozen batch norm that follows it.

    The batch norms must be in evaluation mode. Parameters, their names and the results stay the same.
    """
    folded = [
        (first, second)
        for module in root.modules()
        for first, second in pairwise(module.children())
        if isinstance(first, nn.Conv2d) and first.bias is None and isinstance(second, BatchNormAct2d)
    ]
    for convolution, norm in folded:
        vars(convolution)["forward"] = partial(_convolved, convolution, norm)
        vars(norm)["forward"] = _unchanged
    try:
        yield
    finally:
        for module in (module for pair in folded for module in pair):
            del vars(module)["forward"]


def _convolved(convolution: nn.Conv2d, norm: BatchNormAct2d, x: Tensor) -> Tensor:
    mean, variance = (cast("Tensor", each) for each in (norm.running_mean, norm.running_var))
    scale = norm.weight * (variance + norm.eps).rsqrt()
    shift = norm.bias - mean * scale
    convolve = conv2d_same if isinstance(convolution, Conv2dSame) else functional.conv2d
    settings: Any = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
    # The shift is not given to the convolution as its bias: oneDNN then takes a quarter longer for the backward pass.
    y: Tensor = convolve(x, convolution.weight * scale[:, None, None, None], None, *settings)
    if isinstance(norm.act, nn.ReLU6):
        return cast("Tensor", _ShiftedReLU6.apply(y, shift))
    return cast("Tensor", norm.act(norm.drop(y + shift[:, None, None])))


def _unchanged(x: Tensor) -> Tensor:
    return x
