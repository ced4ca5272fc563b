"""Device "cuda": CuPy's arrays, with the kernels of the module _cuda. Imported when the device is first asked for.

"cuda" is the first GPU, "cuda:1" the second. Naming one makes it this thread's current device, as
`cupy.cuda.Device(1).use()` does: CuPy computes on the current device.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Sequence
from typing import Any

from . import _cpu
from ._errors import DeviceError
from .device import Device, Kernels, number_of, sum_on_device


def load() -> tuple[type, Device]:
    """The row of backend.DEVICES. Raises DeviceError with what is missing: kernels, CuPy, driver, GPU or compiler."""
    module = _module()
    major = _said(module.runtime_version)[0] // 1000 or 13  # of CUDA
    cupy = _cupy(major)
    count = _count(module)
    _check_compiler(cupy, major)
    return cupy.ndarray, Device(
        name="cuda",
        kernels=Kernels(module, functools.partial(_prepare, cupy, module, _Followed())),
        xp=cupy,
        empty=cupy.empty,
        read=lambda array: array.get(),
        write=lambda out, values: out.set(values),
        scalar=number_of,
        sum_at=functools.partial(sum_on_device, cupy),
        address=lambda array: array.data.ptr,
        name_of=lambda array: f"cuda:{array.device.id}" if array.device.id else "cuda",
        select=functools.partial(_select, cupy, count),
        share=cupy.from_dlpack,
    )


def _missing(what: str, mend: str) -> DeviceError:
    return DeviceError(f"device 'cuda' is not available: {what}; {mend}")


def _module() -> Any:
    try:
        return importlib.import_module("._cuda", __package__)
    except ModuleNotFoundError:
        reason = _cpu.build_options().get("cuda", "not in")
        raise _missing(
            f"this installation has no CUDA kernels ({reason})",
            "where there is a CUDA compiler, install again from the source folder: "
            "CMAKE_ARGS=-DTINYGRAD_NM_CUDA=ON pip install --force-reinstall --no-deps .",
        ) from None
    except ImportError as error:
        raise _missing(
            f"its kernels need a CUDA runtime that is not there ({error})", "pip install nvidia-cuda-runtime"
        ) from None


def _cupy(major: int) -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise _missing(f"CuPy cannot be imported ({error})", f"pip install 'tinygrad-nm[cuda{major}]'") from None


def _count(module: Any) -> int:
    """How many GPUs there are."""
    driver, why = _said(module.driver_version)
    if not driver:
        raise _missing(
            why or "there is no CUDA driver",
            "Debian: sudo apt-get install nvidia-driver, Ubuntu: sudo ubuntu-drivers install, and start the machine "
            "again; in a container: docker run --gpus all",
        )
    count, why = _said(module.device_count)
    if not count:
        raise _missing(why or "the CUDA driver finds no GPU", "nvidia-smi tells the driver's version and its GPUs")
    return count


def _check_compiler(cupy: Any, major: int) -> None:
    """CuPy compiles its functions when they are first called, with a library that its package does not bring."""
    try:
        cupy.cuda.nvrtc.getVersion()
    except RuntimeError as error:
        raise _missing(f"CuPy finds no compiler ({error})", f"pip install 'cupy-cuda{major}x[ctk]'") from None


def _said(ask: Any) -> tuple[int, str]:
    """A number that the module tells, or 0 and why it cannot."""
    try:
        return ask(), ""
    except RuntimeError as error:
        return 0, str(error).split(": ", 1)[-1]  # without the function's name


def _select(cupy: Any, count: int, index: int) -> None:
    if index >= count:
        raise DeviceError(
            f"device 'cuda:{index}' is not available: there are {count} GPUs, counted from 0; use a smaller number"
        )
    cupy.cuda.Device(index).use()


class _Followed(threading.local):
    """The stream that this thread's kernels run on: CuPy's current one, when it was last asked."""

    stream = -1


def _prepare(
    cupy: Any, module: Any, followed: _Followed, name: str, arguments: tuple[Any, ...], strided: bool
) -> Sequence[Any]:
    """The kernel runs on CuPy's current stream, on arrays that are contiguous unless it takes others.

    What it writes to, the first argument, stays as it is.
    """
    stream = cupy.cuda.get_current_stream().ptr
    if stream != followed.stream:
        module.set_stream(stream)
        followed.stream = stream
    if strided:
        return arguments
    return [
        cupy.ascontiguousarray(x) if i and isinstance(x, cupy.ndarray) and not x.flags.c_contiguous else x
        for i, x in enumerate(arguments)
    ]
