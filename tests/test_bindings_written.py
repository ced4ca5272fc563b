"""An array that a kernel writes is taken as it is or refused with a reason, never copied."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from bindings_cases import FLOATS, KERNELS, Kernel, written_places
from tinygrad_nm import _cpu

WRITTEN = [pytest.param(k, i, id=f"{k.id}-{i}") for k, i in written_places()]


def _not_contiguous(a: np.ndarray) -> np.ndarray:
    return np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)[..., ::2]


def _reversed(a: np.ndarray) -> np.ndarray:
    return a[..., ::-1]


def _misaligned(a: np.ndarray) -> np.ndarray:
    return np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)


def _read_only(a: np.ndarray) -> np.ndarray:
    a.flags.writeable = False
    return a


def _swapped(a: np.ndarray) -> np.ndarray:
    return a.astype(a.dtype.newbyteorder("S"))


def _other_float(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64 if a.dtype == np.float32 else np.float32)


def _integer(a: np.ndarray) -> np.ndarray:
    return a.astype(np.int16)


def _longer(a: np.ndarray) -> np.ndarray:
    return np.zeros((a.shape[0] + 1, *a.shape[1:]), a.dtype)


def _more_axes(a: np.ndarray) -> np.ndarray:
    return a.reshape(1, 1, 1, *a.shape)


def _flat(a: np.ndarray) -> np.ndarray:
    return a.reshape(-1)[:-1]


def _list(a: np.ndarray) -> list[Any]:
    return a.tolist()


REFUSED = {
    "not contiguous": (_not_contiguous, ValueError),
    "reversed": (_reversed, ValueError),
    "misaligned": (_misaligned, ValueError),
    "read-only": (_read_only, ValueError),
    "big-endian": (_swapped, (TypeError, ValueError)),
    "other float": (_other_float, TypeError),
    "integer": (_integer, TypeError),
    "longer": (_longer, ValueError),
    "more axes": (_more_axes, ValueError),
    "wrong size": (_flat, ValueError),
    "list": (_list, TypeError),
}


def _refusals() -> list[Any]:
    """Every reason for every written array; a byte has neither an alignment nor an order."""
    return [
        pytest.param(kernel, place, reason, id=f"{reason}-{kernel.id}-{place}")
        for reason in REFUSED
        for kernel, place in written_places()
        if kernel.arguments(np.float32)[place].itemsize > 1 or reason not in ("misaligned", "big-endian")
    ]


@pytest.mark.parametrize(("kernel", "place", "reason"), _refusals())
def test_unfit_array_is_refused_and_nothing_is_written(kernel: Kernel, place: int, reason: str) -> None:
    spoil, error = REFUSED[reason]
    arguments = kernel.arguments(np.float32)
    arguments[place] = spoil(arguments[place])
    before = [np.array(arguments[i]) for i in kernel.written]
    with pytest.raises(error, match=kernel.error) as raised:
        kernel(arguments)
    assert len(str(raised.value)) > len(kernel.name) + 20, "says what, where and how to mend"
    for i, old in zip(kernel.written, before, strict=True):
        np.testing.assert_array_equal(np.array(arguments[i]), old)


@pytest.mark.parametrize(("kernel", "place"), WRITTEN)
def test_message_names_the_argument(kernel: Kernel, place: int) -> None:
    documented = getattr(_cpu, kernel.name).__doc__.splitlines()[0]
    names = re.findall(r"[(,] ?(\w+):", documented)
    arguments = kernel.arguments(np.float32)
    arguments[place] = _read_only(arguments[place])
    with pytest.raises(ValueError, match=kernel.error + rf"{names[place]} .*writ"):
        kernel(arguments)


def _overlaps() -> list[Any]:
    rows = []
    for kernel in KERNELS:
        arguments = kernel.arguments(np.float32)
        arrays = [i for i, a in enumerate(arguments) if isinstance(a, np.ndarray)]
        rows += [
            pytest.param(kernel, w, i, id=f"{kernel.id}-{w}-{i}")
            for w in kernel.written
            for i in arrays
            if i != w and (i not in kernel.written or i > w)
        ]
    return rows


@pytest.mark.parametrize(("kernel", "written", "other"), _overlaps())
def test_overlap_is_refused(kernel: Kernel, written: int, other: int) -> None:
    """`other` starts one item before the last item of `written`: one item is shared."""
    arguments = kernel.arguments(np.float32)
    w, o = arguments[written], arguments[other]
    step = w.nbytes - w.nbytes % 8 - 8  # keeps either array aligned
    buffer = np.zeros(step + o.nbytes + w.nbytes, np.uint8)
    arguments[written] = buffer[: w.nbytes].view(w.dtype).reshape(w.shape)
    arguments[other] = buffer[step : step + o.nbytes].view(o.dtype).reshape(o.shape)
    arguments[other][...] = o
    before = buffer.copy()
    with pytest.raises(ValueError, match=kernel.error + r".*overlap"):
        kernel(arguments)
    np.testing.assert_array_equal(buffer, before)


@pytest.mark.parametrize("kernel", [k for k in KERNELS if len(k.written) == 1], ids=lambda k: k.id)
def test_neighbours_in_one_buffer_do_not_overlap(kernel: Kernel) -> None:
    """Parameters are views of one flat buffer: touching arrays are fine."""
    arguments = kernel.arguments(np.float64)
    expected = kernel.answer(np.float64)
    places = [i for i, a in enumerate(arguments) if isinstance(a, np.ndarray)]
    buffer = np.zeros(sum(arguments[i].nbytes + 8 for i in places), np.uint8)
    start = 0
    for i in places:
        a = arguments[i]
        view = buffer[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
        view[...] = a
        arguments[i] = view
        start += a.nbytes + a.nbytes % 8
    for actual, wanted in zip(kernel(arguments), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("kernel", "place"), WRITTEN)
def test_nothing_is_written_outside(kernel: Kernel, place: int, dtype: type) -> None:
    """Guards of 256 bytes before and after the array keep their pattern."""
    arguments = kernel.arguments(dtype)
    old = arguments[place]
    guard = 256
    buffer = np.full(old.nbytes + 2 * guard, 0xA5, np.uint8)
    inner = buffer[guard : guard + old.nbytes].view(old.dtype).reshape(old.shape)
    inner[...] = old
    arguments[place] = inner
    kernel(arguments)
    assert (buffer[:guard] == 0xA5).all()
    assert (buffer[guard + old.nbytes :] == 0xA5).all()
    np.testing.assert_array_equal(inner, kernel.answer(dtype)[kernel.written.index(place)])
