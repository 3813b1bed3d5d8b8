"""Optimisation: AdamW parameter groups, learning-rate schedule and moving average of the weights."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from image_finder.components.configs import TrainingConfig


def rate_factor(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Factor of the peak learning rate, in (0, 1]: linear warm-up, then a cosine to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def adamw(model: nn.Module, config: TrainingConfig, *, fused: bool) -> torch.optim.AdamW:
    """AdamW with peak rates ("peak") for heads and trunks, with and without weight decay.

    Biases, norms and positions have no weight decay.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (trunk, plain): [] for trunk in (False, True) for plain in (False, True)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trunk = ".stem." in name or ".tails." in name
            plain = parameter.ndim < 2 or name.endswith("positions")
            groups[trunk, plain].append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": 0.0,
                "peak": config.trunk_rate if trunk else config.head_rate,
                "weight_decay": 0.0 if plain else config.weight_decay,
            }
            for (trunk, plain), parameters in groups.items()
        ],
        fused=fused,
    )


def moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Update of AveragedModel; torch's own also averages integers, which turns 7 into 6."""

    @torch.no_grad()
    def update(averages: Sequence[Tensor], currents: Sequence[Tensor], _: Tensor | int) -> None:
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current, 1 - decay)
            else:
                average.copy_(current)

    return update
