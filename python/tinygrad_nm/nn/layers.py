"""Layers with weights: a layer is sigma(K y + b), the activation fused into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend
from .._errors import DtypeError, ShapeError
from ..ops import conv, conv_pool, pool, product
from ..ops.activation import activate, resolve
from ..ops.operands import padding as parse_padding
from ..ops.operands import pair
from ..ops.shape import put
from . import init as initialisers
from .module import Counts, Module, Parameter

Activation = str | tuple[str, float] | Callable[..., Any]
Sizes = int | tuple[int, int]


def positive(layer: str, **sizes: int) -> None:
    """Raises ShapeError for a size that is not a positive integer."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ShapeError(f"{layer}: {name} is {size!r}; it must be a positive integer")


def parameter(layer: str, shape: tuple[int, ...], value: float, dtype: Any) -> Parameter:
    """A parameter of one value, of `dtype` or the default dtype. Raises DtypeError unless that is a float."""
    dtype = np.dtype(backend.get_default_dtype() if dtype is None else dtype)
    if dtype not in backend.FLOATS:
        raise DtypeError(f"{layer}: dtype is {dtype}; parameters are float32 or float64")
    return Parameter(np.full(shape, value, dtype))


class _Activated(Module):
    """A layer with an activation of its own: `sigma` is its (kind, parameter), read when it is set."""

    @property
    def activation(self) -> Activation | None:
        """A name, (name, parameter) or function, as given. Setting it raises ValueError for an unknown one."""
        return self._activation

    @activation.setter
    def activation(self, activation: Activation | None) -> None:
        self.sigma = resolve(type(self).__name__, activation)
        self._activation = activation


class Linear(_Activated):
    """y = sigma(x K^T + b): x (N, in_features) gives (N, out_features); `weight` is the course's K, (out,
    in).

    activation: a name, or (name, parameter); None for none. init: how the weight starts (`nn.init`), Glorot's
    uniform form by default; the bias starts from `initial_bias`. Raises ShapeError for sizes that are not
    positive.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        activation: Activation | None = None,
        init: initialisers.Initialiser | None = None,
        initial_bias: float = 0.0,
        dtype: Any = None,
    ) -> None:
        positive("Linear", in_features=in_features, out_features=out_features)
        self.activation = activation
        self.weight = parameter("Linear", (out_features, in_features), 0.0, dtype)
        self.bias = parameter("Linear", (out_features,), initial_bias, dtype) if bias else None
        (init or initialisers.glorot_uniform_)(self.weight)

    def forward(self, x: Any) -> Any:
        """x (N, in_features) to (N, out_features)."""
        return product._linear(x, self.weight, self.bias, *self.sigma)

    def counts(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Counts:
        """Every output sees every input, and the bias."""
        outputs, inputs = self.weight.shape
        rows = int(np.prod(output_shape[:-1]))
        products = rows * outputs * inputs
        return Counts(products + (rows * outputs if self.bias is not None else 0), products, rows * outputs)

    def extra_repr(self) -> str:
        """The arguments."""
        outputs, inputs = self.weight.shape
        return ", ".join([str(inputs), str(outputs), *_options(bias=self.bias is not None, activation=self.activation)])


class Conv2d(_Activated):
    """y = sigma(K * x + b), a cross-correlation: x (N, in_channels, H, W) gives (N, out_channels, OH, OW).

    kernel_size, stride, dilation: an int or (rows, columns). padding: an int, a pair, or ((top, bottom), (left,
    right)). groups: channels in as many groups that do not see one another. `weight` is (out, in / groups, KH, KW).
    connections: a bool table (out_channels, in_channels), as LeCun's (1989, 1998): an output channel sees the input
    channels marked in its row. Only the stencils marked are parameters: `weight` is then (links, KH, KW), row by row.
    activation, init, initial_bias: as for Linear.
    Raises ShapeError for sizes or a table that do not fit, ValueError for groups together with a table.
    """

    pools = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Any = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        connections: Any = None,
        activation: Activation | None = None,
        init: initialisers.Initialiser | None = None,
        initial_bias: float = 0.0,
        dtype: Any = None,
    ) -> None:
        positive("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"Conv2d: {in_channels} input and {out_channels} output channels do not divide into groups={groups}"
            )
        parse_padding("Conv2d", padding)
        window = pair("Conv2d", "kernel_size", kernel_size)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.geometry = {
            "stride": pair("Conv2d", "stride", stride),
            "padding": padding,
            "dilation": pair("Conv2d", "dilation", dilation),
            "groups": groups,
        }
        self._geometry = conv._geometry("Conv2d", **self.geometry)
        self.activation = activation
        self.links = None if connections is None else _links(connections, in_channels, out_channels, groups)
        maps = (out_channels, in_channels // groups) if self.links is None else (len(self.links[0]),)
        self.weight = parameter("Conv2d", (*maps, *window), 0.0, dtype)
        self.bias = parameter("Conv2d", (out_channels,), initial_bias, dtype) if bias else None
        (init or initialisers.glorot_uniform_)(self.weight, fans=self._fans(window))

    def _fans(self, window: tuple[int, int]) -> tuple[Any, Any]:
        """(inputs of an output unit, outputs of an input unit) behind each weight, borders aside."""
        area = window[0] * window[1]
        if self.links is None:
            groups = self.geometry["groups"]
            return self.in_channels // groups * area, self.out_channels // groups * area
        outputs, inputs = self.links
        fan_in, fan_out = np.bincount(outputs)[outputs] * area, np.bincount(inputs)[inputs] * area
        return fan_in.reshape(-1, 1, 1), fan_out.reshape(-1, 1, 1)

    def dense_weight(self) -> Any:
        """The weight as (out, in / groups, KH, KW): with a table, zero where nothing is connected."""
        if self.links is None:
            return self.weight
        return put(self.weight, (self.out_channels, self.in_channels, *self.weight.shape[1:]), self.links, True)

    def forward(self, x: Any, windows: Any = None) -> Any:
        """x (N, in_channels, H, W) to (N, out_channels, OH, OW); pooled if given windows ("avg" or "max", h, w)."""
        if windows is None:
            return conv._conv2d(x, self.dense_weight(), self.bias, self._geometry, *self.sigma)
        return conv_pool._conv2d_pool2d(x, self.dense_weight(), self.bias, self._geometry, windows, *self.sigma)

    def pooled_by(self, following: Module) -> Any:
        """The windows of a pooling layer whose windows lie side by side; None where either's forward was replaced."""
        replaced = type(self).forward is not Conv2d.forward or "forward" in vars(self) or "forward" in vars(following)
        return None if replaced else getattr(following, "windows", None)

    def counts(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Counts:
        """Each stencil is used at each place of its output map, the bias too."""
        places = output_shape[1] * output_shape[2]
        products = places * self.weight.size
        units = places * self.out_channels
        return Counts(products + (units if self.bias is not None else 0), products, units)

    def extra_repr(self) -> str:
        """The arguments."""
        options = _options(**self.geometry, bias=self.bias is not None, activation=self.activation)
        if self.links is not None:
            options.append(f"connections={self.weight.shape[0]} of {self.in_channels * self.out_channels}")
        window = f"kernel_size={self.weight.shape[-2:]}"
        return ", ".join([str(self.in_channels), str(self.out_channels), window, *options])


def _links(connections: Any, in_channels: int, out_channels: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """(output channels, input channels) of the links, row by row of the table."""
    table = np.asarray(connections)
    if groups != 1:
        raise ValueError(f"Conv2d: a connection table and groups={groups} exclude each other; use groups=1")
    if table.dtype != bool or table.shape != (out_channels, in_channels):
        raise ShapeError(
            f"Conv2d: connections is {table.dtype} of shape {table.shape}; it must be bool of shape "
            f"(out_channels, in_channels) = ({out_channels}, {in_channels})"
        )
    if not table.any(1).all():
        raise ShapeError(f"Conv2d: output channels {np.flatnonzero(~table.any(1)).tolist()} have no connection")
    outputs, inputs = np.nonzero(table)
    return outputs, inputs


class TrainableAvgPool2d(_Activated):
    """y = sigma(a mean + b) over windows, with one coefficient a and one bias b a map (LeCun et al. 1989, H2
    and H4).

    x (N, channels, H, W) gives (N, channels, OH, OW). stride: the window's size by default. a starts from 1,
    b from 0. Raises ShapeError for sizes that are not positive.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        *,
        activation: Activation | None = None,
        dtype: Any = None,
    ) -> None:
        positive("TrainableAvgPool2d", channels=channels)
        self.kernel_size = pair("TrainableAvgPool2d", "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair("TrainableAvgPool2d", "stride", stride)
        self.activation = activation
        self.weight = parameter("TrainableAvgPool2d", (channels,), 1.0, dtype)
        self.bias = parameter("TrainableAvgPool2d", (channels,), 0.0, dtype)

    def forward(self, x: Any) -> Any:
        """x (N, channels, H, W) to (N, channels, OH, OW)."""
        channels = self.weight.shape[0]
        if x.ndim != 4 or x.shape[1] != channels:
            raise ShapeError(
                f"TrainableAvgPool2d: input has shape {x.shape}, but (N, {channels}, H, W) is needed: one "
                "coefficient a map"
            )
        mean = pool.avg_pool2d(x, self.kernel_size, self.stride)
        y = mean * self.weight.reshape(channels, 1, 1) + self.bias.reshape(channels, 1, 1)
        return activate(y, *self.sigma)

    def counts(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Counts:
        """Each output sees its window and the bias; these are no multiply-adds of a convolution."""
        units = int(np.prod(output_shape))
        return Counts(units * (self.kernel_size[0] * self.kernel_size[1] + 1), 0, units)

    def extra_repr(self) -> str:
        """The arguments."""
        options = _options(activation=self.activation)
        return ", ".join(
            [str(self.weight.shape[0]), f"kernel_size={self.kernel_size}", f"stride={self.stride}", *options]
        )


_DEFAULTS = {
    "stride": (1, 1),
    "padding": 0,
    "dilation": (1, 1),
    "groups": 1,
    "bias": True,
    "activation": None,
}


def _options(**given: Any) -> list[str]:
    """`name=value` of those that are not the default."""
    return [f"{name}={value!r}" for name, value in given.items() if value != _DEFAULTS[name]]
