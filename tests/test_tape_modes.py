"""no_grad, enable_grad, manual_seed and detect_anomaly, each of its own thread; gradients in many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import autodiff
from tinygrad_nm._errors import AnomalyError


def leaf(data: Any) -> Any:
    return nm.tensor(np.array(data), requires_grad=True)


def in_thread(function: Callable[[], Any]) -> Any:
    """The result of the function called in a thread of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    assert found, "the thread raised"
    return found[0]


def test_no_grad_and_enable_grad_nest_and_end_with_exceptions() -> None:
    x = leaf([1.0])
    with nm.no_grad():
        assert not (x * 2.0).requires_grad
        with nm.enable_grad():
            assert (x * 2.0).requires_grad
        assert not (x * 2.0).requires_grad
    with pytest.raises(ZeroDivisionError), nm.no_grad():
        raise ZeroDivisionError
    assert (x * 2.0).requires_grad


def test_no_grad_as_a_decorator() -> None:
    @nm.no_grad()
    def double(t: Any) -> Any:
        return t * 2.0

    x = leaf([1.0])
    assert not double(x).requires_grad
    assert (x * 2.0).requires_grad


def test_no_grad_is_of_its_own_thread() -> None:
    x = leaf([1.0])
    with nm.no_grad():
        assert in_thread(lambda: (x * 2.0).requires_grad)
    entered, leave = threading.Event(), threading.Event()

    def stay_within() -> None:
        with nm.no_grad():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=stay_within)
    thread.start()
    assert entered.wait(10)
    assert (x * 2.0).requires_grad
    leave.set()
    thread.join()


def test_manual_seed_is_of_its_own_thread_and_repeats() -> None:
    x = nm.tensor(np.ones((4, 32)))

    def draw() -> bytes:
        return bytes(nm.dropout(x, 0.5).numpy().tobytes())

    def seeded_draw() -> bytes:
        nm.manual_seed(7)
        return draw()

    nm.manual_seed(7)
    first, second = draw(), draw()
    assert first != second
    nm.manual_seed(7)
    in_thread(lambda: nm.manual_seed(99))
    in_thread(draw)
    assert [draw(), draw()] == [first, second]
    assert in_thread(seeded_draw) == first
    with pytest.raises(ValueError, match="manual_seed"):
        nm.manual_seed(-1)


def test_threads_differentiate_at_once() -> None:
    """Each thread has its own graph; the results are those of one thread."""
    w = np.linspace(-1, 1, 64).reshape(8, 8)

    def work(seed: int) -> np.ndarray:
        x = leaf(np.random.default_rng(seed).standard_normal((8, 8)))
        for _ in range(20):
            x.grad = None
            nm.tanh(nm.matmul(x, w)).sum().backward()
        return np.array(x.grad.numpy())

    expected = [work(seed) for seed in range(4)]
    found: list[Any] = [None] * 4

    def store(seed: int) -> None:
        found[seed] = work(seed)

    threads = [threading.Thread(target=store, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- detect_anomaly -------------------------------------------------------------------------------------------


def test_detect_anomaly_names_the_operation_that_first_gave_nan() -> None:
    x = leaf([1.0, -1.0])
    with nm.detect_anomaly(), pytest.raises(AnomalyError, match=r"log: forward gave NaN.*step 0.*\(2,\)"):
        nm.exp(nm.log(x) * 2.0)
    nm.log(x)


def test_detect_anomaly_names_infinities() -> None:
    with nm.detect_anomaly(), pytest.raises(AnomalyError, match="divide: forward gave Inf"):
        leaf([1.0]) / 0.0


def test_detect_anomaly_finds_what_only_the_backward_sweep_gives() -> None:
    x = leaf([0.0, 1.0])
    with nm.detect_anomaly():
        y = (nm.sqrt(x) * 2.0).sum()
        with pytest.raises(AnomalyError, match="sqrt: backward gave Inf"):
            y.backward()


def test_detect_anomaly_is_of_its_own_thread() -> None:
    x = leaf([-1.0])
    with nm.detect_anomaly():
        assert np.isnan(in_thread(lambda: nm.log(x).item()))


def test_detect_anomaly_names_the_layer_path() -> None:
    class Broken(nm.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return nm.log(x - 10.0)

    model = nm.nn.Sequential(nm.nn.Linear(2, 3), Broken())
    with nm.detect_anomaly(), pytest.raises(AnomalyError, match=r"log: forward gave NaN in Sequential\.1 at step 0"):
        model(nm.tensor([[1.0, 2.0]]))


def test_the_graph_in_one_thread_is_freed_by_a_backward_in_another() -> None:
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    in_thread(lambda: y.backward() or True)
    assert x.grad.numpy().tolist() == [2.0, 4.0]
    assert autodiff.thread.modes.recording
