"""Large results lie on blocks of a pool: aligned, used again, bounded, and given back with the last view."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import _cpu, backend

LARGE = (256, 256)  # 256 KiB of float32
LIKE = np.zeros(1, np.float32)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    limit = nm.memory_stats()["limit"]
    gc.collect()
    nm.empty_cache()
    nm.reset_peak_memory()
    yield
    nm.set_memory_limit(limit)


def large() -> np.ndarray:
    return backend.empty("test", LIKE, LARGE)


def used() -> int:
    return nm.memory_stats()["used"]


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_large_results_are_aligned_writeable_and_of_the_shape_asked_for(dtype: str) -> None:
    array = backend.empty("test", LIKE, (3, 10_000), np.dtype(dtype))
    assert array.shape == (3, 10_000) and array.dtype == dtype and type(array) is np.ndarray
    assert address(array) % 64 == 0 and array.flags.c_contiguous and array.flags.writeable
    array[...] = 7
    assert (array == 7).all()


def test_small_results_leave_the_pool_alone() -> None:
    before = nm.memory_stats()
    small = backend.empty("test", LIKE, (100,))
    assert small.base is None and nm.memory_stats() == before


def test_a_block_returns_when_the_last_view_is_gone() -> None:
    before = used()
    array = large()
    assert used() > before
    view = array[3:, ::2].T
    del array
    assert used() > before
    del view
    assert used() == before


def test_a_returned_block_is_used_again() -> None:
    array = large()
    first = address(array)
    counts = nm.memory_stats()
    del array
    again = large()
    assert address(again) == first
    assert nm.memory_stats()["reused"] == counts["reused"] + 1
    assert nm.memory_stats()["allocated"] == counts["allocated"]


def test_results_of_operations_come_from_the_pool_and_go_back() -> None:
    x = nm.tensor(np.ones(LARGE, np.float32), requires_grad=True)
    before = used()
    y = nm.tanh(x)
    assert used() - before >= y.data.nbytes
    y.sum().backward()
    del y
    assert used() == before


def test_saved_arrays_are_freed_while_the_sweep_goes_on() -> None:
    """A chain of n layers: forward holds n results, and backward only those that are still to come."""
    x = nm.tensor(np.ones(LARGE, np.float32), requires_grad=True)
    y = x
    for _ in range(8):
        y = nm.tanh(y)
    loss = y.sum()
    del y
    held = used()
    nm.reset_peak_memory()
    loss.backward()
    assert nm.memory_stats()["peak"] - held <= 3 * x.data.nbytes
    assert used() < held / 4


def test_what_lies_idle_is_bounded_and_can_be_given_back() -> None:
    size = large().nbytes
    nm.set_memory_limit(2 * size)
    arrays = [large() for _ in range(5)]
    del arrays
    assert nm.memory_stats()["idle"] == 2 * size == nm.memory_stats()["limit"]
    nm.empty_cache()
    assert nm.memory_stats()["idle"] == 0
    nm.set_memory_limit(0)
    large()
    assert nm.memory_stats()["idle"] == 0


@pytest.mark.parametrize("limit", [-1, 1.5, True, "1 GB", 2**63])
def test_a_limit_that_is_no_number_of_bytes_is_refused(limit: object) -> None:
    with pytest.raises(ValueError, match="set_memory_limit"):
        nm.set_memory_limit(limit)


def test_the_peak_is_that_since_the_last_reset() -> None:
    base = nm.memory_stats()["peak"]
    arrays = [large(), large()]
    size = arrays[0].nbytes
    assert nm.memory_stats()["peak"] == base + 2 * size
    del arrays
    assert nm.memory_stats()["peak"] == base + 2 * size
    nm.reset_peak_memory()
    assert nm.memory_stats()["peak"] == used()


def test_no_memory_says_for_what() -> None:
    with pytest.raises(MemoryError, match=r"conv2d: there is no memory for a result of shape \(1048576, 1073741824\)"):
        backend.empty("conv2d", LIKE, (2**20, 2**30))
    with pytest.raises(nm.ShapeError, match="conv2d: the result's shape"):
        backend.empty("conv2d", LIKE, (2**40, 2**40))
    large()  # and the pool still works


@pytest.mark.parametrize("shape", [(-1,), (2, -5)])
def test_negative_sizes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="negative"):
        _cpu.empty(shape, np.float32)


def test_arrays_of_many_threads_do_not_share_blocks() -> None:
    before = used()
    faults = []

    def work(number: int) -> None:
        for i in range(200):
            array = backend.empty("test", LIKE, (17_000 * (1 + i % 3),))
            array[...] = number
            other = array[5:]
            del array
            if not (other == number).all():
                faults.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and used() == before


def test_a_forked_child_takes_and_returns_blocks() -> None:
    kept = large()
    child = os.fork()
    if child == 0:
        fine = large().nbytes == kept.nbytes
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_arrays_that_outlive_the_interpreter_do_no_harm() -> None:
    program = (
        "import sys, numpy as np, tinygrad_nm as nm\n"
        "x = nm.tensor(np.ones((300, 300), np.float32))\n"
        "sys.kept = [nm.tanh(x), nm.tanh(x).numpy()[::2]]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
