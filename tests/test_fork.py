"""Child processes compute after a parallel kernel ran in the parent. An OpenMP pool does not survive fork."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import _cpu

SECONDS = 60  # a hung child is ended, and fails the test


def _product(size: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    out = np.empty((size, size))
    _cpu.gemm(out, rng.standard_normal((size, size)), rng.standard_normal((size, size)))
    return out


def _step() -> np.ndarray:
    """One forward and backward pass through the tape and several parallel kernels."""
    rng = np.random.default_rng(1)
    x = nm.tensor(rng.standard_normal((8, 3, 24, 24)))
    w = nm.tensor(rng.standard_normal((16, 3, 5, 5)), requires_grad=True)
    nm.max_pool2d(nm.conv2d(x, w, activation="tanh"), 2).sum().backward()
    return w.grad.numpy()


def _child(pipe: Connection) -> None:
    gradient, product = _step(), _product()
    pipe.send((product, gradient, _cpu.threads_used()))
    pipe.close()


def _in_child(method: str) -> tuple[np.ndarray, np.ndarray, int]:
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender,))
    child.start()
    sender.close()
    try:
        assert receiver.poll(SECONDS), f"the {method} child gave no answer in {SECONDS} s"
        answer = receiver.recv()
        child.join(SECONDS)
        assert child.exitcode == 0
        return answer
    finally:
        child.kill()
        child.join()


@pytest.fixture
def four_threads():
    before = _cpu.max_threads()
    _cpu.set_max_threads(4)
    yield
    _cpu.set_max_threads(before)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_computes_after_a_parallel_kernel(method: str, four_threads: None) -> None:
    gradient, product = _step(), _product()
    assert _cpu.threads_used() > 1, "the parent ran no parallel kernel: the test shows nothing"
    for child_product, child_gradient, threads in (_in_child(method) for _ in range(2)):
        np.testing.assert_array_equal(child_product, product)
        np.testing.assert_array_equal(child_gradient, gradient)
        assert threads >= 1
    np.testing.assert_array_equal(_product(), product)  # the parent goes on as before
    assert _cpu.threads_used() > 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_runs_on_one_thread(four_threads: None) -> None:
    _product()
    assert _in_child("fork")[2] == 1
