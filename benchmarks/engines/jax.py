"""JAX: everything jitted, NCHW as given or NHWC as XLA prefers it; the fastest counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from engines import Unsupported, Work
from networks import LEARNING_RATE, MOMENTUM, NETWORKS, Conv, Drop, Linear, Norm, Pool
from workloads import SGD_NUMBERS, Case

NAME = "jax"
Works = dict[str, Work | str]
FORMATS = {"NCHW": ("NCHW", "OIHW", "NCHW"), "NHWC": ("NHWC", "HWIO", "NHWC")}
ACTIVATIONS = {None: lambda x: x, "tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


def start(threads: int) -> str:
    """Float64 on; the version. Threads come from the processors that the worker may use."""
    jax.config.update("jax_enable_x64", True)
    return f"jax {jax.__version__}"


def prepare(case: Case, inputs: dict[str, np.ndarray]) -> Works:
    """All variants of the work."""
    if case.kind not in KINDS:
        raise Unsupported(f"jax is not compared in {case.kind}")
    return KINDS[case.kind](case, inputs)


def _gives(function: Callable[..., Any], arguments: tuple[Any, ...], *names: str, turned: bool = False) -> Work:
    """A jitted call; results of four axes are turned back from NHWC (dw from HWIO)."""
    jitted = jax.jit(function)

    def run() -> Any:
        return jax.block_until_ready(jitted(*arguments))

    def answer() -> dict[str, np.ndarray]:
        results = run()
        results = results if isinstance(results, tuple) else (results,)
        found = {}
        for name, result in zip(names, results, strict=True):
            array = np.asarray(result)
            if turned:
                array = array.transpose((3, 2, 0, 1) if name == "dw" else (0, 3, 1, 2))
            found[name] = array
        return found

    return Work(run, answer)


def _gemm(case: Case, inputs: dict[str, np.ndarray]) -> Works:
    a, b = (jnp.asarray(inputs[name]) for name in "ab")
    turned = case.options["turned"]
    return {
        "": _gives(
            lambda a, b: jnp.matmul(a.T if "a" in turned else a, b.T if "b" in turned else b, precision="highest"),
            (a, b),
            "c",
        )
    }


def _conv2d(case: Case, inputs: dict[str, np.ndarray]) -> Works:
    layer, sweep = Conv(*case.options["layer"]), case.options["sweep"]
    works: Works = {}
    for name, form in FORMATS.items():
        turned = name == "NHWC"
        x, dy = (jnp.asarray(inputs[k].transpose(0, 2, 3, 1) if turned else inputs[k]) for k in ("x", "dy"))
        w = jnp.asarray(inputs["w"].transpose(2, 3, 1, 0) if turned else inputs["w"])

        def convolution(x: Any, w: Any, form: Any = form) -> Any:
            return _convolution(x, w, layer, form)

        def dx(x: Any, w: Any, dy: Any, f: Any = convolution) -> Any:
            return jax.vjp(lambda x: f(x, w), x)[1](dy)[0]

        def dw(x: Any, w: Any, dy: Any, f: Any = convolution) -> Any:
            return jax.vjp(lambda w: f(x, w), w)[1](dy)[0]

        def both(x: Any, w: Any, dy: Any, dx: Any = dx, dw: Any = dw) -> Any:
            return dx(x, w, dy), dw(x, w, dy)

        function, arguments, names = {
            "forward": (convolution, (x, w), ("y",)),
            "backward_input": (dx, (x, w, dy), ("dx",)),
            "backward_weight": (dw, (x, w, dy), ("dw",)),
            "backward": (both, (x, w, dy), ("dx", "dw")),
        }[sweep]
        works[name] = _gives(function, arguments, *names, turned=turned)
    return works


def _convolution(x: Any, w: Any, layer: Conv, form: tuple[str, str, str]) -> Any:
    pads = [(layer.padding, layer.padding)] * 2
    return lax.conv_general_dilated(
        x, w, (layer.stride,) * 2, pads, dimension_numbers=form, feature_group_count=layer.groups
    )


def _activation(case: Case, inputs: dict[str, np.ndarray]) -> Works:
    x, dy, function = jnp.asarray(inputs["x"]), jnp.asarray(inputs["dy"]), ACTIVATIONS[case.options["function"]]
    if case.options["sweep"] == "forward":
        return {"": _gives(function, (x,), "y")}
    return {"": _gives(lambda x, dy: jax.vjp(function, x)[1](dy)[0], (x, dy), "dx")}


def _sgd(case: Case, inputs: dict[str, np.ndarray]) -> Works:
    lr, momentum, decay = SGD_NUMBERS.values()
    state = [jnp.asarray(inputs["w"]), jnp.zeros_like(inputs["w"])]
    g = jnp.asarray(inputs["g"])

    def update(w: Any, v: Any, g: Any) -> Any:
        v = momentum * v + g + decay * w
        return w - lr * v, v

    jitted = jax.jit(update, donate_argnums=(0, 1))

    def run() -> None:
        state[:] = jax.block_until_ready(jitted(*state, g))

    def answer() -> dict[str, np.ndarray]:
        run()
        return {"w": np.array(state[0])}

    return {"": Work(run, answer)}


def _scores(model: str, weights: Any, x: Any, key: Any) -> Any:
    """The network's scores; key: of dropout, None for none."""
    for layer in NETWORKS[model].layers:
        if isinstance(layer, Conv):
            x = _convolution(x, weights[f"{layer.name}.weight"], layer, FORMATS["NCHW"])
            x = ACTIVATIONS[layer.activation](x + weights[f"{layer.name}.bias"][:, None, None])
        elif isinstance(layer, Linear):
            x = x @ weights[f"{layer.name}.weight"].T + weights[f"{layer.name}.bias"]
            x = ACTIVATIONS[layer.activation](x)
        elif isinstance(layer, Pool):
            window, strides = (1, 1, layer.kernel, layer.kernel), (1, 1, layer.stride, layer.stride)
            if layer.kind == "avg":
                x = lax.reduce_window(x, 0.0, lax.add, window, strides, "VALID") / layer.kernel**2
            else:
                x = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")
        elif isinstance(layer, Norm):
            n, c, h, w = x.shape
            squares = (x * x).reshape(n * layer.groups, c // layer.groups, h, w)
            pads = [(0, 0), (layer.size // 2, (layer.size - 1) // 2), (0, 0), (0, 0)]
            total = lax.reduce_window(squares, 0.0, lax.add, (1, layer.size, 1, 1), (1, 1, 1, 1), pads)
            x = x * (layer.k + layer.alpha * total.reshape(x.shape)) ** -layer.beta
        elif isinstance(layer, Drop):
            if key is not None:
                key, own = jax.random.split(key)
                x = jnp.where(jax.random.bernoulli(own, 1 - layer.p, x.shape), x / (1 - layer.p), 0)
        else:
            x = x.reshape(len(x), -1)
    return x


def _weights(case: Case) -> dict[str, Any]:
    return {name: jnp.asarray(a) for name, a in NETWORKS[case.options["model"]].weights(case.dtype).items()}


def _loss(model: str, weights: Any, x: Any, labels: Any, key: Any) -> Any:
    logs = jax.nn.log_softmax(_scores(model, weights, x, key))
    return -jnp.mean(jnp.take_along_axis(logs, labels[:, None], 1))


def _train(case: Case, inputs: dict[str, np.ndarray]) -> Works:
    model = case.options["model"]
    x, labels = jnp.asarray(inputs["x"]), jnp.asarray(inputs["labels"])
    drops = any(isinstance(layer, Drop) for layer in NETWORKS[model].layers)

    def update(weights: Any, velocity: Any, x: Any, labels: Any, key: Any) -> Any:
        loss, gradient = jax.value_and_grad(lambda w: _loss(model, w, x, labels, key))(weights)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
        weights = jax.tree.map(lambda w, v: w - LEARNING_RATE * v, weights, velocity)
        return loss, weights, velocity

    jitted = jax.jit(update, donate_argnums=(0, 1))
    weights = _weights(case)
    state = [weights, jax.tree.map(jnp.zeros_like, weights), jax.random.key(0)]

    def run() -> None:
        key = None
        if drops:
            state[2], key = jax.random.split(state[2])
        _, *state[:2] = jax.block_until_ready(jitted(state[0], state[1], x, labels, key))

    def answer() -> dict[str, np.ndarray]:
        loss, gradient = jax.jit(jax.value_and_grad(lambda w: _loss(model, w, x, labels, None)))(state[0])
        found = {"loss": np.asarray(loss)}
        for name, g in gradient.items():
            found[f"gradient {name}"] = np.array(g)
            found[f"weight {name}"] = np.array(state[0][name] - LEARNING_RATE * g)
        return found

    return {"": Work(run, answer)}


def _infer(case: Case, inputs: dict[str, np.ndarray]) -> Works:
    x, weights, model = jnp.asarray(inputs["x"]), _weights(case), case.options["model"]
    return {"": _gives(lambda weights, x: _scores(model, weights, x, None), (weights, x), "scores")}


KINDS = {
    "gemm": _gemm,
    "conv2d": _conv2d,
    "activation": _activation,
    "sgd": _sgd,
    "train": _train,
    "infer": _infer,
}
