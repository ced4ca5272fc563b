"""backward, grad, value_and_grad: sums, orders, what is freed and what is an error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import autodiff
from tinygrad_nm._errors import DtypeError, GradientError, ShapeError


def leaf(data: Any, dtype: Any = np.float64) -> Any:
    return nm.tensor(data, dtype=dtype, requires_grad=True)


def test_backward_adds_up_over_calls_and_over_paths() -> None:
    x = leaf([2.0, -3.0])
    (x * x + x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5.0, -5.0])
    (3 * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [8.0, -2.0])


def test_backward_of_a_vector_needs_a_gradient_of_its_shape_and_dtype() -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"backward: the output has shape \(2,\)"):
        (x * x).backward()
    with pytest.raises(ShapeError, match=r"gradient has shape \(3,\)"):
        (x * x).backward(nm.tensor(np.ones(3)))
    with pytest.raises(DtypeError, match="float32"):
        (x * x).backward(nm.tensor(np.ones(2, np.float32)))
    (x * x).backward(nm.tensor(np.array([1.0, 10.0])))
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 40.0])


def test_backward_of_a_constant_is_an_error() -> None:
    with pytest.raises(GradientError, match="does not require a gradient"):
        nm.tensor(1.0).backward()
    with pytest.raises(GradientError, match="input 0 does not require a gradient"):
        autodiff.grad(leaf(1.0) * 2.0, [nm.tensor(1.0)])


def test_second_backward_is_an_error_unless_the_graph_was_retained() -> None:
    x = leaf(3.0)
    y = nm.exp(x * x)
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(GradientError, match=r"freed by an earlier backward.*retain_graph=True"):
        y.backward()
    assert x.grad.item() == pytest.approx(2 * 6 * math.exp(9))


def test_a_part_of_a_freed_graph_says_so_too() -> None:
    x = leaf(3.0)
    inner = nm.exp(x)
    (inner * 2.0).backward()
    with pytest.raises(GradientError, match="exp was freed"):
        (inner * 3.0).backward()


def test_the_gradient_of_a_leaf_is_memory_of_its_own() -> None:
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    seed = np.array([1.0, 1.0])
    (a + b).backward(nm.from_numpy(seed))
    assert not np.shares_memory(a.grad.data, b.grad.data)
    (a * 1.0).sum().backward()
    np.testing.assert_array_equal(seed, [1.0, 1.0])
    np.testing.assert_array_equal(b.grad.numpy(), [1.0, 1.0])
    np.testing.assert_array_equal(a.grad.numpy(), [2.0, 2.0])


def test_only_leaves_keep_gradients_and_detach_cuts() -> None:
    x = leaf(2.0)
    y = x * x
    (y * y.detach()).backward()
    assert y.grad is None and not y.is_leaf and x.is_leaf
    assert x.grad.item() == 4 * 4.0
    assert not y.detach().requires_grad


def test_grad_leaves_dot_grad_alone_and_gives_zeros_for_what_is_not_used() -> None:
    x, unused = leaf([1.0, 2.0]), leaf(np.ones((2, 3)))
    dx, dz = autodiff.grad((x**3).sum(), [x, unused])
    np.testing.assert_array_equal(dx.numpy(), [3.0, 12.0])
    np.testing.assert_array_equal(dz.numpy(), np.zeros((2, 3)))
    assert x.grad is None and not dx.requires_grad


def test_grad_of_several_outputs_with_their_gradients() -> None:
    x = leaf([1.0, 2.0])
    outputs = [x * 2.0, (x * x).sum()]
    (dx,) = autodiff.grad(outputs, [x], [nm.tensor(np.array([1.0, 10.0])), nm.tensor(np.array(100.0))])
    np.testing.assert_array_equal(dx.numpy(), [202.0, 420.0])
    with pytest.raises(ShapeError, match="2 outputs but 1 grad_outputs"):
        autodiff.grad([x * 2.0, x.sum()], [x], [nm.tensor(np.array([1.0, 10.0]))])


def test_grad_with_respect_to_an_inner_value() -> None:
    x = leaf(2.0)
    y = x * x
    z = nm.exp(y) * x
    (dy,) = autodiff.grad(z, y)
    assert dy.item() == pytest.approx(2 * math.exp(4))


def test_create_graph_to_third_order_by_backward_and_by_grad() -> None:
    x = leaf(0.7)
    (first,) = autodiff.grad(nm.sin(x) * x, [x], create_graph=True)
    (second,) = autodiff.grad(first, [x], create_graph=True)
    (third,) = autodiff.grad(second, [x])
    assert first.item() == pytest.approx(math.sin(0.7) + 0.7 * math.cos(0.7))
    assert second.item() == pytest.approx(2 * math.cos(0.7) - 0.7 * math.sin(0.7))
    assert third.item() == pytest.approx(-3 * math.sin(0.7) - 0.7 * math.cos(0.7))
    (x**4).backward(create_graph=True)
    slope = x.grad
    x.grad = None
    slope.backward()
    assert x.grad.item() == pytest.approx(12 * 0.7**2)


def test_hessian_of_a_vector_function_row_by_row() -> None:
    x = leaf([1.0, 2.0, 3.0])
    (g,) = autodiff.grad((x[0] * x[1] * x[2]), [x], create_graph=True)
    rows = [autodiff.grad(g[i], [x], retain_graph=True)[0].numpy() for i in range(3)]
    np.testing.assert_array_equal(rows, [[0, 3, 2], [3, 0, 1], [2, 1, 0]])


def test_no_graph_is_recorded_by_a_first_order_backward() -> None:
    x = leaf(2.0)
    (x * x).backward()
    assert not x.grad.requires_grad


# ---- grad and value_and_grad of functions ---------------------------------------------------------------------


def cube(x: Any) -> Any:
    return x**3


def test_grad_of_a_function_takes_any_order() -> None:
    x = nm.tensor(np.array(2.0))
    assert nm.grad(cube)(x).item() == 12.0
    assert nm.grad(nm.grad(cube))(x).item() == 12.0
    assert nm.grad(nm.grad(nm.grad(cube)))(x).item() == 6.0
    assert not x.requires_grad


def test_grad_takes_several_arguments_and_gives_zeros_for_unused_ones() -> None:
    def f(a: Any, b: Any, c: Any) -> Any:
        return (a * a * c).sum()

    a, b, c = (nm.tensor(np.array(v)) for v in ([1.0, 2.0], [5.0], [3.0, 4.0]))
    da, db, dc = nm.grad(f, argnums=(0, 1, 2))(a, b, c)
    np.testing.assert_array_equal(da.numpy(), [6.0, 16.0])
    np.testing.assert_array_equal(db.numpy(), [0.0])
    np.testing.assert_array_equal(dc.numpy(), [1.0, 4.0])
    value, slope = nm.value_and_grad(f, argnums=2)(a, b, c)
    assert value.item() == 19.0
    np.testing.assert_array_equal(slope.numpy(), [1.0, 4.0])


def test_nested_calls_do_not_confuse_one_another() -> None:
    """The classic of perturbation confusion: d/dx (x * d/dy (x + y) at y = 1) = 1 at every x."""

    def outer(x: Any) -> Any:
        return x * nm.grad(lambda y: x + y)(nm.tensor(np.array(1.0)))

    assert nm.grad(outer)(nm.tensor(np.array(5.0))).item() == 1.0

    def same_point(x: Any) -> Any:  # d/dx (x^2 * d/dy (x y^2) at y = x) = d/dx (2 x^4) = 8 x^3
        return x * x * nm.grad(lambda y: x * y * y)(x)

    assert nm.grad(same_point)(nm.tensor(np.array(2.0))).item() == 64.0


def test_grad_of_a_function_reaches_a_tensor_that_is_already_on_a_tape() -> None:
    w = leaf(3.0)
    slope = nm.grad(lambda x: w * x * x)(nm.tensor(np.array(2.0)))
    assert slope.item() == 12.0
    slope.backward()
    assert w.grad.item() == 4.0


def test_grad_of_a_function_works_under_no_grad() -> None:
    with nm.no_grad():
        assert nm.grad(cube)(nm.tensor(np.array(2.0))).item() == 12.0


def test_grad_of_a_function_that_gives_no_scalar_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        nm.grad(cube)(nm.tensor(np.array([1.0, 2.0])))


def test_retain_graph_keeps_the_graph_of_grad() -> None:
    x = leaf(2.0)
    y = x**3
    assert autodiff.grad(y, x, retain_graph=True)[0].item() == 12.0
    assert autodiff.grad(y, x)[0].item() == 12.0
    with pytest.raises(GradientError, match="freed"):
        autodiff.grad(y, x)
