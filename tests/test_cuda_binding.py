"""The module `_cuda` without a GPU: its names, what it says is missing, and what it refuses before it asks CUDA."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bindings_cases import KERNELS, Kernel
from tinygrad_nm import _cpu

if importlib.util.find_spec("tinygrad_nm._cuda") is None:
    reason = _cpu.build_options()["cuda"]
    pytest.skip(f"_cuda is not part of this build ({reason})", allow_module_level=True)

from tinygrad_nm import _cuda

CPU_ONLY = {
    *("empty", "empty_cache", "set_memory_limit", "memory_stats", "reset_peak_memory"),
    *("max_threads", "set_max_threads", "threads_used", "arena_bytes", "build_options"),
}
SHARED = sorted({name for name in dir(_cpu) if not name.startswith("_")} - CPU_ONLY)
# Valid arguments end here: without a driver, or with one that does not know the address.
AT_THE_DEVICE = r"there is no CUDA driver|finds no GPU|the CUDA driver knows|does not lie in a GPU's memory"


class OnGpu:
    """Says that it is an array on a GPU; nothing lies at its address. The arguments change what it says."""

    def __init__(self, like: np.ndarray, address: int, **changes: Any) -> None:
        self.like, self.address = like, address
        self.__cuda_array_interface__ = {
            "shape": like.shape,
            "typestr": like.dtype.str,
            "data": (address, False),
            "strides": None,
            "version": 3,
            "stream": 1,
        } | changes

    def changed(self, **changes: Any) -> OnGpu:
        return OnGpu(self.like, self.address, **changes)


def on_gpu(kernel: Kernel) -> list[Any]:
    """Valid arguments of a kernel, each array a page or more after the one before."""
    address = 1 << 20
    arguments = kernel.arguments(np.float32)
    for i, argument in enumerate(arguments):
        if isinstance(argument, np.ndarray):
            arguments[i] = OnGpu(argument, address)
            address += (argument.nbytes // 4096 + 2) * 4096
    return arguments


def call(kernel: Kernel, arguments: list[Any]) -> None:
    getattr(_cuda, kernel.name)(*arguments)


UNFUSED = [kernel for kernel in KERNELS if not kernel.name.startswith("conv2d_pool2d")]  # there is no fused kernel


def places(written: bool) -> list[Any]:
    """Every (kernel, place) of an array that the kernel writes, or that it only reads."""
    return [
        pytest.param(kernel, i, id=f"{kernel.id}-{i}")
        for kernel in UNFUSED
        for i in (kernel.written if written else kernel.inputs(kernel.arguments(np.float32)))
    ]


def test_importing_looks_for_no_driver() -> None:
    def libraries(program: str) -> str:
        environment = {"LD_DEBUG": "libs", "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        return done.stderr

    imported = "from tinygrad_nm import _cuda"
    assert "/_cuda." in libraries(imported)
    assert "libcuda" not in libraries(imported)
    asked = f"{imported}\ntry: _cuda.device_count()\nexcept RuntimeError: pass"
    assert "libcuda.so" in libraries(asked), "this test would not see it"


def test_it_has_every_kernel_of_the_cpu_with_the_same_arguments_and_words() -> None:
    assert {kernel.name for kernel in KERNELS} <= set(SHARED)
    for name in SHARED:
        assert getattr(_cuda, name).__doc__ == getattr(_cpu, name).__doc__


def test_it_has_what_the_emulated_device_has() -> None:
    emulated = pytest.importorskip("tinygrad_nm._cuda_emulated")
    for name in SHARED:
        assert getattr(_cuda, name).__doc__ == getattr(emulated, name).__doc__


def test_one_table_of_kernels_says_what_it_was_compiled_for() -> None:
    ((name, available, why),) = _cuda.isas()
    assert (name, available) == ("cuda", True) and _cuda.isa() == name
    assert re.fullmatch(r"compiled for (sm|compute)_\d+(, (sm|compute)_\d+)*", why)
    with pytest.raises(ValueError, match="unknown instruction set 'sm_75', use one of cuda"):
        _cuda.set_isa("sm_75")


def test_the_variable_of_the_emulated_device_does_not_concern_it() -> None:
    program = "from tinygrad_nm import _cuda; print(_cuda.isa())"
    environment = {"TINYGRAD_NM_CUDA_ARCHITECTURE": "sm_75", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "cuda\n"


def test_the_runtime_says_its_version_without_a_driver() -> None:
    assert 12000 <= _cuda.runtime_version() < 20000


@pytest.mark.parametrize(
    "ask",
    [
        _cuda.driver_version,
        _cuda.device_count,
        _cuda.synchronize,
        lambda: _cuda.device_name(0),
        lambda: _cuda.compute_capability(0),
    ],
)
def test_without_a_gpu_the_reason_is_given(ask: Callable[[], Any]) -> None:
    try:
        count = _cuda.device_count()
    except RuntimeError as error:
        count, why = 0, str(error)
    if count:
        assert ask() != 0
        return
    if ask is _cuda.driver_version and "no CUDA driver" not in why:
        assert ask() >= 12000
        return
    with pytest.raises(RuntimeError, match=r"there is no CUDA driver.*install|finds no GPU|the CUDA driver knows"):
        ask()


def test_the_stream_is_a_number_that_is_kept() -> None:
    before = _cuda.get_stream()
    _cuda.set_stream(0x7F0000001000)
    assert _cuda.get_stream() == 0x7F0000001000
    _cuda.set_stream(0)
    assert _cuda.get_stream() == 1
    _cuda.set_stream(before)
    with pytest.raises(TypeError):
        _cuda.set_stream(-1)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kernel", UNFUSED, ids=lambda k: k.id)
def test_valid_arguments_come_as_far_as_the_device(kernel: Kernel, version: int) -> None:
    """PyTorch's arrays are of version 2, which has no stream."""
    arguments = on_gpu(kernel)
    for i, a in enumerate(arguments):
        if isinstance(a, OnGpu):
            arguments[i] = a.changed(version=version, stream=None)
    with pytest.raises((RuntimeError, ValueError), match=AT_THE_DEVICE):
        call(kernel, arguments)


@pytest.mark.parametrize("kernel", UNFUSED, ids=lambda k: k.id)
def test_arrays_of_numpy_are_refused(kernel: Kernel) -> None:
    for i in [*kernel.written, *kernel.inputs(kernel.arguments(np.float32))]:
        arguments = on_gpu(kernel)
        arguments[i] = arguments[i].like
        with pytest.raises(TypeError, match=kernel.error + r".*__cuda_array_interface__.* not numpy.ndarray"):
            call(kernel, arguments)


MALFORMED = {
    "is of version 1": {"version": 1},
    "is of version 4": {"version": 4},
    "has no integer in its version": {"version": None},
    "has the typestr": {"typestr": "f"},
    "has no text as its typestr": {"typestr": None},
    "has no tuple as its shape": {"shape": 3},
    "has no integer in its shape": {"shape": (2.0,)},
    "has a negative size": {"shape": (-1,)},
    "has not as many strides as sizes": {"strides": (4,) * 9},
    "has no pair as its data": {"data": 4096},
    "has no integer in its data": {"data": (None, False)},
    "has a mask": {"mask": object()},
    "has the stream 0": {"stream": 0},
    "has no integer in its stream": {"stream": "1"},
}


@pytest.mark.parametrize("what", MALFORMED)
def test_interfaces_that_do_not_follow_version_3_are_refused(what: str) -> None:
    for place, name in ((0, "out"), (1, "a")):
        arguments = on_gpu(KERNELS[0])
        arguments[place] = arguments[place].changed(**MALFORMED[what])
        with pytest.raises(ValueError, match=f"^gemm: the __cuda_array_interface__ of {name} {what}.*, pass"):
            call(KERNELS[0], arguments)


def test_an_interface_that_raises_tells_its_own_error() -> None:
    class Lost:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            raise RuntimeError("its memory is gone")

    arguments = on_gpu(KERNELS[0])
    arguments[1] = Lost()
    with pytest.raises(RuntimeError, match="its memory is gone"):
        call(KERNELS[0], arguments)


@pytest.mark.parametrize(("kernel", "place"), [*places(written=True), *places(written=False)])
def test_wrong_dtypes_are_refused(kernel: Kernel, place: int) -> None:
    for typestr, name in (("<f2", "float16"), ("<i2", "int16"), ("|b1", "bool"), ("<c8", "complex64")):
        arguments = on_gpu(kernel)
        arguments[place] = arguments[place].changed(typestr=typestr)
        with pytest.raises(TypeError, match=kernel.error + rf".* has dtype {name}, "):
            call(kernel, arguments)


def interleaved(a: OnGpu) -> dict[str, Any]:
    """Every second element of a larger array."""
    contiguous = a.like.strides
    return {"strides": tuple(2 * step for step in contiguous)}


@pytest.mark.parametrize(("kernel", "place"), places(written=True))
def test_results_that_cannot_be_written_are_refused(kernel: Kernel, place: int) -> None:
    original = on_gpu(kernel)[place]
    spoilt = {
        "not writeable": {"data": (original.address, True)},
        "not C-contiguous, allocate it with cupy.empty": interleaved(original),
    }
    if original.like.itemsize > 1:
        spoilt["not aligned"] = {"data": (original.address + 1, False)}
        spoilt["not in the processor's byte order"] = {"typestr": original.like.dtype.newbyteorder("S").str}
    for words, changes in spoilt.items():
        arguments = on_gpu(kernel)
        arguments[place] = original.changed(**changes)
        with pytest.raises(ValueError, match=kernel.error + rf".* is {words}"):
            call(kernel, arguments)


@pytest.mark.parametrize(("kernel", "place"), places(written=False))
def test_nothing_is_copied_behind_the_callers_back(kernel: Kernel, place: int) -> None:
    """Only the operands of gemm come with strides of their own."""
    arguments = on_gpu(kernel)
    arguments[place] = arguments[place].changed(**interleaved(arguments[place]))
    if kernel.name == "gemm" and place in (1, 2):
        with pytest.raises((RuntimeError, ValueError), match=AT_THE_DEVICE):
            call(kernel, arguments)
    else:
        with pytest.raises(ValueError, match=r"is not C-contiguous, make it so with cupy.ascontiguousarray"):
            call(kernel, arguments)


def test_strides_of_axes_of_one_element_and_of_empty_arrays_do_not_count() -> None:
    x, out = np.empty((1, 3), np.float32), np.empty((3, 1, 1), np.float32)
    with pytest.raises((RuntimeError, ValueError), match=AT_THE_DEVICE):
        _cuda.activation_forward(OnGpu(x, 4096, strides=(400, 4)), OnGpu(x, 8192, strides=(0, 4)), "relu", 0.0)
    with pytest.raises((RuntimeError, ValueError), match=AT_THE_DEVICE):
        _cuda.activation_forward(OnGpu(out, 4096, strides=(4, 1, 7)), OnGpu(out, 8192), "relu", 0.0)
    empty = np.empty((0, 3), np.float32)
    with pytest.raises(ValueError, match="out has shape"):
        _cuda.activation_forward(OnGpu(empty, 0, strides=(1, 1)), OnGpu(x, 4096), "relu", 0.0)


@pytest.mark.parametrize(("kernel", "place"), places(written=True))
def test_overlap_is_refused(kernel: Kernel, place: int) -> None:
    """The last number of the result is the first of an input, and the other way round."""
    for other in kernel.inputs(kernel.arguments(np.float32)):
        arguments = on_gpu(kernel)
        out, x = arguments[place], arguments[other]
        size = max(out.like.itemsize, x.like.itemsize)
        last, first = out.like.nbytes // size * size - size, size - x.like.nbytes // size * size
        for offset in (last, first):
            arguments[other] = x.changed(data=(out.address + offset, False))
            with pytest.raises(ValueError, match=kernel.error + r".* overlaps .* in memory"):
                call(kernel, arguments)


def test_neighbours_do_not_overlap() -> None:
    x = np.empty(16, np.float32)
    with pytest.raises((RuntimeError, ValueError), match=AT_THE_DEVICE):
        _cuda.activation_forward(OnGpu(x, 4096), OnGpu(x, 4096 + x.nbytes), "relu", 0.0)


def test_interleaved_views_count_as_overlapping() -> None:
    """Whether strided operands share an element with a result is not worked out: here `out` lies between two rows."""
    rows = OnGpu(np.empty((2, 2), np.float32), 4096, strides=(32, 4))
    a, out = OnGpu(np.empty((1, 2), np.float32), 1 << 20), np.empty((1, 2), np.float32)
    with pytest.raises(ValueError, match="gemm: out overlaps b in memory"):
        _cuda.gemm(OnGpu(out, 4096 + 16), a, rows)
    with pytest.raises((RuntimeError, ValueError), match=AT_THE_DEVICE):
        _cuda.gemm(OnGpu(out, 4096 + 48), a, rows)
