"""tinygrad_nm: an automatic-differentiation engine small enough to read in an evening and fast enough to use.

Kernels in C++ under a reverse-mode tape: `Tensor` and the operations are here, layers and models in `nn`, initial
weights in `nn.init`, optimisers in `optim`, data sets in `data`, derivative checks in `check`. Unrelated to the
project "tinygrad".
"""

import importlib
from typing import Any

from . import autodiff, random
from ._errors import AnomalyError, DeviceError, DtypeError, GradientError, ShapeError
from .autodiff import detect_anomaly, enable_grad, no_grad
from .backend import (
    empty_cache,
    get_default_dtype,
    get_num_threads,
    get_winograd,
    memory_stats,
    reset_peak_memory,
    set_default_dtype,
    set_emulation,
    set_memory_limit,
    set_num_threads,
    set_winograd,
)
from .ops import methods as _methods
from .ops.activation import (
    cos,
    elu,
    exp,
    gelu,
    identity,
    leaky_relu,
    relu,
    scaled_tanh,
    sigmoid,
    sin,
    smooth_relu,
    softplus,
    softsign,
    tanh,
)
from .ops.arithmetic import (
    abs,
    add,
    clip,
    divide,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    sqrt,
    subtract,
    where,
)
from .ops.conv import conv2d, conv2d_backward_input, conv2d_backward_weight
from .ops.conv_pool import conv2d_pool2d
from .ops.dtype import astype
from .ops.loss import binary_cross_entropy_with_logits, cross_entropy, dropout, mse_loss, nll_loss
from .ops.normalisation import local_response_norm, log_softmax, logsumexp, softmax
from .ops.pool import avg_pool2d, max_pool2d
from .ops.product import linear, matmul
from .ops.reduction import all, any, argmax, broadcast_to, max, mean, min, sum, var
from .ops.shape import concatenate, expand_dims, flatten, pad, reshape, squeeze, stack, transpose
from .random import manual_seed
from .replay import compile
from .tensor import Tensor, from_dlpack, from_numpy, ones, tensor, zeros
from .transforms import grad, value_and_grad

__version__ = "0.1.0"

__all__ = [
    "AnomalyError",
    "DeviceError",
    "DtypeError",
    "GradientError",
    "ShapeError",
    "Tensor",
    "abs",
    "add",
    "all",
    "any",
    "argmax",
    "astype",
    "autodiff",
    "avg_pool2d",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "check",
    "clip",
    "compile",
    "concatenate",
    "conv2d",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv2d_pool2d",
    "cos",
    "cross_entropy",
    "data",
    "detect_anomaly",
    "divide",
    "dropout",
    "elu",
    "empty_cache",
    "enable_grad",
    "equal",
    "exp",
    "expand_dims",
    "flatten",
    "from_dlpack",
    "from_numpy",
    "gelu",
    "get_default_dtype",
    "get_num_threads",
    "get_winograd",
    "grad",
    "greater",
    "greater_equal",
    "identity",
    "leaky_relu",
    "less",
    "less_equal",
    "linear",
    "local_response_norm",
    "log",
    "log_softmax",
    "logsumexp",
    "manual_seed",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "memory_stats",
    "min",
    "minimum",
    "mse_loss",
    "multiply",
    "negative",
    "nll_loss",
    "nn",
    "no_grad",
    "not_equal",
    "ones",
    "optim",
    "pad",
    "power",
    "random",
    "relu",
    "reset_peak_memory",
    "reshape",
    "scaled_tanh",
    "set_default_dtype",
    "set_emulation",
    "set_memory_limit",
    "set_num_threads",
    "set_winograd",
    "sigmoid",
    "sin",
    "smooth_relu",
    "softmax",
    "softplus",
    "softsign",
    "sqrt",
    "squeeze",
    "stack",
    "subtract",
    "sum",
    "tanh",
    "tensor",
    "transpose",
    "value_and_grad",
    "var",
    "where",
    "zeros",
]

_methods.attach()


def __getattr__(name: str) -> Any:
    """The larger parts are imported when first used, so that `import tinygrad_nm` stays cheap."""
    if name in ("nn", "optim", "data", "check"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'tinygrad_nm' has no attribute {name!r}")
