"""The networks as lists of layers that every peer can build; names and shapes are those of our own state_dict."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Conv(NamedTuple):
    """sigma(K * x + b) with square windows."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    activation: str | None = None


class Pool(NamedTuple):
    """Windows of `kernel`, every `stride`: "avg" or "max"."""

    kind: str
    kernel: int
    stride: int


class Norm(NamedTuple):
    """Local response normalisation of AlexNet (2012), within each of `groups` groups of channels."""

    groups: int
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0


class Flatten(NamedTuple):
    """(N, C, H, W) to (N, C H W)."""


class Linear(NamedTuple):
    """sigma(x K^T + b)."""

    name: str
    inputs: int
    outputs: int
    activation: str | None = None


class Drop(NamedTuple):
    """Dropout in training."""

    p: float


class Network(NamedTuple):
    """A network: the shape of one example, its layers, the number of classes."""

    input_shape: tuple[int, int, int]
    layers: tuple[Any, ...]
    classes: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter."""
        found: dict[str, tuple[int, ...]] = {}
        for layer in self.layers:
            if isinstance(layer, Conv):
                window = (layer.kernel, layer.kernel)
                found[f"{layer.name}.weight"] = (layer.outputs, layer.inputs // layer.groups, *window)
                found[f"{layer.name}.bias"] = (layer.outputs,)
            elif isinstance(layer, Linear):
                found[f"{layer.name}.weight"] = (layer.outputs, layer.inputs)
                found[f"{layer.name}.bias"] = (layer.outputs,)
        return found

    def weights(self, dtype: str) -> dict[str, np.ndarray]:
        """Initial weights that keep the size of the signals: of variance 2 / fan-in before relu, else 1 / fan-in."""
        generator = np.random.default_rng(0)
        gain = {
            layer.name: 2.0 if layer.activation == "relu" else 1.0
            for layer in self.layers
            if isinstance(layer, (Conv, Linear))
        }
        found: dict[str, np.ndarray] = {}
        for name, shape in self.shapes().items():
            if name.endswith("bias"):
                found[name] = np.full(shape, 0.01, dtype)
                continue
            numbers = generator.standard_normal(shape, np.dtype(dtype))
            numbers *= np.sqrt(gain[name.split(".")[0]] / np.prod(shape[1:])).astype(dtype)
            found[name] = numbers
        return found


NETWORKS = {
    "lenet": Network(
        (1, 28, 28),
        (
            Conv("conv1", 1, 4, 5, activation="tanh"),
            Pool("avg", 2, 2),
            Conv("conv2", 4, 12, 5, activation="tanh"),
            Pool("avg", 2, 2),
            Flatten(),
            Linear("output", 192, 10),
        ),
        10,
    ),
    "lenet5": Network(
        (1, 28, 28),
        (
            Conv("conv1", 1, 6, 5, padding=2, activation="tanh"),
            Pool("avg", 2, 2),
            Conv("conv2", 6, 16, 5, activation="tanh"),
            Pool("avg", 2, 2),
            Conv("conv3", 16, 120, 5, activation="tanh"),
            Flatten(),
            Linear("fc1", 120, 84, activation="tanh"),
            Linear("output", 84, 10),
        ),
        10,
    ),
    "alexnet": Network(
        (3, 227, 227),
        (
            Conv("conv1", 3, 96, 11, stride=4, activation="relu"),
            Norm(2),
            Pool("max", 3, 2),
            Conv("conv2", 96, 256, 5, padding=2, groups=2, activation="relu"),
            Norm(2),
            Pool("max", 3, 2),
            Conv("conv3", 256, 384, 3, padding=1, activation="relu"),
            Conv("conv4", 384, 384, 3, padding=1, groups=2, activation="relu"),
            Conv("conv5", 384, 256, 3, padding=1, groups=2, activation="relu"),
            Pool("max", 3, 2),
            Flatten(),
            Linear("fc6", 9216, 4096, activation="relu"),
            Drop(0.5),
            Linear("fc7", 4096, 4096, activation="relu"),
            Drop(0.5),
            Linear("output", 4096, 1000),
        ),
        1000,
    ),
}

LEARNING_RATE, MOMENTUM = 1e-3, 0.9  # of every training step: small, so that many steps on one batch stay finite
