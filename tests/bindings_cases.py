"""One row a kernel of the extension: valid arguments, in the order of the binding.

Values are small whole numbers, so that where a kernel only adds and multiplies, an input in another memory
layout must give the same bits whichever path the kernel takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_nm import _cpu

CONV_GEOMETRY = (1, 2, 1, 0, 2, 1, 1, 1, 2)  # strides, pads (top, bottom, left, right), dilations, groups
POOL_GEOMETRY = (2, 3, 1, 2, 1, 0, 1, 1, 1, 1, False)  # kernels, strides, pads, dilations, ceil_mode
LARGE_POOL = (17, 17, 1, 2, 0, 0, 0, 0, 1, 1, False)  # more taps than a byte can number
STRIDE_2 = (3, 3, 2, 2, 0, 0, 0, 0, 1, 1, False)  # has kernels of its own
LABELS = np.array([[0, 3, 1, 2, 2], [4, -100, 0, 1, 3]], dtype=np.int64)
FLOATS = (np.float32, np.float64)

Arguments = list[Any]


@dataclass(frozen=True)
class Kernel:
    """`written`: places of the arrays that the kernel writes; every other array is an input."""

    id: str
    name: str
    make: Callable[[Callable[..., np.ndarray]], Arguments]
    written: tuple[int, ...] = (0,)

    @property
    def error(self) -> str:
        """The beginning of its errors, as a pattern: forward kernels may call themselves by the public name."""
        return rf"^{self.name.removesuffix('_forward')}(_forward)?: "

    def arguments(self, dtype: type) -> Arguments:
        """Fresh arguments of this floating type, the same values at each call; every array is contiguous."""
        generator = np.random.default_rng(7)

        def whole(*shape: int) -> np.ndarray:
            return generator.integers(-4, 5, shape).astype(dtype)

        return self.make(whole)

    def inputs(self, arguments: Arguments) -> list[int]:
        """The places of the arrays that the kernel only reads."""
        return [i for i, a in enumerate(arguments) if isinstance(a, np.ndarray) and i not in self.written]

    def __call__(self, arguments: Arguments) -> list[np.ndarray]:
        """Runs the kernel and gives what it wrote."""
        getattr(_cpu, self.name)(*arguments)
        return [arguments[i] for i in self.written]

    def answer(self, dtype: type) -> list[np.ndarray]:
        """What the kernel writes for `arguments(dtype)`."""
        return self(self.arguments(dtype))


def _positions(whole: Callable[..., np.ndarray]) -> np.ndarray:
    """Where the maxima of a (2, 3, 6, 7) input lie under POOL_GEOMETRY."""
    x = whole(2, 3, 6, 7)
    positions = np.empty((2, 3, 6, 4), np.uint8)
    _cpu.max_pool2d_forward(np.empty((2, 3, 6, 4), x.dtype), positions, x, POOL_GEOMETRY)
    return positions


# Images for more than half the lanes of the widest vector; a mean of four whole numbers is exact.
FUSED = (np.empty((13, 4, 6, 5)), np.empty((6, 2, 3, 2)), (1, 1, 1, 1, 0, 1, 1, 1, 2), "relu", 0.0, ("avg", 2, 2))


def kept_of(x: np.ndarray, w: np.ndarray, *options: Any) -> int:
    """The length of what the fused kernels of the present instruction set keep for the way back."""
    size = _cpu.conv2d_pool2d_kept(x, w, *options)
    assert size > 0, "this row does not reach the fused kernels"
    return size


def fused_forward(z: Callable[..., np.ndarray], x: np.ndarray, w: np.ndarray, *options: Any) -> Arguments:
    """Arguments of conv2d_pool2d_forward for arrays like x and w, padded so that the result has the size of x."""
    x, w = z(*x.shape), z(*w.shape)
    (_, height, width), filters = options[-1], len(w)
    out = z(len(x), filters, x.shape[2] // height, x.shape[3] // width)
    return [out, z(kept_of(x, w, *options)), x, w, z(filters), *options]


def fused_backward(z: Callable[..., np.ndarray], x: np.ndarray, w: np.ndarray, *options: Any) -> Arguments:
    """Arguments of conv2d_pool2d_backward, y being what the forward kernel keeps."""
    forward = fused_forward(z, x, w, *options)
    _cpu.conv2d_pool2d_forward(*forward)
    out, y, x, w, bias = forward[:5]
    return [z(*x.shape), z(*w.shape), z(*bias.shape), z(*out.shape), y, x, w, *options, False]


KERNELS = [
    Kernel("gemm", "gemm", lambda z: [z(5, 7), z(5, 6), z(6, 7)]),
    Kernel("gemm-beta", "gemm", lambda z: [z(9, 33), z(9, 18), z(18, 33), 2.0, 3.0]),
    Kernel("gemm-batched", "gemm", lambda z: [z(3, 5, 7), z(3, 5, 6), z(3, 6, 7), 1.0, 0.0, z(7), "relu"]),
    Kernel(
        "conv2d_forward",
        "conv2d_forward",
        lambda z: [z(2, 6, 6, 4), z(2, 4, 7, 6), z(6, 2, 3, 3), z(6), CONV_GEOMETRY, "relu"],
    ),
    Kernel(
        "conv2d_backward_input",
        "conv2d_backward_input",
        lambda z: [z(2, 4, 7, 6), z(2, 6, 6, 4), z(6, 2, 3, 3), CONV_GEOMETRY],
    ),
    Kernel(
        "conv2d_backward_weight",
        "conv2d_backward_weight",
        lambda z: [z(6, 2, 3, 3), z(2, 4, 7, 6), z(2, 6, 6, 4), CONV_GEOMETRY],
    ),
    Kernel("conv2d_pool2d_forward", "conv2d_pool2d_forward", lambda z: fused_forward(z, *FUSED), written=(0, 1)),
    Kernel("conv2d_pool2d_backward", "conv2d_pool2d_backward", lambda z: fused_backward(z, *FUSED), written=(0, 1, 2)),
    Kernel(
        "max_pool2d_forward",
        "max_pool2d_forward",
        lambda z: [z(2, 3, 6, 4), np.zeros((2, 3, 6, 4), np.uint8), z(2, 3, 6, 7), POOL_GEOMETRY],
        written=(0, 1),
    ),
    Kernel(
        "max_pool2d_forward-large",
        "max_pool2d_forward",
        lambda z: [z(1, 2, 3, 2), np.zeros((1, 2, 3, 2), np.int32), z(1, 2, 19, 20), LARGE_POOL],
        written=(0, 1),
    ),
    Kernel(
        "max_pool2d_backward-large",
        "max_pool2d_backward",
        lambda z: [z(1, 2, 19, 20), z(1, 2, 3, 2), np.full((1, 2, 3, 2), 288, np.int32), LARGE_POOL],
    ),
    Kernel(
        "max_pool2d_forward-stride-2",
        "max_pool2d_forward",
        lambda z: [z(2, 3, 3, 9), np.zeros((2, 3, 3, 9), np.uint8), z(2, 3, 8, 20), STRIDE_2],
        written=(0, 1),
    ),
    Kernel(
        "max_pool2d_backward-stride-2",
        "max_pool2d_backward",
        lambda z: [z(2, 3, 8, 20), z(2, 3, 3, 9), np.full((2, 3, 3, 9), 5, np.uint8), STRIDE_2],
    ),
    Kernel(
        "avg_pool2d_forward-stride-2",
        "avg_pool2d_forward",
        lambda z: [z(2, 3, 3, 9), z(2, 3, 8, 20), STRIDE_2, True],
    ),
    Kernel(
        "avg_pool2d_backward-stride-2",
        "avg_pool2d_backward",
        lambda z: [z(2, 3, 8, 20), z(2, 3, 3, 9), STRIDE_2, True],
    ),
    Kernel(
        "max_pool2d_backward",
        "max_pool2d_backward",
        lambda z: [z(2, 3, 6, 7), z(2, 3, 6, 4), _positions(z), POOL_GEOMETRY],
    ),
    Kernel(
        "max_pool2d_gather",
        "max_pool2d_gather",
        lambda z: [z(2, 3, 6, 4), z(2, 3, 6, 7), _positions(z), POOL_GEOMETRY],
    ),
    Kernel(
        "avg_pool2d_forward",
        "avg_pool2d_forward",
        lambda z: [z(2, 3, 6, 4), z(2, 3, 6, 7), POOL_GEOMETRY, False],
    ),
    Kernel(
        "avg_pool2d_backward",
        "avg_pool2d_backward",
        lambda z: [z(2, 3, 6, 7), z(2, 3, 6, 4), POOL_GEOMETRY, True],
    ),
    Kernel(
        "local_response_norm_forward",
        "local_response_norm_forward",
        lambda z: [z(2, 6, 3, 5), z(2, 6, 3, 5), 3, 0.5, 0.75, 2.0, True, 2],
    ),
    Kernel(
        "local_response_norm_backward",
        "local_response_norm_backward",
        lambda z: [z(2, 6, 3, 5), z(2, 6, 3, 5), z(2, 6, 3, 5), 3, 0.5, 0.75, 2.0, False, 2],
    ),
    Kernel(
        "softmax_cross_entropy_forward",
        "softmax_cross_entropy_forward",
        lambda z: [z(2, 5), z(2, 6, 5), LABELS.copy(), -100],
    ),
    Kernel(
        "softmax_cross_entropy_backward",
        "softmax_cross_entropy_backward",
        lambda z: [z(2, 6, 5), z(2, 5), z(2, 6, 5), LABELS.copy(), -100],
    ),
    Kernel("activation_forward", "activation_forward", lambda z: [z(3, 2, 35), z(3, 2, 35), "tanh", 0.0]),
    Kernel(
        "activation_backward",
        "activation_backward",
        lambda z: [z(3, 2, 35), z(3, 2, 35), z(3, 2, 35), "gelu", 0.0],
    ),
    Kernel("bias_backward", "bias_backward", lambda z: [z(5), z(3, 5, 7, 2)]),
    Kernel("bias_backward-rows", "bias_backward", lambda z: [z(37), z(9, 37)]),
    Kernel("dropout", "dropout", lambda z: [z(6, 37), z(6, 37), 0.5, 2**40 + 5, 11, 3]),
    Kernel(
        "sgd_update",
        "sgd_update",
        lambda z: [z(41), z(41), z(41), 0.5, 0.5, 0.25, True, False],
        written=(0, 2),
    ),
    Kernel("peak_arithmetic", "peak_arithmetic", lambda z: [z(3, 37), z(3, 37), 2.0, 1.0, 5]),
    Kernel("peak_memory", "peak_memory", lambda z: [z(41), z(41), z(41), 2.0]),
    Kernel("peak_memory-copy", "peak_memory", lambda z: [z(41), z(41), None, 0.0]),
    Kernel("peak_memory-update", "peak_memory", lambda z: [z(41), None, z(41), 2.0]),
    Kernel("peak_read", "peak_read", lambda z: [z(3), z(3, 131)]),
]


def written_places() -> Iterator[tuple[Kernel, int]]:
    """Every (kernel, place of an array that it writes)."""
    return ((kernel, place) for kernel in KERNELS for place in kernel.written)


def input_places() -> Iterator[tuple[Kernel, int]]:
    """Every (kernel, place of an array that it only reads)."""
    return ((kernel, i) for kernel in KERNELS for i in kernel.inputs(kernel.arguments(np.float32)))
