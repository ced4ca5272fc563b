"""Writes in place: where they are allowed, and that a saved tensor that has changed since is never used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm._errors import DtypeError, GradientError, ShapeError


def leaf(data: Any) -> Any:
    return nm.tensor(np.array(data), requires_grad=True)


def _setitem(t: Any) -> None:
    t[0] = 5.0


def _iadd(t: Any) -> None:
    t += 1.0


def _isub(t: Any) -> None:
    t -= 1.0


def _imul(t: Any) -> None:
    t *= 2.0


def _itruediv(t: Any) -> None:
    t /= 2.0


WRITES = {
    "setitem": (_setitem, [5.0, 4.0]),
    "iadd": (_iadd, [3.0, 5.0]),
    "isub": (_isub, [1.0, 3.0]),
    "imul": (_imul, [4.0, 8.0]),
    "itruediv": (_itruediv, [1.0, 2.0]),
    "add_": (lambda t: t.add_(1.0), [3.0, 5.0]),
    "sub_": (lambda t: t.sub_(np.array([1.0, 2.0])), [1.0, 2.0]),
    "mul_": (lambda t: t.mul_(nm.tensor(np.array([2.0, 3.0]))), [4.0, 12.0]),
    "div_": (lambda t: t.div_(2.0), [1.0, 2.0]),
    "zero_": (lambda t: t.zero_(), [0.0, 0.0]),
    "fill_": (lambda t: t.fill_(7.0), [7.0, 7.0]),
    "copy_": (lambda t: t.copy_(np.array([8.0, 9.0])), [8.0, 9.0]),
}


@pytest.mark.parametrize("name", WRITES)
def test_each_write_changes_the_memory_itself(name: str) -> None:
    write, expected = WRITES[name]
    t = leaf([2.0, 4.0])
    memory = t.data
    with nm.no_grad():
        write(t)
    assert t.data is memory and t.requires_grad
    np.testing.assert_array_equal(memory, expected)


@pytest.mark.parametrize("name", WRITES)
def test_a_write_to_what_needs_a_gradient_is_refused_outside_no_grad(name: str) -> None:
    write, _ = WRITES[name]
    x = leaf([2.0, 4.0])
    results = [] if name.startswith("i") else [x * 2.0]  # `t += 1` rebinds a result: see below
    for t in (x, *results):
        before = t.numpy().copy()
        with pytest.raises(GradientError, match=r"no_grad\(\)"):
            write(t)
        np.testing.assert_array_equal(t.numpy(), before)


def test_an_augmented_assignment_to_a_result_stays_on_the_tape() -> None:
    x = leaf([2.0, 4.0])
    total = first = x * 2.0
    total += x
    total *= 3.0
    assert first.numpy().tolist() == [4.0, 8.0]
    total.sum().backward()
    assert x.grad.numpy().tolist() == [9.0, 9.0]
    count = nm.tensor(np.zeros(2))
    count += x
    assert count.requires_grad


@pytest.mark.parametrize("name", WRITES)
def test_a_saved_tensor_that_changed_is_an_error_that_names_the_operation(name: str) -> None:
    write, _ = WRITES[name]
    x = leaf([2.0, 4.0])
    y = (x * x).sum()
    with nm.no_grad():
        write(x)
    with pytest.raises(GradientError, match=r"saved by multiply, shape \(2,\), was changed in place"):
        y.backward()


def test_a_saved_result_that_changed_is_an_error() -> None:
    x = leaf([2.0, 4.0])
    y = nm.exp(x)
    total = y.sum()
    with nm.no_grad():
        y.mul_(2.0)
    with pytest.raises(GradientError, match="saved by exp"):
        total.backward()


def test_a_write_through_a_view_counts_for_its_base_and_the_other_way_round() -> None:
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    for view_of in (lambda t: t[0], lambda t: t.reshape(4), lambda t: t.T, lambda t: t.detach()):
        y = (x * x).sum()
        with nm.no_grad():
            view_of(x).zero_()
        with pytest.raises(GradientError, match="was changed in place"):
            y.backward()
    with nm.no_grad():
        view = x.reshape(4)
    z = (view * leaf(np.ones(4))).sum()
    with nm.no_grad():
        x += 1.0
    with pytest.raises(GradientError, match="was changed in place"):
        z.backward()


@pytest.mark.parametrize(
    "use",
    [
        lambda a, b: nm.matmul(a, b),
        lambda a, b: nm.linear(a, b),
        lambda a, b: nm.conv2d(a.reshape(1, 1, 2, 2), b.reshape(1, 1, 2, 2)),
        lambda a, b: nm.divide(b, a),
        lambda a, b: nm.maximum(a, b),
        lambda a, b: nm.power(a, b),
        lambda a, b: nm.gelu(a) * b.detach(),
        lambda a, b: nm.local_response_norm(a.reshape(1, 4, 1, 1), 3) * 1.0,
        lambda a, b: nm.cross_entropy(a, np.array([0, 1])),
        lambda a, b: nm.var(a, axis=1),
        lambda a, b: nm.max(a, axis=1),
        lambda a, b: nm.softmax(a, axis=1),
        lambda a, b: nm.logsumexp(a, axis=1),
    ],
)
def test_no_operation_uses_a_changed_input_silently(use: Callable[[Any, Any], Any]) -> None:
    """Either the gradient is that of the old values or an error; never one of the new values."""
    a, b = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([[1.5, 2.5], [0.5, 1.0]])
    use(a, b).sum().backward()
    expected = a.grad.numpy().copy()
    a.grad = None
    y = use(a, b).sum()
    with nm.no_grad():
        a.copy_(np.array([[7.0, -1.0], [0.5, 9.0]]))
    refused = False
    try:
        y.backward()
    except GradientError:
        refused = True
    assert refused or np.array_equal(a.grad.numpy(), expected)


def test_a_write_before_the_use_or_after_the_backward_is_fine() -> None:
    x = leaf([2.0, 4.0])
    for _ in range(3):
        (x * x).sum().backward()
        with nm.no_grad():
            x -= 0.1 * x.grad
        x.grad = None
    np.testing.assert_allclose(x.numpy(), np.array([2.0, 4.0]) * 0.8**3)


def test_a_students_own_sgd_loop() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((50, 3))
    truth = np.array([1.0, -2.0, 0.5])
    w = leaf(np.zeros(3))
    for _ in range(200):
        loss = nm.mse_loss(nm.matmul(inputs, w), nm.tensor((inputs * truth).sum(1)))
        loss.backward()
        with nm.no_grad():
            w -= 0.1 * w.grad
        w.grad.zero_()
    np.testing.assert_allclose(w.numpy(), truth, atol=1e-8)


def test_writes_of_what_does_not_fit_are_errors_and_change_nothing() -> None:
    x = nm.tensor(np.array([1.0, 2.0]))
    with pytest.raises(ShapeError):
        x.copy_(np.ones(3))
    with pytest.raises(ShapeError):
        x += np.ones((2, 2))
    with pytest.raises(DtypeError, match="float32"):
        x += np.ones(2, np.float32)
    with pytest.raises(DtypeError):
        nm.tensor(np.arange(2)).add_(0.5)
    with pytest.raises(DtypeError):
        nm.tensor(np.arange(2)).fill_(0.5)
    np.testing.assert_array_equal(x.numpy(), [1.0, 2.0])


def test_tensors_without_gradient_are_written_freely() -> None:
    x = nm.tensor(np.array([1.0, 2.0]))
    x += 1.0
    x[1] = nm.tensor(np.array(9.0))
    x[np.array([True, False])] = 4.0
    np.testing.assert_array_equal(x.numpy(), [4.0, 9.0])
    read_only = np.ones(2)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        nm.from_numpy(read_only).zero_()
