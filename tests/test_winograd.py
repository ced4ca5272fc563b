"""Convolutions by Winograd's algorithm: when they are used, that they are right, and how large their errors are."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import _cpu, backend

DENOMINATORS = 576  # of the transforms, both ways
# N, C, H, W, O, K, padding, groups: AlexNet's layers with fewer channels, and sizes that leave parts of tiles
SHAPES = [
    (4, 32, 13, 13, 48, 3, 1, 1),
    (3, 64, 14, 10, 64, 3, 1, 2),
    (2, 32, 27, 27, 48, 5, 2, 1),
    (3, 48, 16, 18, 64, 5, 2, 2),
]
# The same and a stride: few channels, whose phases are then channels; the gradient in x is the plain sum
STRIDED = [(4, 3, 67, 63, 32, 11, 0, 1, 4), (3, 3, 64, 66, 24, 11, 2, 1, 4), (4, 4, 41, 36, 48, 5, 2, 1, 2)]
# The largest error of a result relative to the largest result, over all draws below; conv2d.h states it too.
LARGEST_ERROR = 3e-5


@pytest.fixture(autouse=True)
def setting_restored() -> Iterator[None]:
    before = nm.get_winograd(), nm.get_winograd(np.float64)
    yield
    nm.set_winograd(before[0])
    nm.set_winograd(before[1], np.float64)


class Passes:
    """x, w, dy of a shape, and the three passes with the algorithm on or off."""

    def __init__(self, shape: tuple[int, ...], draw: Any, dtype: Any = np.float32) -> None:
        n, c, h, w, o, k, padding, groups, stride = (*shape, 1)[:9]
        self.geometry = (stride, stride, *[padding] * 4, 1, 1, groups)
        self.x, self.w = draw(n, c, h, w).astype(dtype), draw(o, c // groups, k, k).astype(dtype)
        out = [(size + 2 * padding - k) // stride + 1 for size in (h, w)]
        self.dy = draw(n, o, *out).astype(dtype)

    def __call__(self, winograd: bool) -> list[np.ndarray]:
        nm.set_winograd(winograd, self.x.dtype)
        y, dx, dw = (np.full_like(a, np.nan) for a in (self.dy, self.x, self.w))
        _cpu.conv2d_forward(y, self.x, self.w, None, self.geometry)
        _cpu.conv2d_backward_input(dx, self.dy, self.w, self.geometry)
        _cpu.conv2d_backward_weight(dw, self.x, self.dy, self.geometry)
        return [y, dx, dw]

    def cast(self, dtype: Any) -> Passes:
        other = object.__new__(Passes)
        other.geometry = self.geometry
        other.x, other.w, other.dy = (a.astype(dtype) for a in (self.x, self.w, self.dy))
        return other


def _normal(seed: int) -> Any:
    generator = np.random.default_rng(seed)
    return lambda *shape: generator.standard_normal(shape)


def _different(a: list[np.ndarray], b: list[np.ndarray]) -> list[bool]:
    return [x.tobytes() != y.tobytes() for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("shape", SHAPES + STRIDED)
def test_option_turns_it_on_and_off(shape: tuple[int, ...], isa: str) -> None:
    passes = Passes(shape, _normal(1))
    plain = passes(False)
    assert _different(passes(True), plain) == [True, shape in SHAPES, True], "these shapes are large enough for it"
    with backend.without_winograd():
        assert _different(passes(True), plain) == [False] * 3


def test_on_for_float32_only_unless_asked() -> None:
    assert nm.get_winograd() and not nm.get_winograd(np.float64)
    passes = Passes(SHAPES[0], _normal(1), np.float64)
    plain, fast = passes(False), passes(True)
    assert nm.get_winograd(np.float64)
    assert _different(fast, plain) == [True] * 3
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


def test_option_takes_a_bool_and_a_float_type() -> None:
    with pytest.raises(ValueError, match="set_winograd: 'off' is not True or False"):
        nm.set_winograd("off")  # type: ignore[arg-type]
    with pytest.raises(nm.DtypeError, match="set_winograd: int64 is not supported; use float32 or float64"):
        nm.set_winograd(True, np.int64)
    with pytest.raises(nm.DtypeError, match="get_winograd: float16"):
        nm.get_winograd(np.float16)


def test_one_thread_forbids_it_for_itself_only() -> None:
    passes = Passes(SHAPES[0], _normal(1))
    plain, fast = passes(False), passes(True)
    inside: list[list[np.ndarray]] = []
    with backend.without_winograd(), backend.without_winograd():
        other = threading.Thread(target=lambda: inside.append(passes(True)))
        other.start()
        other.join()
    assert _different(inside[0], fast) == [False] * 3
    assert _different(passes(True), plain) == [True] * 3


def test_check_does_not_use_it() -> None:
    generator = np.random.default_rng(2)
    x, weight = generator.standard_normal((1, 32, 13, 13)), generator.standard_normal((16, 32, 3, 3))
    nm.set_winograd(True, np.float64)
    plain, seen = np.empty((1, 16, 13, 13)), []
    with backend.without_winograd():
        _cpu.conv2d_forward(plain, x, weight, None, (1, 1, 1, 1, 1, 1, 1, 1, 1))

    def convolved(a: Any) -> Any:
        y = nm.conv2d(a, weight, padding=1)
        seen.append(nm.conv2d(x, weight, padding=1).data.tobytes() == plain.tobytes())
        return y

    assert nm.check.adjoint(convolved, x).ok and seen and all(seen)
    assert nm.conv2d(x, weight, padding=1).data.tobytes() != plain.tobytes()


@pytest.mark.parametrize("shape", SHAPES + STRIDED)
def test_multiples_of_the_denominators_match_bit_for_bit(shape: tuple[int, ...], isa: str) -> None:
    generator = np.random.default_rng(3)
    # Few numbers are not zero, so that no sum within the transforms needs more than 24 bits.
    passes = Passes(shape, lambda *s: generator.integers(-1, 2, s) * (generator.random(s) < 0.05))
    for factor_of in ("w", "dy"):
        setattr(passes, factor_of, getattr(passes, factor_of) * np.float32(DENOMINATORS))
        plain, fast = passes(False), passes(True)
        for name, a, b in zip(("y", "dx", "dw"), fast, plain, strict=True):
            if (name == "dw") == (factor_of == "dy"):
                np.testing.assert_array_equal(a, b, err_msg=name)
        setattr(passes, factor_of, getattr(passes, factor_of) / np.float32(DENOMINATORS))


@pytest.mark.parametrize("shape", [*SHAPES, *STRIDED, (2, 256, 13, 13, 384, 3, 1, 1)])
def test_errors_over_many_draws(shape: tuple[int, ...]) -> None:
    """The bound of conv2d.h, and that the algorithm loses no more than two digits against the plain sum."""
    worst, plain_worst = np.zeros(3), np.zeros(3)
    for seed in range(12):
        # Of both signs, or of one as after a ReLU.
        draw = _normal(seed)
        passes = Passes(shape, draw if seed % 2 else lambda *s, draw=draw: np.abs(draw(*s)))
        exact = passes.cast(np.float64)(False)
        for errors, winograd in ((worst, True), (plain_worst, False)):
            for i, (a, b) in enumerate(zip(passes(winograd), exact, strict=True)):
                errors[i] = max(errors[i], np.abs(a - b).max() / np.abs(b).max())
    assert (worst < LARGEST_ERROR).all(), worst
    assert (worst < 100 * plain_worst).all(), (worst, plain_worst)


@pytest.mark.parametrize("shape", [(8, 64, 13, 13, 64, 3, 1, 1), (8, 64, 14, 14, 64, 5, 2, 2), STRIDED[0]])
def test_same_bits_with_any_number_of_threads(shape: tuple[int, ...], isa: str) -> None:
    passes, before = Passes(shape, _normal(5)), _cpu.max_threads()
    answers = {}
    for threads in (1, 2, 3, 8):
        _cpu.set_max_threads(threads)
        answers[threads] = passes(True)
    _cpu.set_max_threads(before)
    assert all(_different(answer, answers[1]) == [False] * 3 for answer in answers.values())


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_reach_the_tiles_that_read_them(bad: float, kernel: int, isa: str) -> None:
    n, c, size, o, step, pad = 2, 16, 24, 16, 7 - kernel, kernel // 2
    generator = np.random.default_rng(6)
    x = generator.standard_normal((n, c, size, size)).astype(np.float32)
    w = generator.standard_normal((o, c, kernel, kernel)).astype(np.float32)
    row, column = 9, 4
    x[1, 3, row, column] = bad
    nm.set_winograd(True)
    y = nm.conv2d(x, w, padding=pad).data
    reached = np.zeros((n, size, size), bool)
    for i, j in itertools.product(range(0, size, step), repeat=2):  # a tile reads 6x6 inputs from i - pad, j - pad
        if 0 <= row - (i - pad) < 6 and 0 <= column - (j - pad) < 6:
            reached[1, i : i + step, j : j + step] = True
    plain = np.zeros((n, size, size), bool)
    plain[1, row - pad : row + pad + 1, column - pad : column + pad + 1] = True
    finite = np.isfinite(y)
    assert finite[np.broadcast_to(~reached[:, None], y.shape)].all()
    assert not finite[np.broadcast_to(plain[:, None], y.shape)].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_conv2d(shape: tuple[int, ...]) -> None:
    n, c, h, w, o, k, padding, groups = shape
    draw = _normal(7)
    arrays = draw(n, c, h, w), draw(o, c // groups, k, k), draw(o)
    gradients = {}
    for dtype in (np.float32, np.float64):
        tensors = [nm.tensor(a.astype(dtype), requires_grad=True) for a in arrays]
        y = nm.conv2d(*tensors, padding=padding, groups=groups, activation="tanh")
        nm.sum(y * y).backward()
        gradients[dtype] = [y.data] + [t.grad.data for t in tensors]
    for a, b in zip(gradients[np.float32], gradients[np.float64], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-3 * np.abs(b).max())
