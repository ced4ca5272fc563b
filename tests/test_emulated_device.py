"""The emulated CUDA device from Python: orders, threads, fork, memory. Its faults are planted in tests/cuda."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_device import orders
from tinygrad_nm import _cuda_emulated as fast
from tinygrad_nm import _cuda_emulated_strict as strict

device = cuda_device.device

Numbers = np.ndarray


def _operands(m: int, n: int, k: int, dtype: type = np.float32) -> tuple[Numbers, Numbers]:
    rng = np.random.default_rng(m + n + k)
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)


def _product(module: Any, a: Numbers, b: Numbers) -> Numbers:
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    module.gemm(out, a, b)
    return out


def test_modules_say_what_they_are(device: Any) -> None:
    assert strict.strict and not fast.strict
    assert device.isa() in {"sm_75", "sm_80"}
    assert [name for name, _, _ in fast.isas()] == [name for name, _, _ in strict.isas()] == ["sm_80", "sm_75"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_strict_and_fast_give_the_same_bits_in_every_order(device: Any, dtype: type) -> None:
    a, b = _operands(70, 90, 50, dtype)
    fast.set_isa(device.isa())
    expected = _product(fast, a, b)
    for _ in orders(device):
        assert np.array_equal(_product(device, a, b), expected)


def test_launches_are_counted_by_the_name_of_the_kernel(device: Any) -> None:
    before = device.launches().get("gemm_tiles", 0)
    for _ in range(3):
        _product(device, *_operands(3, 4, 5))
    assert device.launches()["gemm_tiles"] == before + 3
    assert all(name.isidentifier() for name in device.launches())


def test_an_unknown_order_is_refused(device: Any) -> None:
    with pytest.raises(ValueError, match="unknown order 'sideways', use forward, reverse or shuffled"):
        device.set_order("sideways")


def test_an_operand_given_twice(device: Any) -> None:
    a, _ = _operands(40, 40, 40)
    assert np.array_equal(_product(device, a, a.T), _product(device, a, a.T.copy()))


def test_a_result_between_the_rows_of_an_operand(device: Any) -> None:
    rows = np.random.default_rng(0).standard_normal((4, 6))
    expected = rows[::3].copy()
    device.gemm(rows[1:3], rows[::3], np.eye(6))
    assert np.array_equal(rows[1:3], expected)
    assert np.array_equal(rows[::3], expected)


@pytest.mark.parametrize("module", [fast, strict])
@pytest.mark.parametrize("size", [5, 80], ids=["holding the GIL", "without the GIL"])
def test_python_threads_call_at_once(module: Any, size: int) -> None:
    a, b = _operands(size, size, size)
    expected = _product(module, a, b)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(10):
            if not np.array_equal(_product(module, a, b), expected):
                wrong.append("a wrong product")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def _product_of(name: str) -> Numbers:
    return _product({"fast": fast, "strict": strict}[name], *_operands(40, 30, 20))


@pytest.mark.parametrize("name", ["fast", "strict"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_calls_kernels(name: str) -> None:
    expected = _product_of(name)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert np.array_equal(pool.apply_async(_product_of, (name,)).get(60), expected)


def _resident_kilobytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


@pytest.mark.parametrize("module", [fast, strict])
def test_calls_leave_no_memory_behind(module: Any) -> None:
    operands = _operands(3, 4, 5)

    def repeat(times: int) -> int:
        for _ in range(times):
            _product(module, *operands)
        gc.collect()
        return _resident_kilobytes()

    before = repeat(200)
    assert repeat(2000) <= before + 1024
