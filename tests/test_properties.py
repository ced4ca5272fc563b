"""Shapes, by hypothesis: broadcasting, axes, indices, strides and geometry against NumPy and plain loops."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import reference as ref
import tinygrad_nm as nm
from tinygrad_nm import _cpu, autodiff
from tinygrad_nm._errors import ShapeError

BROADCAST = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_side=0)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "less": np.less,
}


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape))


def variable(a: np.ndarray) -> Any:
    return nm.tensor(a, requires_grad=True)


@pytest.mark.parametrize("name", BINARY)
@given(shapes=BROADCAST)
def test_elementwise_operations_broadcast_as_numpys(name: str, shapes: Any) -> None:
    a, b = (draw(shape, i) for i, shape in enumerate(shapes.input_shapes))
    y = getattr(nm, name)(variable(a), variable(b))
    np.testing.assert_array_equal(y.numpy(), BINARY[name](a, b), strict=True)
    assert y.shape == shapes.result_shape


@given(shapes=BROADCAST)
def test_gradients_have_the_shapes_of_their_arguments_and_sum_over_what_was_broadcast(shapes: Any) -> None:
    a, b = (variable(draw(shape, i)) for i, shape in enumerate(shapes.input_shapes))
    y = nm.add(a, b)
    da, db = autodiff.grad(y, [a, b], nm.tensor(np.ones(y.shape)))
    for gradient, operand in ((da, a), (db, b)):
        repeats = y.size / operand.size if operand.size else 0.0
        np.testing.assert_array_equal(gradient.numpy(), np.full(operand.shape, repeats), strict=True)


@given(left=hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), right=hnp.array_shapes(max_dims=3, max_side=4))
def test_shapes_that_do_not_broadcast_are_refused_by_name(left: Any, right: Any) -> None:
    try:
        np.broadcast_shapes(left, right)
    except ValueError:
        with pytest.raises(ShapeError, match="add: shapes"):
            nm.add(nm.tensor(np.ones(left)), np.ones(right))
    else:
        assert nm.add(nm.tensor(np.ones(left)), np.ones(right)).shape == np.broadcast_shapes(left, right)


@given(
    batch=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3),
    sizes=st.tuples(*[st.integers(0, 9)] * 3),
    vectors=st.tuples(st.booleans(), st.booleans()),
)
def test_matmul_takes_the_shapes_numpys_takes(batch: Any, sizes: Any, vectors: Any) -> None:
    m, k, n = sizes
    left, right = batch.input_shapes
    a = draw((k,) if vectors[0] else (*left, m, k), 1)
    b = draw((k,) if vectors[1] else (*right, k, n), 2)
    x, y = variable(a), variable(b)
    product = nm.matmul(x, y)
    np.testing.assert_allclose(product.numpy(), ref.matmul(a, b), rtol=1e-12, atol=1e-12, strict=True)
    dx, dy = autodiff.grad(product, [x, y], nm.tensor(np.ones(product.shape)))
    assert dx.shape == a.shape and dy.shape == b.shape


STRIDED = {
    "plain": lambda shape, seed: draw(shape, seed),
    "transposed": lambda shape, seed: np.swapaxes(draw((*shape[:-2], shape[-1], shape[-2]), seed), -1, -2),
    "one row": lambda shape, seed: np.broadcast_to(draw((*shape[:-2], 1, shape[-1]), seed), shape),
    "one column": lambda shape, seed: np.broadcast_to(draw((*shape[:-1], 1), seed), shape),
    "one matrix": lambda shape, seed: np.broadcast_to(draw((1, *shape[1:]), seed), shape),
    "backwards": lambda shape, seed: draw(shape, seed)[:, ::-1, ::-1],
    "every second": lambda shape, seed: draw((shape[0], 2 * shape[1], 2 * shape[2]), seed)[:, ::2, ::2],
}


@pytest.mark.parametrize("left", STRIDED)
@pytest.mark.parametrize("right", STRIDED)
@given(sizes=st.tuples(st.integers(1, 3), *[st.integers(1, 20)] * 3))
def test_gemm_reads_any_strides(left: str, right: str, sizes: Any) -> None:
    batch, m, k, n = sizes
    a, b = STRIDED[left]((batch, m, k), 1), STRIDED[right]((batch, k, n), 2)
    out = np.full((batch, m, n), np.nan)
    _cpu.gemm(out, a, b)
    np.testing.assert_allclose(out, ref.matmul(a, b), rtol=1e-12, atol=1e-12)


@given(shape=SHAPES, data=st.data())
def test_reductions_over_any_axes(shape: Any, data: st.DataObject) -> None:
    x = draw(shape)
    axis = data.draw(hnp.valid_tuple_axes(len(shape), min_size=1))
    keepdims = data.draw(st.booleans())
    for name in ("sum", "mean", "max", "min", "var"):
        t = variable(x)
        y = getattr(nm, name)(t, axis=axis, keepdims=keepdims)
        expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-14, strict=True)
        (dx,) = autodiff.grad(y, t, nm.tensor(np.ones(y.shape)))
        assert dx.shape == x.shape


@given(shape=SHAPES, data=st.data())
def test_slices_are_numpys_and_scatter_back(shape: Any, data: st.DataObject) -> None:
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    check_index(shape, index)


@given(shape=SHAPES, data=st.data())
def test_integer_arrays_gather_as_numpys_and_sum_back_over_repeats(shape: Any, data: st.DataObject) -> None:
    index = data.draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=4)))
    check_index(shape, index)


@given(shape=SHAPES, data=st.data())
def test_masks_select_as_numpys(shape: Any, data: st.DataObject) -> None:
    check_index(shape, data.draw(hnp.arrays(bool, shape)))


def check_index(shape: Any, index: Any) -> None:
    """x[index] as NumPy's, and its gradient: how often each element was taken."""
    x = draw(shape)
    t = variable(x)
    y = t[index]
    np.testing.assert_array_equal(y.numpy(), np.asarray(x[index]), strict=True)
    counts = np.zeros(shape)
    np.add.at(counts, index, 1.0)
    (dx,) = autodiff.grad(y, t, nm.tensor(np.ones(y.shape)))
    np.testing.assert_array_equal(dx.numpy(), counts, strict=True)


@given(shape=SHAPES, data=st.data())
def test_reshape_and_transpose_undo_themselves(shape: Any, data: st.DataObject) -> None:
    x = draw(shape)
    order = data.draw(st.permutations(range(len(shape))))
    y = nm.transpose(nm.tensor(x), *order)
    np.testing.assert_array_equal(y.numpy(), x.transpose(order), strict=True)
    np.testing.assert_array_equal(nm.transpose(y, *np.argsort(order).tolist()).numpy(), x, strict=True)
    np.testing.assert_array_equal(nm.reshape(nm.reshape(y, -1), y.shape).numpy(), y.numpy(), strict=True)


WINDOW = st.tuples(st.integers(1, 4), st.integers(1, 4))
PADS = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=WINDOW,
    stride=WINDOW,
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=PADS,
    groups=st.integers(1, 3),
)
def test_convolution_of_any_geometry(
    size: Any, kernel: Any, stride: Any, dilation: Any, padding: Any, groups: int
) -> None:
    x, w = draw((2, 2 * groups, *size), 1), draw((3 * groups, 2, *kernel), 2)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if 0 in ref.Convolution(x.shape, w.shape, **geometry).out:
        with pytest.raises(ShapeError, match=r"conv2d: kernel .* is larger than"):
            nm.conv2d(x, w, **geometry)
        return
    y = nm.conv2d(x, w, **geometry).numpy()
    np.testing.assert_allclose(y, ref.conv2d(x, w, **geometry), rtol=1e-12, atol=1e-12, strict=True)
    dx = nm.conv2d_backward_input(y, w, x.shape, **geometry).numpy()
    np.testing.assert_allclose(dx, ref.conv2d_backward_input(y, w, x.shape, **geometry), rtol=1e-11, atol=1e-11)
    dw = nm.conv2d_backward_weight(x, y, w.shape, **geometry).numpy()
    np.testing.assert_allclose(dw, ref.conv2d_backward_weight(x, y, w.shape, **geometry), rtol=1e-11, atol=1e-11)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=WINDOW,
    stride=WINDOW,
    padding=PADS,
    ceil_mode=st.booleans(),
    count_include_pad=st.booleans(),
)
def test_pooling_of_any_geometry(
    size: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool
) -> None:
    x = draw((2, 2, *size))
    assume(all(size[i] + sum(padding[i]) >= kernel[i] for i in range(2)))
    whole = all(inside for _, inside, _ in ref.windows(x, kernel, stride, padding, 1, ceil_mode))
    options: dict[str, Any] = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    if not whole:
        with pytest.raises(ValueError, match=r"max_pool2d: padding .* leaves a window"):
            nm.max_pool2d(x, kernel, **options)
        return
    np.testing.assert_array_equal(nm.max_pool2d(x, kernel, **options).numpy(), ref.max_pool2d(x, kernel, **options))
    options["count_include_pad"] = count_include_pad
    y = nm.avg_pool2d(x, kernel, **options).numpy()
    np.testing.assert_allclose(y, ref.avg_pool2d(x, kernel, **options), rtol=1e-12, atol=1e-14, strict=True)
