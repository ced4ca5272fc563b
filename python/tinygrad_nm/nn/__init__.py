"""Networks: modules, layers, the course's models, their weights and what they cost."""

from . import init
from .flat import FlatParameters
from .functions import (
    ELU,
    GELU,
    AvgPool2d,
    Dropout,
    Flatten,
    Identity,
    LeakyReLU,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    ScaledTanh,
    Sigmoid,
    Sin,
    SmoothReLU,
    Softplus,
    Softsign,
    Tanh,
)
from .layers import Conv2d, Linear, TrainableAvgPool2d
from .models import AlexNet, DeepNetwork, LeNet, LeNet5, LeNet1989
from .module import Module, Parameter, Sequential
from .serialization import load, save
from .summary import summary
from .utils import clip_grad_norm

__all__ = [
    "ELU",
    "GELU",
    "AlexNet",
    "AvgPool2d",
    "Conv2d",
    "DeepNetwork",
    "Dropout",
    "FlatParameters",
    "Flatten",
    "Identity",
    "LeNet",
    "LeNet5",
    "LeNet1989",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "ScaledTanh",
    "Sequential",
    "Sigmoid",
    "Sin",
    "SmoothReLU",
    "Softplus",
    "Softsign",
    "Tanh",
    "TrainableAvgPool2d",
    "clip_grad_norm",
    "init",
    "load",
    "save",
    "summary",
]
