"""dtypes: weak scalars, no silent promotion, what NumPy may and may not do with a tensor."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm._errors import DtypeError, GradientError

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
WEAK = [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2), np.bool_(True)]


def test_python_numbers_and_lists_take_the_default_dtype_and_arrays_keep_theirs() -> None:
    assert nm.tensor([1, 2]).dtype == np.float32
    assert nm.tensor(3.0).dtype == np.float32
    assert nm.tensor([[1.5], [2]]).dtype == np.float32
    assert nm.tensor([True, False]).dtype == bool
    assert nm.tensor(np.arange(3)).dtype == np.int64
    assert nm.tensor(np.ones(3)).dtype == np.float64
    assert nm.tensor([1, 2], dtype=np.int32).dtype == np.int32
    assert nm.tensor(0.1, dtype=np.float64).item() == 0.1  # not by way of float32
    assert nm.tensor([2**40 + 1], dtype=np.int64).item() == 2**40 + 1
    nm.set_default_dtype("float64")
    assert nm.tensor([1, 2]).dtype == np.float64 == nm.get_default_dtype()
    with pytest.raises(DtypeError, match="int32 is not supported"):
        nm.set_default_dtype(np.int32)


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize("weak", WEAK, ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scalars_are_weak_on_both_sides(op: Callable[..., Any], weak: Any, dtype: Any) -> None:
    x = nm.tensor(np.array([1.0, 2.0], dtype), requires_grad=True)
    for left, right in ((x, weak), (weak, x)):
        y = op(left, right)
        assert isinstance(y, nm.Tensor) and y.requires_grad
        assert y.dtype == dtype
        plain = [v.numpy().astype(np.float64) if v is x else float(v) for v in (left, right)]
        np.testing.assert_allclose(y.numpy(), op(*plain), rtol=1e-6)


@pytest.mark.parametrize("op", [*ARITHMETIC, operator.lt, operator.matmul, nm.maximum])
def test_mixing_float32_and_float64_is_an_error_that_names_both(op: Callable[..., Any]) -> None:
    a = np.ones((2, 2), np.float32)
    b = np.ones((2, 2))
    for left, right in ((nm.tensor(a), nm.tensor(b)), (nm.tensor(a), b), (b, nm.tensor(a))):
        with pytest.raises(DtypeError, match=r"float32.*float64.*\.astype"):
            op(left, right)


def test_zero_dimensional_arrays_and_tensors_are_not_weak() -> None:
    with pytest.raises(DtypeError, match="float32 and float64"):
        nm.tensor([1.0]) * nm.tensor(np.array(2.0))


def test_kernels_name_both_dtypes_too() -> None:
    with pytest.raises(DtypeError, match=r"conv2d.*float32.*float64|conv2d.*float64.*float32"):
        nm.conv2d(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 2, 2)))


def test_integers_and_bool_exist_but_carry_no_gradient() -> None:
    i = nm.tensor(np.arange(3))
    assert (i + 1).dtype == np.int64 and (i * i).dtype == np.int64
    assert (i / 2).dtype == np.float32
    assert (i > 1).dtype == bool
    with pytest.raises(DtypeError, match="only floats carry gradients"):
        nm.tensor(np.arange(3), requires_grad=True)
    x = nm.tensor(np.array([1.0, 2.0, 3.0], np.float32), requires_grad=True)
    (x * i).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.array([0, 1, 2], np.float32), strict=True)


@pytest.mark.parametrize("bad", [np.array(["a"]), np.ones(2, np.complex128), np.ones(2, np.float16)])
def test_other_dtypes_are_refused_by_name(bad: np.ndarray) -> None:
    with pytest.raises(DtypeError, match=str(bad.dtype)):
        nm.tensor(bad)


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ragged|inhomogeneous"):
        nm.tensor([[1, 2], [3]])


def test_astype_is_differentiable() -> None:
    x = nm.tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    y = (x.astype(np.float64) ** 2).sum()
    assert y.dtype == np.float64
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.array([2.0, 4.0], np.float32), strict=True)


def test_tensor_copies_and_from_numpy_shares() -> None:
    a = np.ones(3)
    copied, shared = nm.tensor(a), nm.from_numpy(a)
    a[0] = 5.0
    assert copied.numpy()[0] == 1.0 and shared.numpy()[0] == 5.0
    with pytest.raises(TypeError, match=r"expected a numpy\.ndarray, got list"):
        nm.from_numpy([1.0])
    with pytest.raises(DtypeError, match="native byte order"):
        nm.from_numpy(np.ones(3, ">f8"))
    assert nm.tensor(np.arange(3.0).astype(">f8")).numpy().tolist() == [0.0, 1.0, 2.0]


def test_device_is_checked() -> None:
    assert nm.tensor(1.0, device="cpu").device == "cpu"
    with pytest.raises(ValueError, match="cuda"):
        nm.tensor(1.0, device="cuda")


def test_numpy_gives_a_read_only_view() -> None:
    x = nm.tensor(np.ones(3), requires_grad=True)
    view = x.numpy()
    assert np.shares_memory(view, x.data)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2.0


# ---- NumPy meets a tensor -------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul])
def test_an_array_on_the_left_stays_on_the_tape(op: Callable[..., Any]) -> None:
    x = nm.tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    a = np.array([[2.0, 0.5], [1.0, 4.0]])
    y = op(a, x)
    assert isinstance(y, nm.Tensor) and y.requires_grad
    np.testing.assert_allclose(y.numpy(), op(a, x.numpy()))


def test_comparisons_with_an_array_on_the_left() -> None:
    x = nm.tensor(np.array([1.0, 2.0]))
    assert (np.array([2.0, 2.0]) > x).numpy().tolist() == [True, False]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda t: np.exp(t), "exp"),
        (lambda t: np.maximum(np.ones(2), t), "maximum"),
        (lambda t: np.concatenate([t, t]), "concatenate"),
        (lambda t: np.sum(t), "sum"),
        (lambda t: np.add(np.ones(2), t, out=np.empty(2)), "add"),
        (lambda t: np.add.reduce(t), "add"),
        (lambda t: np.where(np.ones(2, bool), t, t), "where"),
    ],
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_numpy_functions_raise_and_name_ours(call: Callable[..., Any], name: str, requires_grad: bool) -> None:
    t = nm.tensor(np.array([1.0, 2.0]), requires_grad=requires_grad)
    with pytest.raises(TypeError, match=rf"tinygrad_nm\.{name}\b|nm\.{name}\b"):
        call(t)


def test_asarray_of_a_tensor_that_needs_a_gradient_names_detach() -> None:
    x = nm.tensor(np.array([1.0, 2.0]), requires_grad=True)
    with pytest.raises(GradientError, match=r"detach\(\)"):
        np.asarray(x)
    np.testing.assert_array_equal(np.asarray(x.detach()), [1.0, 2.0])
    assert np.asarray(x.detach(), dtype=np.float32).dtype == np.float32


def test_item_float_int_bool_and_len() -> None:
    assert nm.tensor([[3.0]]).item() == 3.0 and float(nm.tensor(2.5)) == 2.5 and int(nm.tensor(2.0)) == 2
    assert bool(nm.tensor(1.0)) and not bool(nm.tensor(0.0)) and len(nm.tensor([1.0, 2.0])) == 2
    with pytest.raises(ValueError, match="holds 2 values"):
        nm.tensor([1.0, 2.0]).item()
    with pytest.raises(TypeError, match="no length"):
        len(nm.tensor(1.0))
