"""Learning-rate schedule by hand."""

import math

import pytest

from image_finder.components.training.optimization import rate_factor


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (6, 0.5 * (1 + math.cos(math.pi / 4))), (8, 0.5), (11, 0.0380602)],
)
def test_four_steps_up_then_a_cosine_over_eight(step, factor):
    assert rate_factor(step, total_steps=12, warmup_steps=4) == pytest.approx(factor, abs=1e-6)


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert rate_factor(0, total_steps=10, warmup_steps=0) == 1.0


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (2, 1), (7, 6), (500, 50)])
def test_every_step_moves_and_the_rate_falls_after_the_warm_up(total, warmup):
    factors = [rate_factor(step, total_steps=total, warmup_steps=warmup) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
