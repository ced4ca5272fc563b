"""Layers without weights: pooling, activations, dropout, normalisation, shape."""

from __future__ import annotations

from typing import Any

from ..ops import pool
from ..ops.activation import activate, resolve
from ..ops.loss import dropout
from ..ops.normalisation import local_response_norm
from ..ops.operands import padding as parse_padding
from ..ops.operands import pair
from ..ops.shape import flatten
from .layers import Sizes, positive
from .module import Module


class _Function(Module):
    """A layer that is a function with fixed options."""

    options: dict[str, Any]

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class _Pool(_Function):
    """`windows`: ("avg" or "max", height, width) where they lie side by side without padding, else None."""

    kind: str | None = None

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__dict__.get("kind")  # a subclass may compute something else

    def __init__(self, kernel_size: Sizes, stride: Sizes | None, padding: Any, **options: Any) -> None:
        name = type(self).__name__
        window = pair(name, "kernel_size", kernel_size)
        step = window if stride is None else pair(name, "stride", stride)
        parse_padding(name, padding)
        self.options = {"kernel_size": window, "stride": step, "padding": padding, **options}
        tiles = window == step and parse_padding(name, padding) == (0, 0, 0, 0) and not options["ceil_mode"]
        plain = tiles and options.get("dilation", (1, 1)) == (1, 1) and self.kind is not None
        self.windows = (self.kind, *window) if plain else None
        self.geometry = pool._geometry(name, window, step, padding, options.get("dilation", 1), options["ceil_mode"])


class MaxPool2d(_Pool):
    """Maxima over windows: x (N, C, H, W) gives (N, C, OH, OW). The first of equal maxima takes the gradient.

    stride: the window's size by default. padding: as for Conv2d; it never wins. ceil_mode: a last window that
    starts inside counts, by PyTorch's rule. Raises ShapeError for sizes that do not fit.
    """

    kind = "max"

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Any = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
    ) -> None:
        dilation = pair("MaxPool2d", "dilation", dilation)
        super().__init__(kernel_size, stride, padding, dilation=dilation, ceil_mode=ceil_mode)

    def forward(self, x: Any) -> Any:
        """x (N, C, H, W) to (N, C, OH, OW)."""
        return pool._max(x, self.geometry)


class AvgPool2d(_Pool):
    """Means over windows (mean-pooling): x (N, C, H, W) gives (N, C, OH, OW).

    stride, padding, ceil_mode: as for MaxPool2d. count_include_pad: whether padding counts as zeros in the
    mean. Raises ShapeError for sizes that do not fit.
    """

    kind = "avg"

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)

    def forward(self, x: Any) -> Any:
        """x (N, C, H, W) to (N, C, OH, OW)."""
        return pool._mean(x, self.geometry, self.options["count_include_pad"])


class _Activation(_Function):
    kind: str

    def __init__(self, **options: float) -> None:
        self.options = options
        resolve(type(self).__name__, (self.kind, *options.values()) if options else self.kind)

    def forward(self, x: Any) -> Any:
        """Elementwise: any shape."""
        return activate(x, self.kind, *self.options.values())


class Tanh(_Activation):
    """tanh(x), elementwise."""

    kind = "tanh"


class ScaledTanh(_Activation):
    """1.7159 tanh(2x/3), elementwise: f(1) = 1, f(-1) = -1 (LeCun et al. 1998)."""

    kind = "scaled_tanh"


class ReLU(_Activation):
    """max(x, 0), elementwise; its derivative at 0 is 0."""

    kind = "relu"


class LeakyReLU(_Activation):
    """x where positive, negative_slope x elsewhere. Raises ValueError unless negative_slope > 0."""

    kind = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope=negative_slope)


class SmoothReLU(_Activation):
    """The course's smooth ReLU: x^2/(4 eta) + x/2 + eta/4 for |x| <= eta, else max(x, 0).

    Raises ValueError unless eta > 0.
    """

    kind = "smooth_relu"

    def __init__(self, eta: float = 0.1) -> None:
        super().__init__(eta=eta)


class ELU(_Activation):
    """x where positive, alpha (e^x - 1) elsewhere. Raises ValueError unless alpha > 0."""

    kind = "elu"

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class GELU(_Activation):
    """x Phi(x), with the normal distribution function by erf, elementwise."""

    kind = "gelu"


class Sigmoid(_Activation):
    """1 / (1 + e^-x), elementwise."""

    kind = "sigmoid"


class Softsign(_Activation):
    """x / (1 + |x|), elementwise."""

    kind = "softsign"


class Softplus(_Activation):
    """log(1 + e^x), elementwise."""

    kind = "softplus"


class Sin(_Activation):
    """sin(x), elementwise: the course's choice for peaks."""

    kind = "sin"


class Identity(_Function):
    """x itself."""

    def __init__(self) -> None:
        self.options = {}

    def forward(self, x: Any) -> Any:
        """x."""
        return x


class Dropout(_Function):
    """In training each element is zero with probability p, the others are divided by 1 - p; else the
    identity.

    Masks follow `manual_seed`. Raises ValueError unless 0 <= p <= 1.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is {p}; it must be from 0 to 1")
        self.options = {"p": p}

    def forward(self, x: Any) -> Any:
        """x (N, ...), the first axis being the examples."""
        return dropout(x, self.options["p"], self.training)


class LocalResponseNorm(_Function):
    """y_c = x_c / (k + alpha sum x^2 over `size` channels around c)^beta: x (N, C, H, W), shape kept.

    divide_by_size: alpha / size in place of alpha, as PyTorch and Caffe; False is the paper's formula.
    groups: channels normalised within each of as many groups (2 for AlexNet's two GPUs). Source: Krizhevsky
    et al. (2012), section 3.3. Raises ShapeError for a size or groups that are not positive.
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        divide_by_size: bool = True,
        groups: int = 1,
    ) -> None:
        positive("LocalResponseNorm", size=size, groups=groups)
        self.options = {
            "size": size,
            "alpha": alpha,
            "beta": beta,
            "k": k,
            "divide_by_size": divide_by_size,
            "groups": groups,
        }

    def forward(self, x: Any) -> Any:
        """x (N, C, H, W), shape kept."""
        return local_response_norm(x, **self.options)


class Flatten(_Function):
    """All axes after the first made one: x (N, ...) gives (N, features)."""

    def __init__(self) -> None:
        self.options = {}

    def forward(self, x: Any) -> Any:
        """x (N, ...) to (N, features). Raises ShapeError for a scalar."""
        return flatten(x, 1)
