"""What every module of kernels has; there is no module of this name.

Results go into `out`, the first argument, which is never allocated or copied here. `out` (and everything else that is
written: `positions`, `weight`, `velocity`) must be a C-contiguous, aligned, writeable, native-endian array of the exact
shape that overlaps no other argument; else ValueError or TypeError. Inputs have the dtype of `out`: float32 or float64.
On the CPU they may have any layout and byte order. On GPUs, emulated ones too, nothing is copied: only the operands of
`gemm` may have strides of their own, other inputs must be contiguous.

Convolution geometry: (stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h, dilation_w, groups).
Pooling geometry: (kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right, dilation_h,
dilation_w, ceil_mode).
"""

from typing import Any, Protocol

import numpy.typing as npt

class _OnGpu(Protocol):
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

_Array = npt.NDArray[Any] | _OnGpu
_ConvGeometry = tuple[int, int, int, int, int, int, int, int, int]
_PoolGeometry = tuple[int, int, int, int, int, int, int, int, int, int, bool]
_Windows = tuple[str, int, int]

def gemm(
    out: _Array,
    a: _Array,
    b: _Array,
    alpha: float = 1.0,
    beta: float = 0.0,
    bias: _Array | None = None,
    activation: str = "identity",
    parameter: float = 0.0,
) -> None: ...
def conv2d_forward(
    out: _Array,
    x: _Array,
    w: _Array,
    bias: _Array | None,
    geometry: _ConvGeometry,
    activation: str = "identity",
    parameter: float = 0.0,
) -> None: ...
def conv2d_backward_input(out: _Array, dy: _Array, w: _Array, geometry: _ConvGeometry) -> None: ...
def conv2d_backward_weight(out: _Array, x: _Array, dy: _Array, geometry: _ConvGeometry) -> None: ...
def set_winograd(on: bool, dtype: str = "float32") -> None: ...
def get_winograd(dtype: str = "float32") -> bool: ...
def forbid_winograd(on: bool) -> None: ...
def set_winograd_always(on: bool) -> None: ...
def conv2d_pool2d_kept(
    x: _Array, w: _Array, geometry: _ConvGeometry, activation: str, parameter: float, pool: _Windows
) -> int: ...
def conv2d_pool2d_forward(
    out: _Array,
    y: _Array | None,
    x: _Array,
    w: _Array,
    bias: _Array | None,
    geometry: _ConvGeometry,
    activation: str,
    parameter: float,
    pool: _Windows,
) -> None: ...
def conv2d_pool2d_backward(
    dx: _Array | None,
    dw: _Array | None,
    db: _Array | None,
    dout: _Array,
    y: _Array,
    x: _Array,
    w: _Array,
    geometry: _ConvGeometry,
    activation: str,
    parameter: float,
    pool: _Windows,
    zeros_stay: bool,
) -> None: ...
def max_pool2d_forward(out: _Array, positions: _Array, x: _Array, geometry: _PoolGeometry) -> None: ...
def max_pool2d_backward(out: _Array, dy: _Array, positions: _Array, geometry: _PoolGeometry) -> None: ...
def max_pool2d_gather(out: _Array, x: _Array, positions: _Array, geometry: _PoolGeometry) -> None: ...
def avg_pool2d_forward(out: _Array, x: _Array, geometry: _PoolGeometry, count_include_pad: bool) -> None: ...
def avg_pool2d_backward(out: _Array, dy: _Array, geometry: _PoolGeometry, count_include_pad: bool) -> None: ...
def local_response_norm_forward(
    out: _Array,
    x: _Array,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    divide_by_size: bool,
    groups: int,
) -> None: ...
def local_response_norm_backward(
    out: _Array,
    dy: _Array,
    x: _Array,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    divide_by_size: bool,
    groups: int,
) -> None: ...
def softmax_cross_entropy_forward(out: _Array, logits: _Array, labels: _Array, ignore_index: int) -> None: ...
def softmax_cross_entropy_backward(
    out: _Array, dloss: _Array, logits: _Array, labels: _Array, ignore_index: int
) -> None: ...
def activation_forward(out: _Array, x: _Array, kind: str, parameter: float) -> None: ...
def activation_backward(out: _Array, dy: _Array, saved: _Array, kind: str, parameter: float) -> None: ...
def bias_backward(out: _Array, dy: _Array) -> None: ...
def dropout(out: _Array, x: _Array, p: float, seed: int, stream: int, first_example: int) -> None: ...
def sgd_update(
    weight: _Array,
    gradient: _Array,
    velocity: _Array | None,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
    lr_in_velocity: bool,
) -> None: ...
def peak_arithmetic(out: _Array, x: _Array, scale: float, shift: float, repeats: int) -> None: ...
def peak_memory(out: _Array, x: _Array | None, z: _Array | None, scale: float) -> None: ...
def peak_read(out: _Array, x: _Array) -> None: ...
def isa() -> str: ...
def isas() -> list[tuple[str, bool, str]]: ...
def set_isa(name: str) -> None: ...
