"""Softmax-cross-entropy of the emulated device against long double, in every mapping of rows to threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_arrays import FLOATS, same_bits
from cuda_device import orders
from tinygrad_nm import _cpu

device = cuda_device.device
floats = pytest.mark.parametrize("dtype", FLOATS)
Real = np.longdouble
IGNORED = -100
INT64 = np.iinfo(np.int64)
# One shape (examples, classes, positions) for each mapping: a part of a warp, a warp, a block of 256 and of 1024;
# threads along the positions, alone and eight to a row.
MAPPINGS = [(5, 10, 1), (3, 40, 3), (2, 600, 1), (1, 8200, 1), (2, 7, 20), (2, 70, 17)]
# Around every edge of the choice of a mapping, and of a block's number of rows.
EDGES = [
    *[(4, classes, 1) for classes in (1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 65)],
    *[(examples, 3, 1) for examples in (15, 16, 17, 33)],
    *[(examples, 18, 1) for examples in (4, 5)],
    *[(2, 5, positions) for positions in (2, 15, 16, 17)],
    *[(1, 3, positions) for positions in (127, 128, 129)],
    *[(1, 66, positions) for positions in (31, 32, 33)],
    *[(1, classes, 16) for classes in (1, 64, 65, 72, 73, 512, 520, 1030)],
    *[(1, classes, 1) for classes in (512, 513, 8192, 8193)],
]


@dataclass(frozen=True)
class Problem:
    logits: np.ndarray  # (N, C, S)
    labels: np.ndarray  # (N, S)
    dloss: np.ndarray

    def forward(self, device: Any, ignore_index: int = IGNORED) -> np.ndarray:
        out = np.empty(self.labels.shape, self.logits.dtype)
        device.softmax_cross_entropy_forward(out, self.logits, self.labels, ignore_index)
        return out

    def backward(self, device: Any, ignore_index: int = IGNORED) -> np.ndarray:
        out = np.empty_like(self.logits)
        device.softmax_cross_entropy_backward(out, self.dloss, self.logits, self.labels, ignore_index)
        return out


def problem(shape: tuple[int, int, int], dtype: type, scale: float = 1.0, seed: int = 0) -> Problem:
    examples, classes, positions = shape
    generator = np.random.default_rng([seed, *shape])
    labels = generator.integers(classes, size=(examples, positions))
    labels.reshape(-1)[3::5] = IGNORED
    return Problem(
        (scale * generator.standard_normal(shape)).astype(dtype),
        labels,
        generator.standard_normal(labels.shape).astype(dtype),
    )


def check(p: Problem, loss: np.ndarray, gradient: np.ndarray) -> None:
    """All errors are relative, also those of tiny losses and of gradients at sure labels: some roundings, and that of a
    difference of logits, up to 100 here, in an exponent."""
    info = np.finfo(loss.dtype)
    bound, subnormal = 100 * Real(info.eps), 4 * Real(info.smallest_subnormal)
    kept = p.labels != IGNORED
    assert (loss[~kept] == 0).all()
    label = np.where(kept, p.labels, 0)[:, None, :]
    x = p.logits.astype(Real)
    others = np.arange(x.shape[1])[None, :, None] != label
    at_label = np.take_along_axis(x, label, 1)
    expected = np.log1p((np.exp(x - at_label) * others).sum(1))
    assert (abs(loss - expected) <= bound * expected)[kept].all()
    e = np.exp(x - x.max(1, keepdims=True))
    without = (e * others).sum(1, keepdims=True)  # the label's softmax - 1, from the other classes
    softmax = np.where(others, e, -without) / e.sum(1, keepdims=True)
    expected = np.where(kept[:, None, :], p.dloss[:, None, :] * softmax, 0)
    assert (abs(gradient - expected) <= bound * abs(expected) + subnormal).all()


@floats
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_values_and_gradients(device: Any, shape: tuple[int, int, int], dtype: type) -> None:
    for scale in (0.0, 1.0, 15.0):
        p = problem(shape, dtype, scale)
        check(p, p.forward(device), p.backward(device))


@floats
@pytest.mark.parametrize("shape", MAPPINGS, ids=str)
def test_the_order_of_blocks_and_threads_does_not_matter(device: Any, shape: tuple[int, int, int], dtype: type) -> None:
    p = problem(shape, dtype)
    loss, gradient = p.forward(device), p.backward(device)
    check(p, loss, gradient)
    for _ in orders(device):
        assert same_bits(p.forward(device), loss)
        assert same_bits(p.backward(device), gradient)


def test_a_sum_over_many_classes_keeps_its_digits(device: Any) -> None:
    for shape in [(1, 30007, 1), (1, 5003, 16)]:
        p = problem(shape, np.float32)
        x = p.logits.astype(Real)[0, :, 0]
        expected = np.log(np.exp(x - x[p.labels[0, 0]]).sum())
        assert abs(p.forward(device)[0, 0] - expected) < 2e-6 * expected
        assert abs(p.backward(device)[0, :, 0].astype(float).sum()) < 1e-5


@floats
@pytest.mark.parametrize("shape", MAPPINGS, ids=str)
def test_a_label_that_is_no_class_gives_nan(device: Any, shape: tuple[int, int, int], dtype: type) -> None:
    p = problem(shape, dtype)
    loss, gradient = p.forward(device), p.backward(device)
    last = p.labels.shape[0] - 1, p.labels.shape[1] - 1
    for bad in (shape[1], -1, IGNORED + 1, INT64.max, INT64.min):
        p.labels[last] = bad
        got, slope = p.forward(device), p.backward(device)
        assert np.isnan(got[last])
        assert np.isnan(slope[last[0], :, last[1]]).all()
        got[last] = loss[last]
        slope[last[0], :, last[1]] = gradient[last[0], :, last[1]]
        assert same_bits(got, loss)
        assert same_bits(slope, gradient)


@floats
@pytest.mark.parametrize("shape", MAPPINGS, ids=str)
def test_nan_and_infinity(device: Any, shape: tuple[int, int, int], dtype: type) -> None:
    classes = shape[1]
    at = classes - 1

    def first(logit: float, label: int) -> tuple[float, float]:
        """The loss of the first row and its gradient of class 3; the other rows go on as they are."""
        p = problem(shape, dtype)
        p.logits[0, at, 0], p.labels[0, 0] = logit, label
        loss, gradient = p.forward(device), p.backward(device)
        assert np.isfinite(loss.reshape(-1)[1:]).all()
        assert np.isfinite(gradient[1:]).all()
        assert np.isfinite(gradient[0, :, 1:]).all()
        return loss[0, 0], gradient[0, 3, 0]

    for label in (at, 2):
        assert np.isnan(first(np.nan, label)).all()
        assert np.isnan(first(np.inf, label)).all()
    assert first(-np.inf, at)[0] == np.inf
    assert np.isfinite(first(-np.inf, at)[1])
    assert np.isfinite(first(-np.inf, 2)).all()
    assert first(np.nan, IGNORED) == (0, 0)
    assert np.isfinite(first(float(np.finfo(dtype).max) / 2, 2)[0])
    none = problem(shape, dtype)
    none.logits[...] = -np.inf
    none.labels[...] = 0
    assert np.isnan(none.forward(device)).all()


@floats
def test_ties_and_sure_labels(device: Any, dtype: type) -> None:
    """All alike: log C, and the gradients 1 / C and 1 / C - 1. Sure: what the others leave, to its last digit."""
    for examples, classes, positions in MAPPINGS:
        shape = (examples, classes, positions)
        p = Problem(
            np.full(shape, 5, dtype), np.ones((examples, positions), np.int64), np.ones((examples, positions), dtype)
        )
        np.testing.assert_allclose(p.forward(device), np.log(classes), rtol=4 * np.finfo(dtype).eps)
        p.logits[:, 1] = 45
        rest = (classes - 1) * np.exp(-40.0)
        np.testing.assert_allclose(p.forward(device), np.log1p(rest), rtol=8 * np.finfo(dtype).eps)
        np.testing.assert_allclose(p.backward(device)[:, 1], -rest / (1 + rest), rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", MAPPINGS, ids=str)
def test_a_class_may_be_ignored_and_a_gradient_may_be_nan(device: Any, shape: tuple[int, int, int]) -> None:
    p = problem(shape, np.float64)
    p.labels[...] = 2
    p.labels[-1, -1] = 3
    p.dloss[...] = np.nan
    loss, gradient = p.forward(device, 2), p.backward(device, 2)
    assert np.flatnonzero(loss).tolist() == [p.labels.size - 1]
    assert np.isnan(gradient[-1, :, -1]).all()
    assert np.isnan(gradient).sum() == shape[1]
    assert (gradient[~np.isnan(gradient)] == 0).all()


@floats
def test_agrees_with_the_cpu(device: Any, dtype: type) -> None:
    for shape in MAPPINGS:
        p = problem(shape, dtype)
        bound = {"rtol": 100 * np.finfo(dtype).eps, "atol": 0}
        np.testing.assert_allclose(p.forward(device), p.forward(_cpu), **bound)
        np.testing.assert_allclose(p.backward(device), p.backward(_cpu), **bound)


@pytest.mark.parametrize("shape", [(0, 4, 1), (0, 4, 20), (2, 4, 0)])
def test_nothing_to_do(device: Any, shape: tuple[int, int, int]) -> None:
    p = problem(shape, np.float32)
    p.forward(device)
    p.backward(device)
