"""The CUDA kernels of matrix products: every tile and its edges, every way to read operands, split sums, epilogues."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_device import orders
from reference import ACTIVATIONS, PARAMETERS, activation
from tinygrad_nm import _cuda_emulated as fast

device = cuda_device.device

FLOATS = (np.float32, np.float64)
SIZES = [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129]  # around the sides of the tiles
# (M, N, K): each tile of gemm.cu's table, its edges, sums shorter than a panel, at its end and beyond
SHAPES = [
    *((m, 5, 3) for m in SIZES),
    *((5, n, 17) for n in SIZES),
    *((m, m, 16) for m in SIZES),
    (66, 130, 200),
    (33, 36, 40),
    (40, 64, 15),
    (3, 4, 0),
    (12, 20, 300),  # split
    (9, 10, 1000),
    (1, 1, 700),
    (1, 50, 400),
    (50, 1, 400),
]


def whole(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(-4, 5, shape).astype(np.float64)


def garbage(*shape: int, dtype: Any) -> np.ndarray:
    return np.full(shape, np.nan, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_numbers_match_bit_for_bit(device: Any, shape: tuple[int, int, int], turned: str, dtype: type) -> None:
    m, n, k = shape
    a, b = whole(m, k).astype(dtype), whole(k, n, seed=1).astype(dtype)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    if "a" in turned:
        a = np.ascontiguousarray(a.T).T
    if "b" in turned:
        b = np.ascontiguousarray(b.T).T
    out = garbage(m, n, dtype=dtype)
    device.gemm(out, a, b)
    np.testing.assert_array_equal(out, expected)


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """The same matrices: t, each column adjacent in memory; s, neither rows nor columns; and with adjacent rows, which
    are an odd number apart (u), 8 and more apart but begin at an odd address (o), or at multiples of 16 bytes (p).
    """
    if layout == "t":
        return np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)
    if layout == "s":
        return np.repeat(x, 2, axis=2)[:, :, ::2]
    columns = x.shape[2]
    behind = {"n": 0, "u": 1 + columns % 2, "o": 7 - columns % 4, "p": 8 - columns % 4}[layout]
    before = int(layout == "o")
    return np.pad(x, ((0, 0), (0, 0), (before, behind)))[:, :, before : before + columns]


# (batch, M, N, K) of 48 tiles and more of 64 x 64, with 96 of the largest: there each layout has a kernel of its own.
# K ends in, at and behind a panel, of 16 or 8, and there are none, one or two between the first panel and the last.
@pytest.mark.parametrize("layouts", ["nn", "nt", "tn", "tt", "su", "ts", "uo", "np"])
@pytest.mark.parametrize("shape", [(12, 65, 68, 33), (48, 64, 64, 16), (12, 66, 65, 20), (24, 36, 72, 49)], ids=str)
def test_middle_tiles_in_each_layout(device: Any, shape: tuple[int, int, int, int], layouts: str) -> None:
    batch, m, n, k = shape
    a, b = whole(batch, m, k), whole(batch, k, n, seed=1)
    for dtype in FLOATS:
        out = garbage(batch, m, n, dtype=dtype)
        device.gemm(out, laid_out(a.astype(dtype), layouts[0]), laid_out(b.astype(dtype), layouts[1]))
        np.testing.assert_array_equal(out, a @ b)


@pytest.mark.parametrize("layouts", ["nn", "nt", "tn", "tt"])
def test_the_large_tiles(device: Any, layouts: str) -> None:
    """96 tiles, a row of them at the edge of C; the order of threads differs from case to case."""
    for dtype, m, n, k in ((np.float32, 1028, 1284, 33), (np.float64, 1028, 644, 17)):
        a, b = whole(1, m, k), whole(1, k, n, seed=1)
        out = garbage(1, m, n, dtype=dtype)
        device.set_order("reverse" if layouts[0] == "n" else "shuffled", 1)
        device.gemm(out, laid_out(a.astype(dtype), layouts[0]), laid_out(b.astype(dtype), layouts[1]))
        device.set_order("forward")
        np.testing.assert_array_equal(out, a @ b)


def coarse(*shape: int, seed: int) -> np.ndarray:
    """float32 whose products, and sums of few thousand of these, float64 holds without rounding."""
    rng = np.random.default_rng([seed, *shape])
    return np.ldexp(rng.integers(-127, 128, shape).astype(np.float32), -rng.integers(0, 9, shape))


def in_order(a: np.ndarray, b: np.ndarray, parts: list[int]) -> np.ndarray:
    """The sum as gemm.cu has it: of float32, one fma after the other within each part of k, then part after part."""
    sums = []
    for begin, end in itertools.pairwise(parts):
        acc = np.zeros((a.shape[0], b.shape[1]), np.float32)
        for p in range(begin, end):
            acc = (acc.astype(np.float64) + np.outer(a[:, p].astype(np.float64), b[p])).astype(np.float32)
        sums.append(acc)
    return sum(sums[1:], sums[0])


@pytest.mark.parametrize(
    ("m", "n", "k", "parts"),
    [
        (36, 40, 70, [0, 70]),
        (3, 5, 255, [0, 255]),
        (12, 20, 300, [0, 144, 300]),  # 18 units of 16 and a rest
        (4, 133, 410, [0, 144, 272, 410]),  # 25 units: the first part has one more
        (1, 1, 530, [0, 144, 272, 400, 530]),
    ],
)
def test_the_order_of_the_sum_is_the_documented_one(device: Any, m: int, n: int, k: int, parts: list[int]) -> None:
    a, b = coarse(m, k, seed=5), coarse(k, n, seed=6)
    expected = in_order(a, b, parts)
    assert (expected != a.astype(np.float64) @ b).any()  # it matters
    for layouts in ("nn", "tt", "su"):
        out = garbage(1, m, n, dtype=np.float32)
        device.gemm(out, laid_out(a[None], layouts[0]), laid_out(b[None], layouts[1]))
        np.testing.assert_array_equal(out[0], expected)


def test_larger_tiles_add_in_the_same_order(device: Any) -> None:
    a, b = coarse(65, 40, seed=7), coarse(40, 68, seed=8)
    for layouts in ("nn", "nt", "tt", "us"):
        out = garbage(12, 65, 68, dtype=np.float32)
        device.gemm(out, laid_out(a[None], layouts[0]), laid_out(b[None], layouts[1]))
        np.testing.assert_array_equal(out, np.broadcast_to(in_order(a, b, [0, 40]), out.shape))


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_order_of_blocks_and_threads_gives_the_same_bits(device: Any, dtype: type) -> None:
    rng = np.random.default_rng(2)
    for m, n, k in [(70, 37, 33), (12, 20, 500)]:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        results = []
        for _ in orders(device):
            out = garbage(m, n, dtype=dtype)
            device.gemm(out, a, b)
            results.append(out.tobytes())
        assert len(results) == 3 and len(set(results)) == 1


@pytest.mark.parametrize("shape", [(70, 37, 33), (33, 64, 128), (12, 20, 500), (1, 9, 700)])
def test_float32_within_its_bound(device: Any, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    out = garbage(m, n, dtype=np.float32)
    device.gemm(out, a, b)
    bound = 2 * np.sqrt(k) * np.finfo(np.float32).eps * (np.abs(a).astype(float) @ np.abs(b))
    assert (np.abs(out - a.astype(float) @ b) <= bound).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("m", "n", "k"), [(5, 7, 3), (36, 40, 20), (12, 20, 300)])
def test_alpha_beta_bias(device: Any, m: int, n: int, k: int, dtype: type) -> None:
    a, b, c, bias = (x.astype(dtype) for x in (whole(m, k), whole(k, n, seed=1), whole(m, n), whole(n)))
    for alpha, beta in ((2.0, 3.0), (-1.0, -2.0)):
        out = c.copy()
        device.gemm(out, a, b, alpha, beta, bias)
        np.testing.assert_array_equal(out, alpha * (a.astype(float) @ b) + beta * c + bias)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("m", "n", "k"), [(8, 8, 4), (36, 40, 20), (12, 20, 300)])
def test_results_that_begin_at_an_odd_address(device: Any, m: int, n: int, k: int, dtype: type) -> None:
    """Whole vectors in every row, yet none may be stored as one."""
    a, b = whole(m, k).astype(dtype), whole(k, n, seed=1).astype(dtype)
    out = garbage(m * n + 1, dtype=dtype)[1:].reshape(m, n)
    device.gemm(out, a, b)
    np.testing.assert_array_equal(out, a.astype(float) @ b)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(device: Any, kind: str, dtype: type) -> None:
    rng = np.random.default_rng(4)
    for m, n, k in [(6, 11, 4), (4, 8, 300)]:
        a, b = rng.standard_normal((m, k)) / np.sqrt(k), rng.standard_normal((k, n))
        bias = rng.standard_normal(n)
        out = garbage(m, n, dtype=dtype)
        parameter = PARAMETERS.get(kind, 0.0)
        device.gemm(out, *(x.astype(dtype) for x in (a, b)), 1.0, 0.0, bias.astype(dtype), kind, parameter)
        expected = activation(a @ b + bias, kind, parameter)
        error = np.abs(out - expected) / (1 + np.abs(expected))
        assert error.max() <= (1e-12 if dtype is np.float64 else 1e-5), kind


@pytest.mark.parametrize("dtype", FLOATS)
def test_batches_and_strides(device: Any, dtype: type) -> None:
    a, b = whole(3, 9, 20).astype(dtype), whole(3, 20, 10, seed=1).astype(dtype)
    expected = a.astype(float) @ b
    out = garbage(3, 9, 10, dtype=dtype)
    device.gemm(out, a, b)
    np.testing.assert_array_equal(out, expected)
    device.gemm(out, a[:1], b)  # the same matrix for each
    np.testing.assert_array_equal(out, a[:1].astype(float) @ b)
    device.gemm(out, a[:, ::-1], b[:, :, ::-1])  # negative
    np.testing.assert_array_equal(out, expected[:, ::-1, ::-1])
    device.gemm(out, np.broadcast_to(a[:, :1], a.shape), b)  # zero
    np.testing.assert_array_equal(out, np.broadcast_to(expected[:, :1], expected.shape))
    wide = whole(9, 40).astype(dtype)
    device.gemm(out[0], wide[:, ::2], b[0])
    np.testing.assert_array_equal(out[0], wide[:, ::2].astype(float) @ b[0])


def test_more_batches_than_a_grid_has_places() -> None:
    """Four million threads: on the fast device."""
    batch = 65536 + 3
    a = (np.arange(batch) % 7).astype(np.float32).reshape(batch, 1, 1)
    out = garbage(batch, 1, 1, dtype=np.float32)
    fast.gemm(out, a, np.full((1, 1, 1), 2, np.float32))
    np.testing.assert_array_equal(out, 2 * a)


def test_nan_and_infinity_reach_the_results_that_they_belong_to(device: Any) -> None:
    a, b = np.zeros((40, 33), np.float32), np.zeros((33, 40), np.float32)
    a[7, 32] = np.nan
    b[0, 11] = np.inf
    out = garbage(40, 40, dtype=np.float32)
    device.gemm(out, a, b)
    expected = np.zeros((40, 40), bool)
    expected[7] = expected[:, 11] = True
    np.testing.assert_array_equal(np.isnan(out), expected)


def test_nothing_to_do(device: Any) -> None:
    for m, n in [(0, 3), (3, 0)]:
        device.gemm(np.zeros((m, n), np.float32), np.zeros((m, 4), np.float32), np.zeros((4, n), np.float32))
    device.gemm(np.zeros((0, 2, 3)), np.zeros((0, 2, 4)), np.zeros((0, 4, 3)))
