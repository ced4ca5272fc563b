"""Local response normalisation on the emulated CUDA device against plain loops in float64, and against the CPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_device import orders
from tinygrad_nm import _cpu

device = cuda_device.device


@dataclasses.dataclass(frozen=True)
class Norm:
    shape: tuple[int, int, int]  # examples, channels, plane
    size: int
    groups: int = 1
    alpha: float = 0.3
    beta: float = 0.75
    k: float = 1.5

    @property
    def parameters(self) -> tuple[Any, ...]:
        return self.size, self.alpha, self.beta, self.k, False, self.groups

    def sees(self) -> np.ndarray:
        """[c, j]: whether the window of channel c has channel j."""
        c, j = np.indices((self.shape[1], self.shape[1]))
        width = self.shape[1] // self.groups
        return (j // width == c // width) & (j >= c - self.size // 2) & (j <= c + (self.size - 1) // 2)

    def draw(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.size + 10 * self.groups + self.shape[2])
        return rng.standard_normal(self.shape).astype(dtype), rng.standard_normal(self.shape).astype(dtype)

    def forward(self, device: Any, x: np.ndarray) -> np.ndarray:
        out = np.full_like(x, 77)
        device.local_response_norm_forward(out, x, *self.parameters)
        return out

    def backward(self, device: Any, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        out = np.full_like(x, 77)
        device.local_response_norm_backward(out, dy, x, *self.parameters)
        return out

    def by_loops(self, dy: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The value, the gradient, and the sum of the sizes of the gradient's terms."""
        dy, x, sees = dy.astype(np.float64), x.astype(np.float64), self.sees()
        d = self.k + self.alpha * np.array([[(plane[s] ** 2).sum(0) for s in sees] for plane in x])
        term = dy * x * d ** (-self.beta - 1)
        factor = -2 * self.alpha * self.beta * x
        through, through_size = np.empty_like(x), np.empty_like(x)
        for i in range(self.shape[1]):
            through[:, i] = factor[:, i] * term[:, sees[:, i]].sum(1)
            through_size[:, i] = np.abs(factor[:, i]) * np.abs(term[:, sees[:, i]]).sum(1)
        direct = dy * d**-self.beta
        return x * d**-self.beta, direct + through, np.abs(direct) + through_size


# Windows at, below and above the constant one, wider than their group, rings of odd sizes and in memory; batches of 4
# channels cut by the end; planes of part of a block and of several; beta with and without its own formula.
NORMS = [
    Norm((2, 6, 3), 1),
    Norm((2, 7, 8), 2, beta=0.5),
    Norm((1, 9, 17), 3),
    Norm((2, 12, 5), 4, groups=2, beta=1.0),
    Norm((1, 1, 1), 5),
    Norm((2, 3, 1), 5, beta=0.61),
    Norm((2, 4, 33), 5),
    Norm((1, 13, 31), 5, beta=0.5),
    Norm((3, 15, 2), 5, groups=3),
    Norm((1, 6, 257), 5),
    Norm((1, 6, 70), 6, groups=6),
    Norm((2, 6, 4), 8),
    Norm((1, 11, 3), 20, groups=1, beta=0.61),
    Norm((1, 12, 3), 1000, groups=2),
    Norm((1, 60, 3), 7),  # several pieces
    Norm((1, 100, 2), 5, groups=2),
    Norm((2, 64, 3), 61),  # rings in memory
    Norm((1, 45, 130), 43),  # of several blocks
    Norm((1, 150, 2), 149),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_values_and_gradients(device: Any, norm: Norm, dtype: Any) -> None:
    x, dy = norm.draw(dtype)
    value, gradient, size = norm.by_loops(dy, x)
    eps = np.finfo(dtype).eps
    window = min(norm.size, norm.shape[1] // norm.groups)  # rounding errors of n squares grow more slowly than n
    assert (np.abs(norm.forward(device, x) - value) <= (3 + window / 8) * eps * np.abs(value)).all()
    assert (np.abs(norm.backward(device, dy, x) - gradient) <= (4 + window / 8) * eps * size).all()


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_values_are_those_of_the_cpu_to_the_last_places(device: Any, norm: Norm) -> None:
    x, _ = norm.draw(np.float32)
    np.testing.assert_array_max_ulp(norm.forward(device, x), norm.forward(_cpu, x), 6)


@pytest.mark.parametrize("norm", [Norm((2, 13, 9), 5), Norm((1, 60, 3), 4), Norm((1, 64, 3), 61)], ids=str)
def test_any_order_of_blocks_and_threads_gives_the_same_bits(device: Any, norm: Norm) -> None:
    x, dy = norm.draw(np.float64)
    results = [(norm.forward(device, x), norm.backward(device, dy, x)) for _ in orders(device)]
    assert len(results) == 3
    for y, dx in results[1:]:
        np.testing.assert_array_equal(y, results[0][0])
        np.testing.assert_array_equal(dx, results[0][1])


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_windows(device: Any, bad: float, beta: float, size: int) -> None:
    norm = Norm((1, 24, 3), size, groups=2, beta=beta)
    x, dy = norm.draw(np.float32)
    x[0, 10, 1] = bad  # of the group of channels 0 to 11
    y, dx = norm.forward(device, x), norm.backward(device, dy, x)
    sees = norm.sees()
    np.testing.assert_array_equal(np.isnan(y[0, :, 1]), sees[:, 10] if np.isnan(bad) else np.arange(24) == 10)
    if np.isinf(bad):  # 1 / infinity in the others of its window
        assert (y[0, sees[:, 10] & (np.arange(24) != 10), 1] == 0).all()
    assert not np.isnan(y[0, :, [0, 2]]).any() and not np.isnan(dx[0, :, [0, 2]]).any()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(norm.forward(_cpu, x)))
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(norm.backward(_cpu, dy, x)))


def test_a_window_without_its_sum_is_the_number_itself(device: Any) -> None:
    norm = Norm((1, 6, 5), 5, alpha=0.0, k=1.0)
    x, dy = norm.draw(np.float32)
    x[0, 0, 0] = -0.0
    assert norm.forward(device, x).tobytes() == x.tobytes()
    np.testing.assert_array_equal(norm.backward(device, dy, x), dy)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 4, 0)], ids=str)
def test_empty(device: Any, shape: tuple[int, int, int]) -> None:
    norm = Norm(shape, 5)
    x = np.ones(shape, np.float32)
    assert norm.forward(device, x).size == 0
    assert norm.backward(device, x, x).size == 0
