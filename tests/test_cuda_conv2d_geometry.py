"""The CUDA kernels of convolution against the plain loops of reference.py.

A grid of geometries, the edges of every tile, each kernel that a shape may choose, and what is not a number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_conv2d_cases import Case, arrays, by_kernels, by_loops

device = cuda_device.device

FLOATS = [np.float32, np.float64]
FEW_CHANNELS = "conv2d_few_channels"
PATCHES = "conv2d_patches"
ADD_PARTS = "conv2d_add_parts"


@pytest.fixture(autouse=True)
def plain_sums(device: Any) -> Iterator[None]:
    """Not by Winograd's algorithm, whose sums are rounded differently."""
    before = device.get_winograd()
    device.set_winograd(False)
    yield
    device.set_winograd(before)


def check_exact(device: Any, case: Case, dtype: type) -> None:
    a = arrays(case, dtype)
    for name, got, expected in zip(("y", "dx", "dw"), by_kernels(device, case, a), by_loops(case, a)):
        np.testing.assert_array_equal(got, expected, err_msg=f"{name} {case} {dtype.__name__}")


def launched(device: Any, kernel: str, before: dict[str, int]) -> int:
    return device.launches().get(kernel, 0) - before.get(kernel, 0)


def grid() -> list[Case]:
    """Every stride with every padding, dilation and filter, in turn with sizes, channels and groups."""
    strides = [(1, 1), (2, 2), (3, 1), (2, 3)]
    pads = [(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 3), (0, 3, 2, 0)]
    dilations = [(1, 1), (2, 2), (1, 3), (3, 2)]
    kernels = [(1, 1), (3, 3), (2, 3), (5, 5), (4, 1)]
    sizes, channels = [1, 5, 7, 8, 13, 17], [4, 8, 12, 18]
    cases = []
    for turn, (stride, pad, dilation, kernel) in enumerate(itertools.product(strides, pads, dilations, kernels)):
        c, groups = channels[turn % 4], (1, 2, channels[turn % 4])[turn % 3]
        case = Case(
            (turn % 3 + 1, c, sizes[turn % 6], sizes[(turn // 2 + 1) % 6]),
            ((1, 2, 3)[turn % 5 % 3] * c, c // groups, *kernel),
            stride,
            pad,
            dilation,
            groups,
        )
        if case.fits():
            cases.append(case)
    return cases


@pytest.mark.parametrize("part", range(4))
def test_whole_numbers_bit_for_bit_over_a_grid_of_geometries(device: Any, part: int) -> None:
    cases = grid()
    assert len(cases) > 150
    for number, case in enumerate(cases[part::4]):
        check_exact(device, case, FLOATS[number % 2])


# Rows (filters, or channels in the gradient of x) and positions around the edges of every tile, with blocks of channels
# and without.
ROWS_COLUMNS = [
    *[(15, 127), (16, 128), (17, 129), (31, 128), (32, 257), (33, 64), (63, 65), (64, 63), (65, 64)],
    *[(96, 128), (127, 128), (128, 127), (129, 129)],
]
EDGES = [(rows, columns, channels) for rows, columns in ROWS_COLUMNS for channels in ((16, 9) if rows < 65 else (8, 9))]


@pytest.mark.parametrize("dtype", FLOATS)
def test_sizes_around_the_edges_of_every_tile(device: Any, dtype: type) -> None:
    for rows, columns, channels in EDGES:
        check_exact(device, Case((1, channels, 1, columns), (rows, channels, 1, 1)), dtype)


SHAPES = [
    Case((2, 70, 9, 9), (13, 70, 3, 3), pads=(1, 1, 1, 1)),  # a sum of many panels
    Case((1, 3, 24, 22), (5, 3, 19, 17), pads=(2, 0, 0, 2)),
    Case((37, 2, 4, 4), (3, 2, 3, 3)),  # tiles over many images
    Case((5, 16, 5, 5), (20, 16, 5, 5)),  # one result an image
    Case((1, 1, 2, 650), (2, 1, 2, 5), pads=(0, 0, 2, 2)),  # parts of a row
    Case((1, 8, 30, 200), (4, 8, 3, 3), stride=(1, 3)),  # patches of fewer rows than would fit a block
    Case((1, 8, 12, 500), (4, 8, 3, 3), stride=(1, 7)),  # not even one row of results has a patch that fits
    Case((1, 2, 16, 17), (40, 2, 5, 5), pads=(2, 2, 2, 2)),  # several blocks of filters of few channels
    Case((1, 1, 1, 1), (1, 1, 1, 1), stride=(7, 9), pads=(4, 0, 0, 5)),
    Case((1, 1, 4, 1), (1, 1, 1, 3), (1, 100_000_000), (0, 0, 1_000, 1_000)),  # in the padding alone
    Case((2, 8, 12, 13), (8, 8, 3, 5), stride=(2, 2), pads=(1, 1, 2, 2), dilation=(2, 4)),  # taps of few phases
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_shapes_bit_for_bit(device: Any, case: Case, dtype: type) -> None:
    check_exact(device, case, dtype)


# By each way: few channels; tiles with and without blocks of channels; sums in parts.
WAYS = [
    Case((2, 3, 9, 20), (7, 3, 3, 3), (1, 2), (1, 1, 0, 0)),
    Case((1, 16, 5, 9), (20, 16, 1, 1)),
    Case((1, 9, 4, 9), (20, 9, 1, 2)),
    Case((2, 24, 5, 5), (33, 24, 3, 3), pads=(1, 1, 1, 1)),
]


KERNELS = [{FEW_CHANNELS}, {PATCHES}, {PATCHES}, {PATCHES, ADD_PARTS}]


@pytest.mark.parametrize(("case", "kernels"), list(zip(WAYS, KERNELS)))
def test_each_way_is_taken(device: Any, case: Case, kernels: set[str]) -> None:
    a, before = arrays(case, np.float32), device.launches()
    device.conv2d_forward(np.empty(case.y, np.float32), a.x, a.w, None, case.geometry)
    all_kernels = {FEW_CHANNELS, PATCHES, ADD_PARTS}
    assert {kernel for kernel in all_kernels if launched(device, kernel, before)} == kernels


@pytest.mark.parametrize("channels", [1, 8, 9])
def test_nan_and_infinity_propagate_and_the_padding_is_zeros(device: Any, channels: int) -> None:
    """As tests/kernels/conv2d_test.cpp has it for the CPU."""
    case = Case((1, channels, 6, 6), (channels, channels, 3, 3), pads=(1, 1, 1, 1))
    a = arrays(case, np.float64)
    a.w[...] = 0
    a.x[0, 0, 2, 3] = np.inf
    a.dy[0, 0, 4, 1] = np.nan
    y, dx, dw = by_kernels(device, case, a)
    h, w = np.mgrid[:6, :6]
    for o in range(channels):
        np.testing.assert_array_equal(np.isnan(y[0, o]), (abs(h - 2) <= 1) & (abs(w - 3) <= 1))
        np.testing.assert_array_equal(np.isnan(dx[0, o]), (abs(h - 4) <= 1) & (abs(w - 1) <= 1))
    assert np.isnan(dw[0]).all()
    a = arrays(case, np.float64)
    a.w[0, 0, 0, 0] = np.nan
    y, dx, _ = by_kernels(device, case, a)
    assert np.isnan(y[0, 0]).all()
    assert not np.isnan(y[0, 1:]).any()
    assert np.isnan(dx[0, 0, :5, :5]).all()  # the last row and column have no output for this weight
    assert not np.isnan(dx[0, 1:]).any()


@pytest.mark.parametrize("channels", [1, 9])
def test_zeros_of_the_padding_are_values_in_the_gradient_of_w(device: Any, channels: int) -> None:
    case = Case((1, channels, 3, 3), (2, channels, 3, 3), pads=(1, 1, 1, 1))
    a = arrays(case, np.float32)
    a.dy[0, 0, 0, 0] = np.inf  # its window has the padding in the first row and column
    dw = by_kernels(device, case, a)[2]
    assert np.isnan(dw[0, :, 0, :]).all()
    assert np.isnan(dw[0, :, :, 0]).all()
    assert np.isfinite(dw[1]).all()


@pytest.mark.parametrize("case", [*WAYS, Case((1, 16, 4, 8), (20, 16, 1, 1))], ids=str)
def test_results_at_an_odd_address(device: Any, case: Case) -> None:
    """Where neighbours cannot be written together."""
    a = arrays(case, np.float32)
    room = np.full(np.prod(case.y) + 1, np.nan, np.float32)
    y = room[1:].reshape(case.y)
    device.conv2d_forward(y, a.x, a.w, a.bias, case.geometry)
    np.testing.assert_array_equal(y, by_loops(case, a)[0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("channels", [2, 9])
def test_padding_beyond_32_bits(device: Any, channels: int, dtype: type) -> None:
    """Three windows, of which the first and the last lie in the padding alone."""
    far = 2**32
    near = Case((2, channels, 3, 2), (5, channels, 3, 3), pads=(1, 1, 1, 0))
    wide = near._replace(stride=(1, far), pads=(1, 1, far + 1, far))
    assert near.y == (2, 5, 3, 1)
    a = arrays(near, dtype)
    y, dx, dw = by_loops(near, a)
    got_y, got_dx, got_dw = (np.full(shape, np.nan, dtype) for shape in ((2, 5, 3, 3), near.x, near.w))
    dy = np.ones((2, 5, 3, 3), dtype)
    dy[..., 1:2] = a.dy
    device.conv2d_forward(got_y, a.x, a.w, a.bias, wide.geometry)
    device.conv2d_backward_input(got_dx, dy, a.w, wide.geometry)
    device.conv2d_backward_weight(got_dw, a.x, dy, wide.geometry)
    np.testing.assert_array_equal(got_y[..., 1:2], y)
    np.testing.assert_array_equal(got_y[..., ::2], np.broadcast_to(a.bias[:, None, None], (2, 5, 3, 2)))
    np.testing.assert_array_equal(got_dx, dx)
    np.testing.assert_array_equal(got_dw, dw)
