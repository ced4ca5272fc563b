"""Rows of cases.py: activations, linear maps, convolution, pooling, normalisation, softmax, losses, dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import reference as ref
import tinygrad_nm as nm
from cases import KINK_DISTANCE, SHAPES, Case, Draw, Variant, away, distinct, each, normal

BATCH, CHANNELS = 2, 4


# ---- the grid of convolution and pooling ----------------------------------------------------------------------

ASYMMETRIC = ((1, 0), (2, 1))
CONV_FACTORS: dict[str, Any] = {
    "groups": (1, 2, CHANNELS),
    "stride": (1, 2, 3),
    "padding": (0, 1, ASYMMETRIC),
    "dilation": (1, 2),
    "size": (1, 5, 7, 8, 13, 17),
    "kernel": (1, 3, (2, 3), 5),
}
POOL_FACTORS: dict[str, Any] = {
    "stride": (1, 2, 3),
    "padding": (0, 1, ASYMMETRIC),
    "dilation": (1, 2),
    "size": (1, 5, 7, 8, 13, 17),
    "kernel": (1, 2, 3, (2, 3)),
    "ceil_mode": (False, True),
}


def fits(c: dict[str, Any]) -> bool:
    """Whether the kernel fits into the padded input."""
    kernel, pads = ref.pair(c["kernel"]), ref.pads(c["padding"])
    return all(c["size"] + sum(pads[i]) >= c["dilation"] * (kernel[i] - 1) + 1 for i in range(2))


def pool_fits(c: dict[str, Any]) -> bool:
    """Whether, besides, every window holds an element of the input."""
    if not fits(c):
        return False
    geometry = (c["kernel"], c["stride"], c["padding"], c["dilation"], c["ceil_mode"])
    return all(inside for _, inside, _ in ref.windows(np.empty((1, 1, c["size"], c["size"])), *geometry))


def conv_shapes(c: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes of x, w and y of a configuration: two filters a group, H = size, W = size + 1 to tell them apart."""
    x = (BATCH, CHANNELS, c["size"], c["size"] + 1)
    w = (2 * c["groups"], CHANNELS // c["groups"], *ref.pair(c["kernel"]))
    out = ref.Convolution(x, w, c["stride"], c["padding"], c["dilation"], c["groups"]).out
    return x, w, (BATCH, w[0], *out)


def _conv_options(c: dict[str, Any]) -> dict[str, Any]:
    return {name: c[name] for name in ("stride", "padding", "dilation", "groups")}


def conv2d_variant(c: dict[str, Any]) -> Variant:
    """Without bias, so that it is linear in both arguments."""
    x, w, _ = conv_shapes(c)
    return Variant(normal(x, w), _conv_options(c))


def biased_variant(c: dict[str, Any]) -> Variant:
    x, w, _ = conv_shapes(c)
    return Variant(normal(x, w, w[:1]), _conv_options(c))


def backward_input_variant(c: dict[str, Any]) -> Variant:
    x, w, y = conv_shapes(c)
    return Variant(normal(y, w), {"input_shape": x, **_conv_options(c)})


def backward_weight_variant(c: dict[str, Any]) -> Variant:
    x, w, y = conv_shapes(c)
    return Variant(normal(x, y), {"weight_shape": w, **_conv_options(c)})


def max_pool_variant(c: dict[str, Any]) -> Variant:
    options = {name: c[name] for name in ("stride", "padding", "dilation", "ceil_mode")}
    return Variant(distinct((BATCH, 2, c["size"], c["size"] + 1)), {"kernel_size": c["kernel"], **options})


def avg_pool_variant(c: dict[str, Any]) -> Variant:
    options = {name: c[name] for name in ("stride", "padding", "ceil_mode")}
    options["count_include_pad"] = c["dilation"] == 1  # this pool has no dilation; the factor serves for this option
    return Variant(normal((BATCH, 2, c["size"], c["size"] + 1)), {"kernel_size": c["kernel"], **options})


def avg_pool_fits(c: dict[str, Any]) -> bool:
    return pool_fits({**c, "dilation": 1})


# operation: (factors, which configurations fit, the variant of a configuration)
GRIDS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], Variant]]] = {
    "conv2d": (CONV_FACTORS, fits, conv2d_variant),
    "conv2d_backward_input": (CONV_FACTORS, fits, backward_input_variant),
    "conv2d_backward_weight": (CONV_FACTORS, fits, backward_weight_variant),
    "max_pool2d": (POOL_FACTORS, pool_fits, max_pool_variant),
    "avg_pool2d": (POOL_FACTORS, avg_pool_fits, avg_pool_variant),
}


def _grid_row(**settings: Any) -> dict[str, Any]:
    start = {"groups": 1, "stride": 1, "padding": 0, "dilation": 1, "size": 5, "kernel": 3, "ceil_mode": False}
    return start | settings


CONV_ROWS = (_grid_row(), _grid_row(groups=2, stride=(2, 1), padding=ASYMMETRIC, dilation=(1, 2), size=7))
POOL_ROWS = (_grid_row(kernel=2, stride=2, size=4), _grid_row(stride=(2, 1), padding=1, size=6, ceil_mode=True))


def _either_sign(x: tuple[int, ...], w: tuple[int, ...]) -> Draw:
    """x and w of one cell, whose products are all well above or well below zero: no kink of an activation is near."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        signs = np.where(np.arange(w[0]) % 2, -1.0, 1.0)[:, None, None, None]
        return rng.uniform(1.2, 3.0, x), signs * rng.uniform(1.2, 3.0, w)

    return draw


def _ordered(x: tuple[int, ...], w: tuple[int, ...]) -> Draw:
    """x and a w of one cell that keep the order of the results in each window, however the checks move them."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        signs = np.where(np.arange(w[0]) % 2, -1.0, 1.0)[:, None, None, None]
        return *distinct(x)(rng), signs * rng.uniform(1.2, 3.0, w), rng.standard_normal(w[:1])

    return draw


def _conv_terms(x: np.ndarray, w: np.ndarray, *_: Any, **__: Any) -> int:
    return int(np.prod(w.shape[1:])) + 1


def _backward_input_terms(dy: np.ndarray, w: np.ndarray, **_: Any) -> int:
    return int(w.shape[0] * w.shape[2] * w.shape[3])


def _backward_weight_terms(x: np.ndarray, dy: np.ndarray, **_: Any) -> int:
    return int(dy.shape[0] * dy.shape[2] * dy.shape[3])


def _conv2d_activated(x: Any, w: Any, b: Any = None, **options: Any) -> Any:
    return nm.conv2d(x, w, b, **options)


def _conv_pooled(x: Any, w: Any, b: Any = None, **options: Any) -> Any:
    return nm.conv2d_pool2d(x, w, b, **options)


# ---- activations ----------------------------------------------------------------------------------------------


def _activation(name: str, kinks: tuple[float, ...] = (), **settings: Any) -> Case:
    def draw(shape: tuple[int, ...]) -> Draw:
        return away(shape, kinks=kinks) if kinks else normal(shape)

    variants = each(draw, SHAPES)
    option = {"leaky_relu": "negative_slope", "elu": "alpha", "smooth_relu": "eta"}.get(name)
    if option is not None:
        variants += each(draw, [(3, 4)], **{option: 0.25})
    if name == "smooth_relu":
        variants += each(normal, [(3, 4)], eta=8.0)  # all within the parabola

    def reference(x: np.ndarray, **options: float) -> np.ndarray:
        return ref.activation(x, name, next(iter(options.values()), None))

    return Case(name, reference, variants, kernel="activation_forward", **settings)


# ---- losses ---------------------------------------------------------------------------------------------------


def _labelled(shape: tuple[int, ...], dtype: Any = np.int64, ignored: bool = False) -> Draw:
    """Logits and class indices; the first index is ignored if asked."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        labels = rng.integers(0, shape[1], (shape[0], *shape[2:])).astype(dtype)
        if ignored:
            labels.flat[0] = -100
        return rng.standard_normal(shape), labels

    return draw


def _with_probabilities(shape: tuple[int, ...]) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        weights = rng.uniform(0.5, 2.0, shape)
        return rng.standard_normal(shape), weights / weights.sum(1, keepdims=True)

    return draw


def _label_variants() -> list[Variant]:
    return [
        Variant(_labelled((5, 3))),
        Variant(_labelled((5, 3), np.uint8), {"reduction": "none"}),
        Variant(_labelled((2, 3, 2, 4), np.int32, ignored=True), {"reduction": "sum"}),
        Variant(_labelled((6, 4), ignored=True)),
    ]


def _dropout(x: Any, p: float, seed: int) -> Any:
    nm.manual_seed(seed)  # every call draws stream 0 of this seed
    return nm.dropout(x, p)


REDUCTIONS = ("mean", "sum", "none")

ROWS = [
    _activation("identity", linear=(0,), exact=True),
    _activation("relu", kinks=(0.0,), exact=True),
    _activation("leaky_relu", kinks=(0.0,)),
    _activation("tanh"),
    _activation("scaled_tanh"),
    _activation("sigmoid"),
    _activation("softsign"),
    _activation("softplus"),
    _activation("elu", kinks=(0.0,)),
    _activation("gelu"),
    _activation("sin"),
    _activation("smooth_relu", kinks=(-0.25, -0.1, 0.1, 0.25)),
    _activation("exp"),
    Case(
        "linear",
        ref.linear,
        [
            Variant(normal((5, 4), (3, 4), (3,))),
            Variant(normal((5, 4), (3, 4))),
            Variant(normal((5, 4), (3, 4)), {"activation": ("identity", 0.0)}),
            Variant(normal((2, 5, 4), (3, 4), (3,)), {"activation": "tanh"}),
            Variant(normal((5, 4), (3, 4), (3,)), {"activation": ("smooth_relu", 8.0)}),
        ],
        kernel="gemm",
        terms=lambda x, w, *b, **_: w.shape[1] + 1,
        exact=True,
    ),
    Case(
        "conv2d",
        ref.conv2d,
        [
            *[biased_variant(c) for c in CONV_ROWS],
            Variant(normal((2, 2, 4, 5), (3, 2, 3, 3), (3,)), {"activation": "scaled_tanh"}),
            Variant(_either_sign((2, 1, 3, 4), (3, 1, 1, 1)), {"activation": ("elu", 0.5)}),
            Variant(_either_sign((2, 1, 3, 4), (3, 1, 1, 1)), {"activation": "relu", "stride": (1, 2)}),
            Variant(normal((2, 2, 4, 5), (3, 2, 3, 3), (3,)), {"activation": "gelu"}),
            Variant(normal((0, 2, 4, 5), (3, 2, 3, 3), (3,))),
        ],
        function=_conv2d_activated,
        kernel="conv2d_forward",
        terms=_conv_terms,
        exact=True,
    ),
    Case(
        "conv2d_pool2d",
        ref.conv2d_pool2d,
        [
            # 13 images fill more than half of the widest vector: the fused kernels run, with lanes left over
            Variant(normal((13, 2, 4, 5), (3, 2, 2, 3), (3,)), {"activation": "tanh", "padding": ASYMMETRIC}),
            Variant(normal((13, 2, 5, 3), (4, 1, 2, 2), (4,)), {"groups": 2, "pool_size": (2, 1)}),
            Variant(_ordered((13, 1, 3, 4), (3, 1, 1, 1)), {"pool": "max", "pool_size": (2, 3)}),
            Variant(_either_sign((13, 1, 2, 4), (3, 1, 1, 1)), {"activation": "relu"}),
            # and these are the three operations in turn
            Variant(normal((2, 2, 4, 5), (3, 2, 2, 3), (3,)), {"activation": "sigmoid", "stride": (1, 2)}),
            Variant(normal((13, 2, 4, 5), (3, 2, 3, 3), (3,)), {"activation": "gelu"}),
        ],
        function=_conv_pooled,
        kernel="conv2d_pool2d_forward",
        terms=_conv_terms,
    ),
    Case(
        "conv2d_backward_input",
        ref.conv2d_backward_input,
        [backward_input_variant(c) for c in CONV_ROWS],
        linear=(0, 1),
        kernel="conv2d_backward_input",
        terms=_backward_input_terms,
        exact=True,
    ),
    Case(
        "conv2d_backward_weight",
        ref.conv2d_backward_weight,
        [backward_weight_variant(c) for c in CONV_ROWS],
        linear=(0, 1),
        kernel="conv2d_backward_weight",
        terms=_backward_weight_terms,
        exact=True,
    ),
    Case(
        "max_pool2d",
        ref.max_pool2d,
        [*[max_pool_variant(c) for c in POOL_ROWS], Variant(distinct((1, 2, 5, 5)), {"kernel_size": (3, 2)})],
        kernel="max_pool2d_forward",
        exact=True,
    ),
    Case(
        "avg_pool2d",
        ref.avg_pool2d,
        [avg_pool_variant({**c, "dilation": d}) for c in POOL_ROWS for d in (1, 2)],
        linear=(0,),
        kernel="avg_pool2d_forward",
    ),
    Case(
        "local_response_norm",
        ref.local_response_norm,
        [
            Variant(normal((2, 6, 3, 2)), {"size": 3}),
            Variant(normal((2, 6, 3, 2)), {"size": 5, "alpha": 0.3, "k": 2.0, "divide_by_size": False, "groups": 2}),
            Variant(normal((2, 5, 3, 2)), {"size": 4, "alpha": 0.5, "beta": 0.5}),
        ],
        kernel="local_response_norm_forward",
        rounding=16,
    ),
    Case("softmax", ref.softmax, [Variant(normal((3, 4))), Variant(normal((3, 4, 2)), {"axis": 1})]),
    Case("log_softmax", ref.log_softmax, [Variant(normal((3, 4))), Variant(normal((3, 4, 2)), {"axis": 0})]),
    Case("nll_loss", ref.nll_loss, _label_variants(), linear=(0,)),
    Case(
        "cross_entropy",
        ref.cross_entropy,
        [*_label_variants(), *[Variant(_with_probabilities((4, 3)), {"reduction": r}) for r in REDUCTIONS]],
        kernel="softmax_cross_entropy_forward",
        rounding=16,
    ),
    Case("mse_loss", ref.mse_loss, [Variant(normal((3, 4), (3, 4)), {"reduction": r}) for r in REDUCTIONS]),
    Case(
        "binary_cross_entropy_with_logits",
        ref.binary_cross_entropy_with_logits,
        [Variant(normal((3, 4), (3, 4)), {"reduction": r}) for r in REDUCTIONS],
    ),
    Case(
        "dropout",
        lambda x, p, seed: ref.dropout(x, p, seed, 0),
        [Variant(normal((3, 9)), {"p": 0.5, "seed": 7}), Variant(normal((2, 3, 4)), {"p": 0.2, "seed": 2**40 + 1})],
        function=_dropout,
        linear=(0,),
        kernel="dropout",
    ),
]
assert KINK_DISTANCE > 0.5
