"""The course's networks. Every model is a list of layers and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._errors import ShapeError
from . import init as initialisers
from .functions import AvgPool2d, Dropout, Flatten, LocalResponseNorm, MaxPool2d
from .layers import Activation, Conv2d, Linear, TrainableAvgPool2d
from .module import Module, Sequential


class DeepNetwork(Sequential):
    """The course's N-layer network for regression and classification: Y_{j+1} = sigma(K_j Y_j + b_j), then W Y_N.

    widths: of the input, of each hidden layer and of the output: (2, 16, 16, 5) has two layers and five classes.
    x (N, widths[0]) gives (N, widths[-1]): scores for `cross_entropy`, or values for `mse_loss`.
    output_bias: W Y_N + b in place of the course's W Y_N. init: how weights start (`nn.init`), Glorot's by default.
    Raises ShapeError for fewer than two widths or one that is not positive.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: Activation = "tanh",
        *,
        output_bias: bool = False,
        init: initialisers.Initialiser | None = None,
        dtype: Any = None,
    ) -> None:
        widths = tuple(widths)
        if len(widths) < 2:
            raise ShapeError(f"DeepNetwork: widths {widths} must name at least the input and the output")
        layers: dict[str, Module] = {
            f"layer{j}": Linear(inputs, outputs, activation=activation, init=init, dtype=dtype)
            for j, (inputs, outputs) in enumerate(itertools.pairwise(widths[:-1]), 1)
        }
        super().__init__(**layers, output=Linear(widths[-2], widths[-1], output_bias, init=init, dtype=dtype))
        self.input_shape = (widths[0],)


class LeNet(Sequential):
    """The course slide's digit network, 3,246 parameters: x (N, 1, 28, 28) gives scores (N, num_classes).

    The slide's line for layer 3 reads "48 5x5 stencils", "b2 in R^4" and "four images of size 12x12". Only
    the stencils can be right: 48 = 4 x 12 of them give twelve maps of 8x8 (a valid 5x5 on 12x12), so b2 is in
    R^12; the other two repeat that layer's input. The slide gives no output layer; here it is linear, 192 ->
    10, with a bias.
    """

    input_shape = (1, 28, 28)

    def __init__(self, num_classes: int = 10, *, activation: Activation = "tanh", dtype: Any = None) -> None:
        super().__init__(
            conv1=Conv2d(1, 4, 5, activation=activation, dtype=dtype),
            pool1=AvgPool2d(2),
            conv2=Conv2d(4, 12, 5, activation=activation, dtype=dtype),
            pool2=AvgPool2d(2),
            flatten=Flatten(),
            output=Linear(192, num_classes, dtype=dtype),
        )


# LeCun et al. (1989), table 1: row i lists the H3 maps (1 to 12) that take H2 map i + 1
LENET1989_LINKS = ((1, 2, 3, 5, 6), (2, 3, 4, 5, 6), (7, 8, 9, 11, 12), (8, 9, 10, 11, 12))


class LeNet1989(Sequential):
    """LeCun et al., NIPS 2 (1989), pp. 396-404: 2,578 parameters, 98,442 connections, 4,635 units.

    x (N, 1, 28, 28), grey levels in [-1, 1], gives outputs (N, 10) for targets +-1 and the mean squared
    error. H2 and H4 are means with one trained coefficient and one bias a map; H3 is connected through a
    table. The paper only says "squashing function"; 1.7159 tanh(2x/3) is the form of LeCun's later papers.
    Weights start uniformly, with variance 1/fan_in, as LeCun et al. (1998) advise for it.
    """

    input_shape = (1, 28, 28)

    def __init__(
        self,
        num_classes: int = 10,
        *,
        output_activation: Activation | None = "scaled_tanh",
        dtype: Any = None,
    ) -> None:
        squash = "scaled_tanh"
        table = np.zeros((12, 4), bool)
        for source, maps in enumerate(LENET1989_LINKS):
            table[np.array(maps) - 1, source] = True
        how: dict[str, Any] = {"init": initialisers.lecun_uniform_, "dtype": dtype}
        super().__init__(
            h1=Conv2d(1, 4, 5, activation=squash, **how),
            h2=TrainableAvgPool2d(4, 2, activation=squash, dtype=dtype),
            h3=Conv2d(4, 12, 5, connections=table, activation=squash, **how),
            h4=TrainableAvgPool2d(12, 2, activation=squash, dtype=dtype),
            flatten=Flatten(),
            output=Linear(192, num_classes, activation=output_activation, **how),
        )


class LeNet5(Sequential):
    """LeNet-5 as taught today, 61,706 parameters: x (N, 1, 28, 28) gives scores (N, num_classes).

    LeCun, Bottou, Bengio, Haffner (1998), but with all maps of C3 connected, plain mean-pooling and a linear
    output (published: a table of 60 links, trained subsampling, an RBF output; 60,000 parameters). The image
    is padded by 2 with zeros.
    """

    input_shape = (1, 28, 28)

    def __init__(self, num_classes: int = 10, *, activation: Activation = "tanh", dtype: Any = None) -> None:
        super().__init__(
            conv1=Conv2d(1, 6, 5, padding=2, activation=activation, dtype=dtype),
            pool1=AvgPool2d(2),
            conv2=Conv2d(6, 16, 5, activation=activation, dtype=dtype),
            pool2=AvgPool2d(2),
            conv3=Conv2d(16, 120, 5, activation=activation, dtype=dtype),
            flatten=Flatten(),
            fc1=Linear(120, 84, activation=activation, dtype=dtype),
            output=Linear(84, num_classes, dtype=dtype),
        )


def _paper_normal(weight: Any, **options: Any) -> Any:
    """AlexNet's initial weights, N(0, 0.01^2), whatever the fans."""
    return initialisers.normal_(weight, 0.0, 0.01, generator=options.get("generator"))


class AlexNet(Sequential):
    """Krizhevsky, Sutskever, Hinton (2012): 60,965,224 parameters with two groups and 1,000 classes.

    x (N, 3, input_size, input_size) gives scores (N, num_classes). input_size: 227, or 224 with padding 2
    (the paper's 224 alone does not fit an 11x11 layer of stride 4); both give 55. groups: 2 as on the paper's
    two GPUs, where local response normalisation acts within each half, or 1 (62,378,344). The normalisation
    divides by (2 + 1e-4 sum a^2)^0.75 over five channels, alpha not divided by five, after the ReLU.
    Weights start from N(0, 0.01^2); biases of conv2, conv4, conv5, fc6 and fc7 from `positive_bias`, 1 in the
    paper (a public replica found that 1 does not train, and used 0.1), the others from 0. Dropout here scales
    in training; the paper halves the outputs in the test.
    Raises ShapeError for another input_size, ValueError for groups other than 1 and 2.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        groups: int = 2,
        input_size: int = 227,
        positive_bias: float = 1.0,
        dropout: float = 0.5,
        dtype: Any = None,
    ) -> None:
        paddings = {227: 0, 224: 2}
        if input_size not in paddings:
            raise ShapeError(f"AlexNet: input_size is {input_size}; use 227, or 224 (which is then padded by 2)")
        if groups not in (1, 2):
            raise ValueError(f"AlexNet: groups is {groups}; use 2 as in the paper, or 1")
        zero: dict[str, Any] = {"activation": "relu", "init": _paper_normal, "dtype": dtype}
        one = zero | {"initial_bias": positive_bias}
        norm: dict[str, Any] = {
            "size": 5,
            "alpha": 1e-4,
            "beta": 0.75,
            "k": 2.0,
            "divide_by_size": False,
            "groups": groups,
        }
        super().__init__(
            conv1=Conv2d(3, 96, 11, stride=4, padding=paddings[input_size], **zero),
            norm1=LocalResponseNorm(**norm),
            pool1=MaxPool2d(3, 2),
            conv2=Conv2d(96, 256, 5, padding=2, groups=groups, **one),
            norm2=LocalResponseNorm(**norm),
            pool2=MaxPool2d(3, 2),
            conv3=Conv2d(256, 384, 3, padding=1, **zero),
            conv4=Conv2d(384, 384, 3, padding=1, groups=groups, **one),
            conv5=Conv2d(384, 256, 3, padding=1, groups=groups, **one),
            pool5=MaxPool2d(3, 2),
            flatten=Flatten(),
            fc6=Linear(9216, 4096, **one),
            drop6=Dropout(dropout),
            fc7=Linear(4096, 4096, **one),
            drop7=Dropout(dropout),
            output=Linear(4096, num_classes, init=_paper_normal, dtype=dtype),
        )
        self.input_shape = (3, input_size, input_size)
