"""The SGD update of the emulated device: its formulas, and the CPU's bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_arrays import FLOATS, placed, places, same_bits
from cuda_device import orders
from tinygrad_nm import _cpu

device = cuda_device.device
LR, MOMENTUM = 0.1, 0.9


@dataclass(frozen=True)
class Rule:
    velocity: bool
    lr_in_velocity: bool
    nesterov: bool
    weight_decay: float

    def __call__(self, device: Any, weight: np.ndarray, gradient: np.ndarray, velocity: np.ndarray) -> None:
        state, momentum = (velocity, MOMENTUM) if self.velocity else (None, 0.0)
        options = (LR, momentum, self.weight_decay, self.nesterov, self.lr_in_velocity)
        device.sgd_update(weight, gradient, state, *options)

    def formula(self, w: np.ndarray, g: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the step gives, as csrc/shared/sgd.h is written, in float64; the options are those of the kernel."""
        lr, momentum, decay = (float(w.dtype.type(o)) for o in (LR, MOMENTUM, self.weight_decay))
        w, g, v = w.astype(float), g.astype(float), v.astype(float)
        d = g + decay * w
        if not self.velocity:
            return w - lr * d, v
        push = lr * d if self.lr_in_velocity else d
        v = momentum * v + push
        step = momentum * v + push if self.nesterov else v
        return w - (step if self.lr_in_velocity else lr * step), v


RULES = [
    Rule(velocity, inside, nesterov, decay)
    for velocity, inside, nesterov in [
        (False, False, False),
        *[(True, i, n) for i in (False, True) for n in (False, True)],
    ]
    for decay in (0.0, 5e-4)
]
rules = pytest.mark.parametrize("rule", RULES, ids=repr)
floats = pytest.mark.parametrize("dtype", FLOATS)


def state(n: int, dtype: type) -> list[np.ndarray]:
    i = np.arange(n)
    return [np.sin(i).astype(dtype), np.cos(3 * i).astype(dtype), (np.sin(7 * i) / 2).astype(dtype)]


@floats
@rules
def test_formulas_and_bits_of_the_cpu(device: Any, rule: Rule, dtype: type) -> None:
    n = 2053
    start, expected = state(n, dtype), state(n, dtype)
    rule(_cpu, *expected)
    for _ in orders(device):
        got = state(n, dtype)
        rule(device, *got)
        for a, b in zip(got, expected):
            assert same_bits(a, b)
    for a, b in zip((got[0], got[2]), rule.formula(*start)):
        assert abs(a - b).max() <= 4 * np.finfo(dtype).eps


@floats
@pytest.mark.parametrize("rule", [RULES[1], RULES[-1]], ids=repr)
def test_results_do_not_depend_on_the_place(device: Any, rule: Rule, dtype: type) -> None:
    """Every length around a tile, on 16 bytes and off them; the strict device sees what is beside the arrays."""
    whole = state(2100, dtype)
    rule(device, *whole)
    start = state(2100, dtype)
    for n, offsets in places(3):
        part = [placed(a[:n], at) for a, at in zip(start, offsets)]
        rule(device, *part)
        for a, b in zip(part, whole):
            assert same_bits(a, b[:n]), (n, offsets)


@rules
def test_nan_stays_where_it_is_and_subnormals_are_kept(device: Any, rule: Rule) -> None:
    weight, gradient, velocity = state(20, np.float32)
    gradient[3] = np.nan
    weight[5], gradient[5], velocity[5] = 3e-41, 0, 0
    rule(device, weight, gradient, velocity)
    assert np.flatnonzero(np.isnan(weight)).tolist() == [3]
    assert 2.9e-41 < weight[5] < 3.1e-41
