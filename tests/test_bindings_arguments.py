"""What the kernels take for geometries, dtypes under other names, and arrays of many axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygrad_nm import _cpu

CONV = (1, 1, 0, 0, 0, 0, 1, 1, 1)
POOL = (2, 2, 2, 2, 0, 0, 0, 0, 1, 1, False)


def conv(geometry: Any) -> None:
    out, x, w = np.empty((1, 1, 2, 2)), np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    _cpu.conv2d_forward(out, x, w, None, geometry)
    assert (out == 9).all()


def pool(geometry: Any) -> None:
    out, x = np.empty((1, 1, 2, 2)), np.ones((1, 1, 4, 4))
    _cpu.avg_pool2d_forward(out, x, geometry, True)
    assert (out == 1).all()


def windows(pair: Any) -> int:
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    return _cpu.conv2d_pool2d_kept(x, w, CONV, "tanh", 0.0, pair)


def test_geometries_are_tuples_of_integers() -> None:
    conv(CONV)
    pool(POOL)
    pool((*POOL[:10], 0))
    windows(("avg", 2, 2))


@pytest.mark.parametrize(
    "wrong",
    [(), CONV[:8], (*CONV, 1), None, 3, "111111111", ("1", *CONV[1:]), (1.0, *CONV[1:]), (2**64, *CONV[1:])],
    ids=repr,
)
def test_other_geometries_of_a_convolution_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        conv(wrong)


@pytest.mark.parametrize("wrong", [POOL[:10], (*POOL[:10], None), (*POOL[:10], "no")], ids=repr)
def test_other_geometries_of_a_pooling_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        pool(wrong)


@pytest.mark.parametrize("wrong", [("avg", 2), (2, 2, 2), ("avg", "2", 2), ("avg", 2, 2.0), ["avg", 2, 2]], ids=repr)
def test_other_windows_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        windows(wrong)


def test_windows_of_another_kind_are_named() -> None:
    with pytest.raises(ValueError, match="conv2d_pool2d: unknown pooling 'median'"):
        windows(("median", 2, 2))


@pytest.mark.parametrize("dtype", [np.longlong, np.int64, ">i8"])
def test_labels_of_eight_bytes_under_any_name(dtype: Any) -> None:
    out, logits = np.empty((2, 1), np.float32), np.zeros((2, 4, 1), np.float32)
    _cpu.softmax_cross_entropy_forward(out, logits, np.array([[1], [3]], dtype), -100)
    np.testing.assert_allclose(out, np.log(4), rtol=1e-6)


def test_arrays_of_as_many_axes_as_numpy_has() -> None:
    ndim = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32
    x = np.linspace(-1, 1, 8).reshape((2, 2, 2) + (1,) * (ndim - 3))
    out = np.empty_like(x)
    _cpu.activation_forward(out, x, "relu", 0.0)
    np.testing.assert_array_equal(out, np.maximum(x, 0))
    with pytest.raises(ValueError, match=r"out has shape .* but must have"):
        _cpu.activation_forward(np.empty((2,) + (1,) * (ndim - 1)), x, "relu", 0.0)
