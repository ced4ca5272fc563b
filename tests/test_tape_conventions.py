"""What derivatives are at kinks and ties, and where NaN goes: the stated conventions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import autodiff

NAN, INF = np.nan, np.inf


def slopes(f: Callable[..., Any], *values: Any) -> list[list[float]]:
    tensors = [nm.tensor(np.array(v, np.float64), requires_grad=True) for v in values]
    f(*tensors).sum().backward()
    return [t.grad.numpy().tolist() for t in tensors]


def test_relu_and_abs_have_slope_zero_at_zero() -> None:
    assert slopes(nm.relu, [-1.0, 0.0, -0.0, 2.0]) == [[0.0, 0.0, 0.0, 1.0]]
    assert slopes(nm.abs, [-1.0, 0.0, -0.0, 2.0]) == [[-1.0, 0.0, 0.0, 1.0]]


def test_fused_relu_has_slope_zero_at_zero() -> None:
    x = np.array([[1.0, -1.0]])
    w = nm.tensor(np.array([[1.0, 1.0]]), requires_grad=True)
    nm.linear(x, w, activation="relu").sum().backward()
    assert w.grad.numpy().tolist() == [[0.0, 0.0]]


def test_maximum_and_minimum_share_a_tie_in_halves() -> None:
    assert slopes(nm.maximum, [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]
    assert slopes(nm.minimum, [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]


def test_max_and_min_over_axes_share_equally_among_ties() -> None:
    x = [[1.0, 4.0, 4.0, 4.0], [2.0, 2.0, 0.0, 1.0]]
    third, half = 1 / 3, 1 / 2
    assert slopes(lambda t: nm.max(t, axis=1), x) == [[[0, third, third, third], [half, half, 0, 0]]]
    assert slopes(lambda t: nm.min(t, axis=1), x) == [[[1.0, 0, 0, 0], [0, 0, 1.0, 0]]]
    assert slopes(nm.max, [3.0, 3.0]) == [[half, half]]


def test_max_pooling_takes_the_first_of_a_tie() -> None:
    x = np.full((1, 1, 4, 4), 2.0)
    (dx,) = slopes(lambda t: nm.max_pool2d(t, 2), x)
    assert dx == [[[[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]]]


def test_clip_passes_one_on_its_bounds() -> None:
    assert slopes(lambda t: nm.clip(t, -1.0, 1.0), [-2.0, -1.0, 0.0, 1.0, 2.0]) == [[0.0, 1.0, 1.0, 1.0, 0.0]]


def test_argmax_takes_the_first() -> None:
    assert nm.argmax(nm.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]), axis=1).numpy().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("inner", "at"),
    [
        (nm.log, 0.0),
        (nm.log, -1.0),
        (nm.sqrt, 0.0),
        (nm.sqrt, -1.0),
        (lambda t: 1.0 / t, 0.0),
        (lambda t: t**-1.5, 0.0),
        (lambda t: nm.exp(t * 1e6), 1.0),
        (lambda t: nm.sqrt(nm.log(t)), 1.0),
        (lambda t: t / (t - t), 1.0),
    ],
)
def test_where_leaks_no_nan_from_the_branch_not_taken(inner: Callable[[Any], Any], at: float) -> None:
    mask = np.array([True, False])
    (dx,) = slopes(lambda t: nm.where(mask, inner(t * 1.0), t * 3.0), [2.0, at])
    assert dx[1] == 3.0


def test_where_leaks_no_nan_into_second_derivatives() -> None:
    x = nm.tensor(np.array([0.0, 4.0]), requires_grad=True)
    y = nm.where(np.array([False, True]), nm.sqrt(x), x * x * 3.0).sum()
    (dx,) = autodiff.grad(y, x, create_graph=True)
    (ddx,) = autodiff.grad(dx.sum(), x)
    assert dx.numpy().tolist() == [0.0, 0.25]
    np.testing.assert_allclose(ddx.numpy(), [6.0, -1 / 32])


def test_power_at_zero() -> None:
    assert slopes(lambda t: t**2, [0.0]) == [[0.0]]
    assert slopes(lambda t: t**1, [0.0]) == [[1.0]]
    assert slopes(lambda t: t**0, [0.0]) == [[0.0]]
    assert slopes(nm.power, [0.0, 2.0], [2.0, 3.0]) == [[0.0, 12.0], [0.0, 8.0 * np.log(2.0)]]


# ---- NaN ------------------------------------------------------------------------------------------------------

ACTIVATIONS = [
    "relu",
    "leaky_relu",
    "tanh",
    "scaled_tanh",
    "sigmoid",
    "softsign",
    "softplus",
    "elu",
    "gelu",
    "sin",
    "smooth_relu",
    "exp",
    "identity",
]
LENGTHS = (1, 3, 17, 70)  # tails and whole vectors of every width


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_propagates_through_every_activation(name: str, dtype: Any, isa: str) -> None:
    for length in LENGTHS:
        for place in {0, length // 2, length - 1}:
            x = np.ones(length, dtype)
            x[place] = NAN
            t = nm.tensor(x, requires_grad=True)
            y = getattr(nm, name)(t)
            assert np.flatnonzero(np.isnan(y.numpy())).tolist() == [place]
            y.sum().backward()
            wanted = [place] if name not in ("relu", "leaky_relu", "identity") else []
            found = np.flatnonzero(np.isnan(t.grad.numpy())).tolist()
            assert found in (wanted, [place]), (name, isa)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_propagates_through_max_pooling_maximum_minimum_clip_and_max(dtype: Any, isa: str) -> None:
    x = np.zeros((1, 2, 4, 4), dtype)
    x[0, 1, 2, 3] = NAN
    y = nm.max_pool2d(nm.tensor(x), 2).numpy()
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 1, 1, 1]], isa
    for f in (nm.maximum, nm.minimum):
        assert np.isnan(f(nm.tensor(x), 1.0).numpy()).sum() == 1
        assert np.isnan(f(np.ones_like(x), nm.tensor(x)).numpy()).sum() == 1
    assert np.isnan(nm.clip(nm.tensor(x), -1.0, 1.0).numpy()).sum() == 1
    assert np.isnan(nm.max(nm.tensor(x)).item()) and np.isnan(nm.min(nm.tensor(x)).item())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_times_nan_and_inf_is_nan_in_every_product(dtype: Any, isa: str) -> None:
    """Nothing skips zeros."""
    for bad in (NAN, INF):
        a = np.zeros((7, 19), dtype)
        b = np.ones((19, 33), dtype)
        b[11, 20] = bad
        y = nm.matmul(a, b).numpy()
        assert np.isnan(y[:, 20]).all() and np.isnan(y).sum() == 7, isa
        x = np.zeros((1, 2, 6, 6), dtype)
        w = np.ones((3, 2, 3, 3), dtype)
        w[1, 0, 1, 1] = bad
        assert np.isnan(nm.conv2d(x, w).numpy()[:, 1]).all(), isa
        assert np.isnan(nm.linear(a, b.T.copy(), activation="relu").numpy()[:, 20]).all(), isa
        assert np.isnan(nm.conv2d(x, w, activation="relu").numpy()[:, 1]).all(), isa
        assert not np.isnan(nm.conv2d(x, w).numpy()[:, [0, 2]]).any(), isa


def test_subnormal_numbers_survive(isa: str) -> None:
    tiny = np.float32(1e-42)
    x = np.full((4, 4), tiny, np.float32)
    one = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(nm.matmul(x, one).numpy(), x)
    np.testing.assert_array_equal(nm.relu(nm.tensor(x)).numpy(), x)
    np.testing.assert_array_equal(nm.max_pool2d(nm.tensor(x.reshape(1, 1, 4, 4)), 2).numpy().ravel(), x.ravel()[:4])
    np.testing.assert_allclose(nm.tanh(nm.tensor(x)).numpy(), x, err_msg=isa)
