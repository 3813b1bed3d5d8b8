"""Learning-rate schedule: linear warm-up, then a cosine to zero; pure."""

import math


def rate_factor(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Factor of the peak rate at optimizer step `step` (from 0), in (0, 1]."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))
