"""What the tape keeps, when it lets go, and that nothing of it recurses."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import autodiff

LENGTH = 100_000


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Reference counts alone must free everything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_chain_of_100_000_operations_forward_backward_and_freed() -> None:
    assert sys.getrecursionlimit() < LENGTH
    x = nm.tensor(np.array(1.0), requires_grad=True)
    y = x
    for _ in range(LENGTH):
        y = y + 1e-5
    y.backward()
    assert x.grad.item() == 1.0
    assert y.item() == pytest.approx(2.0)
    del y


@pytest.mark.usefixtures("no_collector")
def test_a_chain_of_100_000_operations_is_freed_without_a_backward() -> None:
    x = nm.tensor(np.array(1.0), requires_grad=True)
    y = x
    for _ in range(LENGTH):
        y = y * 1.0
    node = weakref.ref(y.node)
    del y
    assert node() is None


def test_a_chain_of_20_000_operations_with_create_graph() -> None:
    assert sys.getrecursionlimit() < LENGTH // 5
    x = nm.tensor(np.array(0.5), requires_grad=True)
    y = x
    for _ in range(LENGTH // 5):
        y = y * 1.0
    (dx,) = autodiff.grad(y * y, x, create_graph=True)
    (ddx,) = autodiff.grad(dx, x)
    assert dx.item() == 1.0 and ddx.item() == 2.0
    del y, dx


@pytest.mark.usefixtures("no_collector")
def test_backward_frees_what_was_saved_as_it_passes() -> None:
    x = nm.tensor(np.ones(10), requires_grad=True)
    hidden = nm.exp(x)
    y = (hidden * hidden).sum()
    saved = weakref.ref(hidden.data)
    node = weakref.ref(hidden.node)
    del hidden
    assert saved() is not None
    y.backward()
    assert saved() is None
    assert node() is None
    assert y.item() == pytest.approx(10 * np.exp(2))


@pytest.mark.usefixtures("no_collector")
def test_a_dropped_graph_is_freed_without_the_collector() -> None:
    x = nm.tensor(np.ones((4, 4)), requires_grad=True)
    y = nm.softmax(nm.tanh(x @ x) * x, axis=1).sum()
    node, data = weakref.ref(y.node), weakref.ref(y.data)
    del y
    assert node() is None and data() is None


@pytest.mark.usefixtures("no_collector")
def test_what_no_rule_needs_is_freed_at_once() -> None:
    x = nm.tensor(np.ones(10), requires_grad=True)
    inner = x + 1.0
    data = weakref.ref(inner.data)
    outer = inner + 2.0
    del inner
    assert data() is None
    outer.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.ones(10))


@pytest.mark.usefixtures("no_collector")
def test_second_derivatives_leave_no_cycles() -> None:
    x = nm.tensor(np.array([0.3, 0.4]), requires_grad=True)
    (dx,) = autodiff.grad((nm.tanh(x) ** 2).sum(), x, create_graph=True)
    (dx * dx).sum().backward()
    node = weakref.ref(dx.node)
    del dx
    assert node() is None


def test_no_gradient_means_no_node() -> None:
    x = nm.tensor(np.ones(3))
    assert nm.exp(x * 2.0).node is None
    with nm.no_grad():
        assert nm.exp(nm.tensor(np.ones(3), requires_grad=True)).node is None
