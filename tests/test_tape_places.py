"""Gradients written straight into the buffers of parameters: when, when not, and never twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import autodiff

nn = nm.nn


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape)


def flat(*parameters: Any) -> tuple[Any, ...]:
    """The parameters, with buffers for their gradients."""
    nn.FlatParameters(parameters)
    return parameters


def linear_loss(w: Any, b: Any) -> Any:
    return nm.linear(nm.tensor(numbers(3, 4)), w, b, activation="tanh").sum()


def conv_loss(w: Any, b: Any) -> Any:
    return (nm.conv2d(nm.tensor(numbers(2, 2, 6, 6)), w, b) * nm.tensor(numbers(2, 3, 4, 4))).sum()


def pooled_loss(w: Any, b: Any) -> Any:
    y = nm.conv2d_pool2d(nm.tensor(numbers(32, 2, 6, 6)), w, b, activation="tanh")
    return (y * nm.tensor(numbers(32, 3, 2, 2))).sum()


LOSSES = [
    pytest.param(linear_loss, (5, 4), 5, id="linear"),
    pytest.param(conv_loss, (3, 2, 3, 3), 3, id="conv2d"),
    pytest.param(pooled_loss, (3, 2, 3, 3), 3, id="conv2d_pool2d"),
]


def gradients_without_buffers(loss: Callable[..., Any], *values: np.ndarray) -> list[np.ndarray]:
    leaves = [nm.tensor(v, requires_grad=True) for v in values]
    return [g.numpy() for g in autodiff.grad(loss(*leaves), leaves)]


@pytest.mark.parametrize(("loss", "shape", "outputs"), LOSSES)
def test_gradients_are_written_into_the_buffers(loss: Any, shape: Any, outputs: int) -> None:
    w, b = flat(nn.Parameter(numbers(*shape)), nn.Parameter(numbers(outputs)))
    expected = gradients_without_buffers(loss, w.data, b.data)
    for _ in range(2):
        w.grad = b.grad = None
        loss(w, b).backward()
        assert w.grad.data is w.gradient_buffer and b.grad.data is b.gradient_buffer
        np.testing.assert_array_equal(w.grad.numpy(), expected[0])
        np.testing.assert_array_equal(b.grad.numpy(), expected[1])


@pytest.mark.parametrize(("loss", "shape", "outputs"), LOSSES)
def test_a_second_backward_adds(loss: Any, shape: Any, outputs: int) -> None:
    w, b = flat(nn.Parameter(numbers(*shape)), nn.Parameter(numbers(outputs)))
    loss(w, b).backward()
    first = w.grad.numpy().copy()
    loss(w, b).backward()
    np.testing.assert_array_equal(w.grad.numpy(), 2 * first)


@pytest.mark.parametrize(("loss", "shape", "outputs"), LOSSES)
def test_a_parameter_used_twice_gets_the_sum(loss: Any, shape: Any, outputs: int) -> None:
    w, b = flat(nn.Parameter(numbers(*shape)), nn.Parameter(numbers(outputs)))

    def twice(w: Any, b: Any) -> Any:
        return loss(w, b) + loss(w * 2.0, b) + loss(w, b) * 3.0 + (w * w).sum()

    expected = gradients_without_buffers(twice, w.data, b.data)
    twice(w, b).backward()
    np.testing.assert_allclose(w.grad.numpy(), expected[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(b.grad.numpy(), expected[1], rtol=1e-12, atol=1e-12)
    assert w.grad.data is w.gradient_buffer


def test_a_parameter_that_is_input_and_weight_of_one_operation() -> None:
    (w,) = flat(nn.Parameter(numbers(3, 3, 5, 5)))

    def loss(w: Any) -> Any:
        return (nm.conv2d(w, w, padding=2) * nm.tensor(numbers(3, 3, 5, 5))).sum()

    expected = gradients_without_buffers(loss, w.data)
    loss(w).backward()
    np.testing.assert_allclose(w.grad.numpy(), expected[0], rtol=1e-12, atol=1e-12)


def test_grad_leaves_buffers_alone() -> None:
    w, b = flat(nn.Parameter(numbers(5, 4)), nn.Parameter(numbers(5)))
    w.gradient_buffer[...] = 7
    (dw,) = autodiff.grad(linear_loss(w, b), w)
    assert (w.gradient_buffer == 7).all() and not np.shares_memory(dw.data, w.gradient_buffer)
    (dw,) = autodiff.grad(linear_loss(w, b), w, create_graph=True)
    assert (w.gradient_buffer == 7).all() and w.grad is None


def test_gradients_on_the_tape_are_not_written_to_buffers() -> None:
    w, b = flat(nn.Parameter(numbers(5, 4)), nn.Parameter(numbers(5)))
    linear_loss(w, b).backward(create_graph=True)
    assert w.grad.node is not None and not np.shares_memory(w.grad.data, w.gradient_buffer)


def test_a_parameter_of_another_shape_than_its_buffer_gets_memory_of_its_own() -> None:
    w, b = flat(nn.Parameter(numbers(5, 4)), nn.Parameter(numbers(5)))
    w.replace_(numbers(2, 4))
    b.replace_(numbers(2))
    linear_loss(w, b).backward()
    assert w.grad.shape == (2, 4) and w.gradient_buffer is None


def test_leaves_are_untouched_by_a_backward_that_fails() -> None:
    w = nm.tensor(numbers(3), requires_grad=True)
    hidden = nm.exp(w)
    hidden.sum().backward()
    w.grad = None
    late = nm.tensor(numbers(3), requires_grad=True)
    with pytest.raises(nm.GradientError, match="exp was freed"):
        (hidden * late).sum().backward()
    assert w.grad is None and late.grad is None


def test_cross_entropy_is_one_operation() -> None:
    logits = nm.tensor(numbers(4, 3), requires_grad=True)
    loss = nm.cross_entropy(logits, np.array([0, 1, 2, 1]))
    assert loss.node.operation == "cross_entropy" and list(loss.node.inputs) == [logits.node]
