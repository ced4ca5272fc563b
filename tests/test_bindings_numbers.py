"""What kernels do with special numbers, empty arrays and sizes beyond the machine."""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import sys

import numpy as np
import pytest

from bindings_cases import FLOATS, KERNELS, Kernel, input_places
from tinygrad_nm import _cpu

FLOAT_INPUTS = [
    pytest.param(k, i, id=f"{k.id}-{i}") for k, i in input_places() if k.arguments(np.float32)[i].dtype == np.float32
]
SIZES = (1, 3, 8, 17, 64, 130)  # around every vector length and its remainders


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("kernel", "place"), FLOAT_INPUTS)
def test_nan_in_an_input_reaches_the_result(kernel: Kernel, place: int, dtype: type, isa: str) -> None:
    arguments = kernel.arguments(dtype)
    reached = int(kernel.name == "conv2d_pool2d_backward" and place == 5)  # x has a part in dw, not in dx
    arguments[place][...] = 1
    kept = kernel(arguments)[reached] != 0
    arguments = kernel.arguments(dtype)
    arguments[place][...] = np.nan
    result = kernel(arguments)[reached]
    expect = kept if kernel.name == "dropout" else np.ones_like(kept)  # what is dropped is 0 whatever it was
    if kernel.name == "softmax_cross_entropy_forward":
        expect[1, 1] = False  # the ignored label
    if kernel.name == "softmax_cross_entropy_backward":
        expect[1, :, 1] = False
    if kernel.name in ("max_pool2d_backward", "avg_pool2d_backward", "conv2d_backward_input", "conv2d_pool2d_backward"):
        expect = result != 0  # NaN differs from 0: every element that the gradient reaches
        assert np.isnan(result).sum() >= 10
    np.testing.assert_array_equal(np.isnan(result), expect, err_msg=f"ISA {isa}")


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "tanh", "sigmoid", "softplus", "elu", "gelu", "sin", "exp"])
def test_one_nan_stays_one_nan(kind: str, isa: str) -> None:
    for size in SIZES:
        for place in {0, size // 2, size - 1}:
            x = np.linspace(-2, 2, size, dtype=np.float32)
            x[place] = np.nan
            y = np.zeros_like(x)
            _cpu.activation_forward(y, x, kind, 0.5)
            assert np.flatnonzero(np.isnan(y)).tolist() == [place], (kind, size, isa)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 6), (70, 65, 130), (1, 200, 64), (130, 1, 300)])
def test_beta_zero_never_reads_out(shape: tuple[int, int, int], dtype: type, isa: str) -> None:
    m, n, k = shape
    out = np.full((m, n), np.nan, dtype)
    _cpu.gemm(out, np.ones((m, k), dtype), np.ones((k, n), dtype), 1.0, 0.0)
    np.testing.assert_array_equal(out, np.full((m, n), k, dtype), err_msg=isa)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_skips_zeros(dtype: type, isa: str) -> None:
    """0 * inf and 0 * NaN are NaN wherever they stand in a product."""
    for bad in (np.inf, np.nan):
        for m, n, k in [(1, 1, 1), (7, 9, 5), (65, 40, 70)]:
            b = np.ones((k, n), dtype)
            b[k // 2] = bad
            out = np.zeros((m, n), dtype)
            _cpu.gemm(out, np.zeros((m, k), dtype), b)
            assert np.isnan(out).all(), (bad, m, n, k, isa)
    x, w = np.full((1, 1, 9, 9), np.inf, dtype), np.zeros((1, 1, 3, 3), dtype)
    out = np.zeros((1, 1, 7, 7), dtype)
    _cpu.conv2d_forward(out, x, w, None, (1, 1, 0, 0, 0, 0, 1, 1, 1))
    assert np.isnan(out).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_subnormals(dtype: type, isa: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    for m, n, k in [(1, 1, 1), (7, 9, 5), (65, 200, 130)]:
        out = np.zeros((m, n), dtype)
        _cpu.gemm(out, np.full((m, k), tiny, dtype), np.ones((k, n), dtype))
        np.testing.assert_array_equal(out, np.full((m, n), k * tiny, dtype), err_msg=isa)
    for size in SIZES:
        x = np.full(size, 3 * tiny, dtype)
        for kind in ("relu", "tanh", "sin", "softsign"):
            y = np.zeros_like(x)
            _cpu.activation_forward(y, x, kind, 0.0)
            np.testing.assert_array_equal(y, x, err_msg=f"{kind} {isa}")
        weight = np.zeros(size, dtype)
        _cpu.sgd_update(weight, -x, None, 1.0, 0.0, 0.0, False, False)
        np.testing.assert_array_equal(weight, x, err_msg=f"sgd_update {isa}")


class _FloatingPointEnvironment(ctypes.Structure):
    """glibc's fenv_t on x86-64: the x87 state, then MXCSR (rounding, flush to zero, subnormals are zero)."""

    _fields_ = (("x87", ctypes.c_ubyte * 28), ("mxcsr", ctypes.c_uint32))


def _mode() -> tuple[int, int]:
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    environment = _FloatingPointEnvironment()
    assert library.fegetenv(ctypes.byref(environment)) == 0
    return library.fegetround(), environment.mxcsr & ~0x3F  # without the sticky exception flags


def test_floating_point_mode_is_left_alone(isa: str) -> None:
    before = _mode()
    for dtype in FLOATS:
        for kernel in KERNELS:
            kernel.answer(dtype)
    assert _mode() == before
    assert np.float32(1e-40) * np.float32(0.5) != 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_zero_and_many_axes(dtype: type, isa: str) -> None:
    for shape in [(), (1,), (2, 1, 3, 1, 2, 1, 5), (1,) * 20]:
        x = np.full(shape, -3, dtype)
        out = np.ones(shape, dtype)
        _cpu.activation_forward(out, x, "relu", 0.0)
        np.testing.assert_array_equal(out, np.zeros(shape, dtype), err_msg=isa)
        _cpu.activation_backward(out, x, np.ones(shape, dtype), "relu", 0.0)
        np.testing.assert_array_equal(out, x, err_msg=isa)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 4)])
def test_empty_elementwise(shape: tuple[int, ...], isa: str) -> None:
    out = np.zeros(shape, np.float32)
    _cpu.activation_forward(out, np.zeros(shape, np.float32), "tanh", 0.0)
    flat = out.reshape(-1)
    _cpu.sgd_update(flat, np.zeros_like(flat), np.zeros_like(flat), 0.1, 0.9, 0.0, False, False)
    rows = np.zeros((0, 4), np.float32)
    _cpu.dropout(rows, np.zeros((0, 4), np.float32), 0.5, 1, 1, 0)


def test_empty_products(isa: str) -> None:
    """No rows, no columns: nothing to do. No terms: the sum is 0, then beta, bias and activation act."""
    one = np.float32
    _cpu.gemm(np.zeros((0, 4), one), np.zeros((0, 3), one), np.zeros((3, 4), one))
    _cpu.gemm(np.zeros((5, 0), one), np.zeros((5, 3), one), np.zeros((3, 0), one))
    _cpu.gemm(np.zeros((0, 5, 4), one), np.zeros((0, 5, 3), one), np.zeros((1, 3, 4), one))
    out = np.full((2, 3), 7, one)
    bias = np.array([1, -2, 3], one)
    _cpu.gemm(out, np.zeros((2, 0), one), np.zeros((0, 3), one), 1.0, 2.0, bias, "relu")
    np.testing.assert_array_equal(out, np.array([[15, 12, 17]] * 2, one))
    _cpu.gemm(out, np.zeros((2, 0), one), np.zeros((0, 3), one))
    np.testing.assert_array_equal(out, np.zeros((2, 3), one))


def test_empty_batch(isa: str) -> None:
    """A batch of no images; the gradient of the weights is then a sum of no terms: 0."""
    geometry = (1, 1, 0, 0, 0, 0, 1, 1, 1)
    x, y = np.zeros((0, 2, 5, 5), np.float32), np.zeros((0, 3, 3, 3), np.float32)
    w = np.ones((3, 2, 3, 3), np.float32)
    _cpu.conv2d_forward(y, x, w, None, geometry)
    _cpu.conv2d_backward_input(x, y, w, geometry)
    dw = np.full_like(w, np.nan)
    _cpu.conv2d_backward_weight(dw, x, y, geometry)
    np.testing.assert_array_equal(dw, np.zeros_like(w))
    pool = (3, 3, 1, 1, 0, 0, 0, 0, 1, 1, False)
    pooled = np.zeros((0, 2, 3, 3), np.float32)
    _cpu.max_pool2d_forward(pooled, np.zeros(pooled.shape, np.uint8), x, pool)
    _cpu.avg_pool2d_forward(pooled, x, pool, True)
    _cpu.softmax_cross_entropy_forward(
        np.zeros((0, 1), np.float32), np.zeros((0, 4, 1), np.float32), np.zeros((0, 1), np.int64), -1
    )


HUGE = 2**62


@pytest.mark.parametrize("place", range(8))
def test_overflowing_convolution(place: int) -> None:
    geometry = [1, 1, 0, 0, 0, 0, 1, 1, 1]
    geometry[place] = HUGE
    x, w, y = np.zeros((1, 1, 9, 9)), np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 7, 7))
    for name, arguments in [
        ("conv2d_forward", (y, x, w, None)),
        ("conv2d_backward_input", (x, y, w)),
        ("conv2d_backward_weight", (w, x, y)),
    ]:
        with pytest.raises((ValueError, OverflowError), match=r"conv2d"):
            getattr(_cpu, name)(*arguments, tuple(geometry))


@pytest.mark.parametrize("place", range(10))
def test_overflowing_pooling(place: int) -> None:
    geometry = [3, 3, 1, 1, 0, 0, 0, 0, 1, 1, False]
    geometry[place] = HUGE
    x, y = np.zeros((1, 1, 9, 9)), np.zeros((1, 1, 7, 7))
    with pytest.raises((ValueError, OverflowError), match=r"max_pool2d"):
        _cpu.max_pool2d_forward(y, np.zeros(y.shape, np.uint8), x, tuple(geometry))
    with pytest.raises((ValueError, OverflowError), match=r"avg_pool2d"):
        _cpu.avg_pool2d_forward(y, x, tuple(geometry), True)


def test_number_beyond_64_bits_is_refused() -> None:
    x, y = np.zeros((1, 1, 9, 9)), np.zeros((1, 1, 7, 7))
    with pytest.raises((TypeError, OverflowError)):
        _cpu.avg_pool2d_forward(y, x, (3, 3, 1, 1, 2**64, 0, 0, 0, 1, 1, False), True)


def test_memory_that_does_not_exist() -> None:
    """A zero-strided weight of 2^60 numbers would need 4 exbibytes once made contiguous."""
    w = np.broadcast_to(np.float32(1), (1, 1, 2**30, 2**30))
    x, y = np.zeros((0, 1, 2**30, 2**30), np.float32), np.zeros((0, 1, 1, 1), np.float32)
    with pytest.raises(MemoryError):
        _cpu.conv2d_forward(y, x, w, None, (1, 1, 0, 0, 0, 0, 1, 1, 1))


LIMITED = """
import resource
import numpy as np
from tinygrad_nm import _cpu

_cpu.set_max_threads(2)
small = np.ones((256, 256))
expected = np.full((256, 256), 256.0)
out = np.empty((256, 256))
_cpu.gemm(out, small, small)  # threads and their stacks exist from now on
x = np.ones((1, 1, 3000, 6000))[..., ::2]  # 72 MB once contiguous
w = np.ones((1, 1, 3, 3))
y = np.empty((1, 1, 2998, 2998))
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**22
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for attempt in range(3):
    try:
        _cpu.conv2d_forward(y, x, w, None, (1, 1, 0, 0, 0, 0, 1, 1, 1))
    except MemoryError:
        print("MemoryError")
_cpu.gemm(out, small, small)
print("right" if (out == expected).all() else "wrong")
"""


def test_memory_runs_out_and_the_process_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["MemoryError"] * 3 + ["right"], done.stderr
