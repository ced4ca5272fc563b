"""Inputs of every memory layout give the answer of a contiguous copy, and are never changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bindings_cases import FLOATS, KERNELS, Kernel, input_places

INPUTS = [pytest.param(k, i, id=f"{k.id}-{i}") for k, i in input_places()]


def _every_second(a: np.ndarray) -> np.ndarray:
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), 99, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _backwards(a: np.ndarray) -> np.ndarray:
    every = (slice(None, None, -1),) * a.ndim
    return a[every].copy()[every]


def _misaligned(a: np.ndarray) -> np.ndarray:
    moved = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    moved[...] = a
    return moved


def _odd_stride(a: np.ndarray) -> np.ndarray:
    """A field of a packed record: strides are no multiple of the item's size."""
    record = np.zeros(a.shape, np.dtype([("tag", np.uint8), ("value", a.dtype)]))
    record["value"] = a
    return record["value"]


def _read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def _from_bytes(a: np.ndarray) -> np.ndarray:
    return np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "read-only": _read_only,
    "bytes object": _from_bytes,
    "misaligned": _misaligned,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "every second": _every_second,
    "backwards": _backwards,
    "Fortran order": np.asfortranarray,
    "odd stride": _odd_stride,
    "big-endian, misaligned, backwards": lambda a: _backwards(_odd_stride(a.astype(a.dtype.newbyteorder("S")))),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("kernel", "place"), INPUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_gives_the_same_bits(kernel: Kernel, place: int, layout: str, dtype: type) -> None:
    arguments = kernel.arguments(dtype)
    values = arguments[place].copy()
    arguments[place] = LAYOUTS[layout](values)
    np.testing.assert_array_equal(arguments[place], values)
    strides, flags = arguments[place].strides, arguments[place].flags.writeable
    for actual, expected in zip(kernel(arguments), kernel.answer(dtype), strict=True):
        np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(arguments[place], values)
    assert (arguments[place].strides, arguments[place].flags.writeable) == (strides, flags)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("kernel", "place"), INPUTS)
def test_zero_strides(kernel: Kernel, place: int, dtype: type) -> None:
    """A broadcast input: its first row stands for all of them."""
    broadcast, repeated = kernel.arguments(dtype), kernel.arguments(dtype)
    original = broadcast[place]
    broadcast[place] = np.broadcast_to(original[:1], original.shape)
    repeated[place] = np.ascontiguousarray(broadcast[place])
    assert broadcast[place].strides[0] == 0
    for actual, expected in zip(kernel(broadcast), kernel(repeated), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.id)
def test_inputs_are_unchanged_and_a_second_call_gives_the_same_bits(kernel: Kernel, dtype: type) -> None:
    arguments = kernel.arguments(dtype)
    fresh = kernel.arguments(dtype)
    first = [a.copy() for a in kernel(arguments)]
    for i in kernel.inputs(arguments):
        np.testing.assert_array_equal(arguments[i], fresh[i])
    for i in kernel.written:
        arguments[i][...] = fresh[i]
    for again, once in zip(kernel(arguments), first, strict=True):
        np.testing.assert_array_equal(again, once)


@pytest.mark.parametrize(("kernel", "place"), INPUTS)
def test_wrong_dtype_is_refused(kernel: Kernel, place: int) -> None:
    for wrong in (np.float16, np.int8, np.complex64, np.bool_, object):
        arguments = kernel.arguments(np.float32)
        arguments[place] = arguments[place].astype(wrong)
        with pytest.raises(TypeError, match=kernel.error):
            kernel(arguments)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.id)
def test_float32_and_float64_do_not_mix(kernel: Kernel) -> None:
    for place in kernel.inputs(kernel.arguments(np.float32)):
        arguments = kernel.arguments(np.float32)
        if arguments[place].dtype == np.float32:
            arguments[place] = arguments[place].astype(np.float64)
            with pytest.raises(TypeError, match=kernel.error + r".*float(32|64).*float(64|32)"):
                kernel(arguments)


# the number of classes, and how long the rows are, follow from this input alone
FREE_COLUMNS = {("softmax_cross_entropy_forward", (2, 6, 5)), ("peak_read", (3, 131))}


@pytest.mark.parametrize(("kernel", "place"), INPUTS)
def test_wrong_shape_is_refused(kernel: Kernel, place: int) -> None:
    """Three axes more, one axis fewer, one row more, one channel more."""
    shape = kernel.arguments(np.float32)[place].shape
    wrongs = [(1, 1, 1, *shape)]
    if kernel.name != "bias_backward":  # takes any number of examples
        wrongs.append((shape[0] + 1, *shape[1:]))
    if (kernel.name, len(shape)) != ("gemm", 3):  # one matrix may serve a whole batch
        wrongs.append(shape[1:])
    if len(shape) > 1 and (kernel.name, shape) not in FREE_COLUMNS:
        wrongs.append((shape[0], shape[1] + 1, *shape[2:]))
    for wrong in wrongs:
        arguments = kernel.arguments(np.float32)
        arguments[place] = np.zeros(wrong, arguments[place].dtype)
        with pytest.raises(ValueError, match=kernel.error):
            kernel(arguments)


@pytest.mark.parametrize(("kernel", "place"), INPUTS)
def test_input_that_is_no_array_is_refused(kernel: Kernel, place: int) -> None:
    for wrong in ([1.0, 2.0], "x", 1.0, None):
        arguments = kernel.arguments(np.float32)
        if wrong is None and arguments[place].ndim == 1:  # bias and velocity may be left out
            continue
        arguments[place] = wrong
        with pytest.raises(TypeError):
            kernel(arguments)
