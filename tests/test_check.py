"""The checks are checked: right derivatives pass, each kind of wrong one fails, and the reports say why."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import check
from tinygrad_nm.autodiff import record
from tinygrad_nm.tensor import Tensor, value

X = np.array([0.7, -1.3, 0.4])


def custom(forward: Callable[[Any], Any], rule: Callable[..., Any]) -> Callable[[Any], Any]:
    """An operation of one argument with this rule, whatever its derivative really is."""

    def operation(x: Any) -> Any:
        return record(rule, forward(value(x)), (x,), (x,))

    return operation


def scaled_square(factor: float) -> Callable[[Any], Any]:
    """x^2 with a derivative that is wrong by the factor."""
    return custom(lambda x: x * x, lambda dy, needs, out, saved: (dy * saved[0] * 2.0 * factor,))


def scaled_triple(factor: float) -> Callable[[Any], Any]:
    """3 x, a linear map, with a derivative that is wrong by the factor."""
    return custom(lambda x: 3.0 * x, lambda dy, needs, out, saved: (dy * 3.0 * factor,))


def detached_square(x: Any) -> Any:
    """x^2 whose derivative is right but not on the tape: second derivatives come out as zero."""

    def rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
        return (dy * (2.0 * value(saved[0])),)

    return custom(lambda a: a * a, rule)(x)


# ---- the Taylor test ------------------------------------------------------------------------------------------


def test_taylor_passes_a_right_derivative_and_reports_orders() -> None:
    report = check.taylor(nm.tanh, X)
    assert report.ok and not report.linear
    assert report.orders.shape == (29,)
    assert np.median(report.orders[5:15]) == pytest.approx(2.0, abs=0.05)
    assert report.median < 1e-6
    table = str(report).splitlines()
    assert len(table) == 2 + 30
    assert table[0].startswith("taylor tanh: ok")
    assert "E0" in table[1] and "E1" in table[1] and "E2" not in table[1]


@pytest.mark.parametrize("factor", [1.01, 1.0001, -1.0, 0.0, 2.0])
def test_taylor_fails_a_wrong_factor(factor: float) -> None:
    report = check.taylor(scaled_square(factor), X)
    assert not report.ok
    assert "FAILED" in str(report)


def test_one_percent_would_pass_by_the_order_alone() -> None:
    """The course's own criterion: why the median is needed as well."""
    report = check.taylor(scaled_square(1.01), X)
    assert int(np.sum(report.orders[:8] >= 1.5)) > 3 or int(np.sum(report.orders >= 1.9)) > 3
    assert report.median > 1e-3 and not report.ok


def test_a_right_linear_map_passes_although_it_has_no_order() -> None:
    report = check.taylor(scaled_triple(1.0), X)
    assert report.ok and report.linear
    assert int(np.sum(report.orders >= 1.9)) <= 3 or report.linear
    assert "linear" in str(report)


@pytest.mark.parametrize("factor", [1.01, 1 + 1e-9, -1.0])
def test_a_wrong_linear_map_fails(factor: float) -> None:
    assert not check.taylor(scaled_triple(factor), X).ok


def test_a_constant_passes_and_a_lost_gradient_fails() -> None:
    assert check.taylor(lambda x: x * 0.0 + 1.0, X).ok
    report = check.taylor(lambda x: x.detach() * x.detach() + 0.0 * x, X)
    assert not report.ok and report.median == np.inf


def test_second_order_prints_e2_and_finds_a_wrong_hessian() -> None:
    right = check.taylor(nm.tanh, X, order=2)
    assert right.ok and right.orders2 is not None
    assert np.median(right.orders2[4:10]) == pytest.approx(3.0, abs=0.2)
    assert "E2" in str(right).splitlines()[1]
    quadratic = check.taylor(scaled_square(1.0), X, order=2)
    assert quadratic.ok and quadratic.quadratic and "quadratic" in str(quadratic)
    assert check.taylor(detached_square, X).ok
    assert not check.taylor(detached_square, X, order=2).ok


def test_a_kink_on_the_segment_fails_and_a_smaller_scale_mends_it() -> None:
    x = np.array([0.01, -1.0, 1.0])
    v = [np.array([-1.0, 0.3, 0.7])]
    assert not check.taylor(nm.relu, x, directions=v).ok
    assert check.taylor(nm.relu, x, directions=v, scale=2.0**-8).ok


def test_arguments_can_be_chosen_and_the_rest_stands_still() -> None:
    def half_wrong(a: Any, b: Any) -> Any:
        return scaled_square(1.01)(a) + b * b

    assert check.taylor(half_wrong, X, X, argnums=1).ok
    assert not check.taylor(half_wrong, X, X, argnums=0).ok
    assert not check.taylor(half_wrong, X, X).ok


def test_several_outputs_integer_inputs_lists_and_tensors() -> None:
    def f(a: Any, b: Any) -> Any:
        return nm.sin(a) * b, (a * a).sum()

    assert check.taylor(f, [0.5, 1.5], np.array([2, 3])).ok
    assert check.taylor(f, nm.tensor([0.5, 1.5]), np.array([2, 3]), order=2).ok
    assert check.derivatives(lambda a: [a * a, nm.exp(a)], X).ok


# ---- the adjoint test -----------------------------------------------------------------------------------------


def test_adjoint_uses_f_itself_where_f_is_linear_and_differences_elsewhere() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 3, 3))
    linear = check.adjoint(nm.matmul, a, b)
    assert linear.ok and [r.method for r in linear.arguments] == ["linear", "linear"]
    assert all(r.bound == 0 and r.error < 1e-12 for r in linear.arguments)
    curved = check.adjoint(nm.tanh, X)
    (only,) = curved.arguments
    assert curved.ok and only.method == "differences" and 0 < only.bound < 1e-10
    assert list(curved.orders) == ["x"]
    assert np.median(curved.orders["x"]) == pytest.approx(2.0, abs=0.1)
    text = str(curved)
    assert f"{only.error:.2e}" in text and f"{only.bound:.2e}" in text and "tolerance" in text


@pytest.mark.parametrize("operation", [scaled_square, scaled_triple])
@pytest.mark.parametrize("factor", [1 + 1e-8, 1.01, -1.0])
def test_adjoint_finds_what_a_tautology_would_miss(operation: Any, factor: float) -> None:
    """u.(J v) = v.(J^T u) holds exactly if J v is derived from the wrong rule itself."""
    assert not check.adjoint(operation(factor), X).ok


def test_adjoint_in_single_precision_has_its_own_tolerance() -> None:
    a, b = np.random.default_rng(1).standard_normal((2, 5, 5))
    report = check.adjoint(nm.matmul, a, b, dtype=np.float32)
    assert report.ok and all(1e-12 < r.error < 1e-5 and r.tolerance == 1e-5 for r in report.arguments)
    assert check.adjoint(nm.gelu, X, dtype=np.float32).ok
    assert not check.adjoint(scaled_square(1.001), X, dtype=np.float32).ok


def test_piecewise_linear_functions_are_not_taken_for_linear() -> None:
    x = np.array([1.0, 2.0, 3.0])
    for f in (nm.relu, nm.abs, lambda t: nm.clip(t, -5.0, 5.0) + nm.relu(t)):
        (only,) = check.adjoint(f, x).arguments
        assert only.method == "differences" and only.ok


def test_differences_that_decide_nothing_do_not_pass() -> None:
    """With a kink in reach the bound grows, and the report says so instead of passing or blaming the rule."""
    report = check.adjoint(nm.abs, np.array([1e-5, -2e-5, 3e-5]))
    assert not report.ok and report.arguments[0].bound > 1e-8


def test_an_argument_without_influence() -> None:
    report = check.adjoint(lambda a, b: a * a + 0.0 * b, X, X)
    assert report.ok
    wrong = custom(lambda x: 0.0 * x, lambda dy, needs, out, saved: (dy,))
    assert not check.adjoint(wrong, X).ok


# ---- derivatives of everything --------------------------------------------------------------------------------


def test_derivatives_of_a_function() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 3, 3))

    def f(left: Any, right: Any) -> Any:
        return nm.tanh(left @ right)

    report = check.derivatives(f, a, b)
    assert report.ok
    assert list(report.taylor) == ["left", "right", "all", "gradient"]
    assert all(orders.shape == (29,) for orders in report.orders.values())
    text = str(report)
    assert text.startswith("derivatives of f: ok") and "adjoint f: ok" in text and "left" in text


def test_derivatives_to_third_order() -> None:
    report = check.derivatives(nm.tanh, X, order=3)
    assert report.ok and "gradient, order 3" in report.taylor
    assert "gradient" not in check.derivatives(nm.tanh, X, order=1).taylor


def test_derivatives_names_the_argument_at_fault() -> None:
    def f(good: Any, bad: Any) -> Any:
        return nm.exp(good) * scaled_square(1.01)(bad)

    report = check.derivatives(f, X, X)
    assert not report.ok
    assert [name for name, taylor in report.taylor.items() if not taylor.ok] == ["bad", "all", "gradient"]
    assert [r.name for r in report.adjoint.arguments if not r.ok] == ["bad"]


def test_assert_derivatives() -> None:
    assert check.assert_derivatives(nm.sin, X).ok
    with pytest.raises(AssertionError, match=r"(?s)derivatives of operation: FAILED.*E1.*adjoint"):
        check.assert_derivatives(scaled_square(1.01), X)
    with pytest.raises(AssertionError, match="gradient"):
        check.assert_derivatives(detached_square, X)
    assert check.assert_derivatives(detached_square, X, order=1).ok


# ---- models ---------------------------------------------------------------------------------------------------


def test_derivatives_of_a_model_with_respect_to_inputs_and_parameters() -> None:
    model = nm.nn.Sequential(
        nm.nn.Conv2d(1, 2, 3, activation="tanh"), nm.nn.AvgPool2d(2), nm.nn.Flatten(), nm.nn.Linear(8, 3)
    )
    before = {name: p.numpy().copy() for name, p in model.named_parameters()}
    x = np.random.default_rng(0).standard_normal((2, 1, 6, 6))
    report = check.derivatives(model, x)
    assert report.ok, str(report)
    assert set(before) < set(report.taylor)
    for name, p in model.named_parameters():
        assert p.dtype == np.float32 and p.grad is None
        np.testing.assert_array_equal(p.numpy(), before[name])


def test_adjoint_of_a_model_in_single_precision() -> None:
    model = nm.nn.DeepNetwork([2, 5, 3], "tanh")
    report = check.adjoint(model, np.random.default_rng(0).standard_normal((4, 2)), dtype=np.float32)
    assert report.ok, str(report)


def test_a_layer_with_a_wrong_rule_makes_its_model_fail() -> None:
    class Wrong(nm.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return scaled_square(1.01)(x)

    model = nm.nn.Sequential(nm.nn.Linear(3, 3), Wrong())
    with pytest.raises(AssertionError, match=r"0\.weight"):
        check.assert_derivatives(model, X[None])


def test_dropout_is_refused_while_training_and_checked_otherwise() -> None:
    model = nm.nn.Sequential(nm.nn.Linear(20, 20), nm.nn.Dropout(0.5))
    x = np.random.default_rng(0).standard_normal((2, 20))
    with pytest.raises(ValueError, match=r"two calls of Sequential differ.*eval\(\)"):
        check.derivatives(model, x)
    assert check.derivatives(model.eval(), x, order=1).ok


# ---- what cannot be checked -----------------------------------------------------------------------------------


def test_misuse_is_said_plainly() -> None:
    calls = itertools.count()
    with pytest.raises(ValueError, match="two calls of <lambda> differ"):
        check.taylor(lambda x: x * float(next(calls)), X)
    with pytest.raises(ValueError, match="no floating-point input"):
        check.taylor(lambda i: i, np.arange(3))
    with pytest.raises(ValueError, match=r"argument 1 of <lambda> is not one of its floating-point inputs \[0\]"):
        check.taylor(lambda x, i: x, X, np.arange(3), argnums=1)
    with pytest.raises(TypeError, match="returned float where a tensor of float64"):
        check.taylor(lambda x: 1.0, X)
    with pytest.raises(TypeError, match="returned float32"):
        check.taylor(lambda x: x.astype(np.float32), X)
    with pytest.raises(ValueError, match="zip"):
        check.taylor(nm.multiply, X, X, directions=[X])


def test_a_function_without_a_readable_signature() -> None:
    class Opaque:
        __signature__ = "none"

        def __call__(self, x: Any) -> Tensor:
            return nm.tanh(x)

    report = check.derivatives(Opaque(), X, order=1)
    assert report.ok and list(report.taylor) == ["x0", "all"] and report.title == "Opaque"
