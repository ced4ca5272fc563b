"""Layers: each against its formula in plain NumPy, sizes that do not fit, and the connection table."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import check, nn


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


ACTIVATIONS = {
    "tanh": (nn.Tanh(), np.tanh),
    "scaled_tanh": (nn.ScaledTanh(), lambda x: 1.7159 * np.tanh(2 * x / 3)),
    "relu": (nn.ReLU(), lambda x: np.maximum(x, 0)),
    "leaky_relu": (nn.LeakyReLU(), lambda x: np.where(x > 0, x, 0.01 * x)),
    "sigmoid": (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    "softsign": (nn.Softsign(), lambda x: x / (1 + np.abs(x))),
    "softplus": (nn.Softplus(), lambda x: np.log1p(np.exp(x))),
    "elu": (nn.ELU(), lambda x: np.where(x > 0, x, np.exp(x) - 1)),
    "gelu": (nn.GELU(), np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)),
    "sin": (nn.Sin(), np.sin),
    "smooth_relu": (
        nn.SmoothReLU(),
        lambda x: np.where(np.abs(x) <= 0.1, x * x / 0.4 + x / 2 + 0.025, np.maximum(x, 0)),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_layers_and_activation_arguments(name):
    layer, formula = ACTIVATIONS[name]
    x = numbers(5, 7)
    assert np.allclose(layer(nm.tensor(x)).numpy(), formula(x), rtol=1e-13, atol=1e-15)
    linear = nn.Linear(7, 3, activation=name, initial_bias=0.25, dtype="float64")
    z = x @ linear.weight.numpy().T + 0.25
    assert np.allclose(linear(nm.tensor(x)).numpy(), formula(z), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("layer", "spec", "formula"),
    [
        (nn.LeakyReLU(0.3), ("leaky_relu", 0.3), lambda x: np.where(x > 0, x, 0.3 * x)),
        (nn.ELU(0.5), ("elu", 0.5), lambda x: np.where(x > 0, x, 0.5 * (np.exp(x) - 1))),
        (
            nn.SmoothReLU(2.0),
            ("smooth_relu", 2.0),
            lambda x: np.where(np.abs(x) <= 2, x * x / 8 + x / 2 + 0.5, np.maximum(x, 0)),
        ),
        (nn.Tanh(), nm.tanh, np.tanh),
        (nn.Identity(), None, lambda x: x),
    ],
)
def test_activation_parameters(layer, spec, formula):
    x = numbers(4, 6)
    linear = nn.Linear(6, 6, bias=False, activation=spec, dtype="float64")
    assert np.allclose(layer(nm.tensor(x)).numpy(), formula(x), rtol=1e-13)
    assert np.allclose(linear(nm.tensor(x)).numpy(), formula(x @ linear.weight.numpy().T), rtol=1e-12)


def test_linear_is_the_courses_layer():
    layer = nn.Linear(4, 3)
    assert layer.weight.shape == (3, 4) and layer.bias.shape == (3,) and layer.weight.dtype == np.float32
    assert not layer.bias.numpy().any() and layer.weight.numpy().all()
    assert nn.Linear(4, 3, bias=False).bias is None
    assert [name for name, _ in nn.Linear(4, 3, bias=False).named_parameters()] == ["weight"]


def test_the_default_dtype_and_dtype_arguments():
    nm.set_default_dtype("float64")
    assert nn.Linear(2, 2).weight.dtype == np.float64
    assert nn.Conv2d(1, 1, 1, dtype="float32").bias.dtype == np.float32
    assert nn.TrainableAvgPool2d(2, 2).weight.dtype == np.float64
    with pytest.raises(nm.DtypeError, match="Linear: dtype is int64"):
        nn.Linear(2, 2, dtype=int)


def test_one_seed_gives_the_same_weights_in_both_dtypes():
    nm.manual_seed(3)
    single = nn.LeNet1989()
    nm.manual_seed(3)
    double = nn.LeNet1989(dtype="float64")
    for (name, a), (_, b) in zip(single.named_parameters(), double.named_parameters(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy().astype(np.float32)), name
    nm.manual_seed(4)
    assert not np.array_equal(nn.LeNet1989().h1.weight.numpy(), single.h1.weight.numpy())


def test_conv2d_passes_its_geometry_on():
    layer = nn.Conv2d(4, 6, (3, 2), (2, 1), ((1, 0), (0, 2)), (1, 2), 2, activation="tanh", initial_bias=0.1)
    x = nm.tensor(numbers(2, 4, 9, 8), dtype="float32")
    y = nm.tanh(nm.conv2d(x, layer.weight, None, (2, 1), ((1, 0), (0, 2)), (1, 2), 2) + 0.1)
    assert layer.weight.shape == (6, 2, 3, 2)
    assert np.allclose(layer(x).numpy(), y.numpy(), atol=1e-6)


TABLE = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1]], bool)


def test_a_connection_table_is_a_masked_convolution():
    layer = nn.Conv2d(3, 4, 2, connections=TABLE, activation="tanh", dtype="float64")
    assert layer.weight.shape == (7, 2, 2)
    dense = nn.Conv2d(3, 4, 2, activation="tanh", dtype="float64")
    weight = np.zeros((4, 3, 2, 2))
    weight[TABLE] = layer.weight.numpy()  # NumPy, too, fills a mask row by row
    dense.load_state_dict({"weight": weight, "bias": layer.bias.numpy()})
    x = nm.tensor(numbers(2, 3, 5, 4))
    assert np.array_equal(layer(x).numpy(), dense(x).numpy())
    for model in (layer, dense):
        (model(x) * nm.tensor(numbers(2, 4, 4, 3))).sum().backward()
    assert np.array_equal(layer.weight.grad.numpy(), dense.weight.grad.numpy()[TABLE])


def test_an_unconnected_channel_never_reaches_the_output():
    layer = nn.Conv2d(3, 4, 2, connections=TABLE)
    x = numbers(1, 3, 4, 4).astype(np.float32)
    before = layer(nm.tensor(x)).numpy()
    x[:, 1] += 5.0
    changed = (layer(nm.tensor(x)).numpy() != before).any(axis=(0, 2, 3))
    assert changed.tolist() == TABLE[:, 1].tolist()


def test_fans_of_a_table_are_those_of_each_unit():
    layer = nn.Conv2d(3, 4, 2, connections=TABLE)
    fan_in, fan_out = layer._fans((2, 2))
    assert fan_in.ravel().tolist() == [8, 8, 4, 12, 12, 12, 4]
    assert fan_out.ravel().tolist() == [8, 12, 8, 8, 8, 12, 12]
    assert nn.Conv2d(4, 6, 3, groups=2)._fans((3, 3)) == (18, 27)


def test_trainable_pooling_has_a_coefficient_and_a_bias_a_map():
    layer = nn.TrainableAvgPool2d(3, (2, 1), activation="scaled_tanh", dtype="float64")
    assert [(n, p.shape) for n, p in layer.named_parameters()] == [("weight", (3,)), ("bias", (3,))]
    layer.load_state_dict({"weight": np.array([2.0, -1.0, 0.5]), "bias": np.array([0.1, 0.2, 0.3])})
    x = numbers(2, 3, 4, 5)
    mean = (x[:, :, 0::2] + x[:, :, 1::2]) / 2
    z = mean * np.array([2.0, -1.0, 0.5]).reshape(3, 1, 1) + np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)
    assert np.allclose(layer(nm.tensor(x)).numpy(), 1.7159 * np.tanh(2 * z / 3), rtol=1e-13)
    overlapping = nn.TrainableAvgPool2d(3, 2, 1, dtype="float64")
    assert overlapping(nm.tensor(x)).shape == (2, 3, 3, 4)


def test_pooling_normalisation_and_flatten_pass_their_options_on():
    x = nm.tensor(numbers(2, 4, 7, 6))
    pairs = [
        (nn.MaxPool2d(3, 2, 1, 1, True), nm.max_pool2d(x, 3, 2, 1, 1, True)),
        (nn.MaxPool2d(2, dilation=2), nm.max_pool2d(x, 2, None, 0, 2)),
        (nn.AvgPool2d(3, 2, 1, True, False), nm.avg_pool2d(x, 3, 2, 1, True, False)),
        (nn.AvgPool2d(2), nm.avg_pool2d(x, 2)),
        (
            nn.LocalResponseNorm(3, 0.1, 0.5, 2.0, False, 2),
            nm.local_response_norm(x, 3, 0.1, 0.5, 2.0, False, 2),
        ),
        (nn.Flatten(), x.reshape(2, -1)),
        (nn.Identity(), x),
    ]
    for layer, expected in pairs:
        assert np.array_equal(layer(x).numpy(), expected.numpy()), layer
    assert nn.Flatten()(nm.zeros((0, 3, 2))).shape == (0, 6)


def test_dropout_scales_in_training_and_follows_the_seed():
    layer = nn.Dropout(0.25)
    x = nm.ones((100, 200))
    nm.manual_seed(1)
    y, z = layer(x).numpy(), layer(x).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(4 / 3)}
    assert abs((y == 0).mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / y.size)
    assert not np.array_equal(y, z)
    nm.manual_seed(1)
    assert np.array_equal(layer(x).numpy(), y)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 2, connections=TABLE, activation="tanh", dtype="float64"),
        nn.TrainableAvgPool2d(3, 2, activation="scaled_tanh", dtype="float64"),
    ],
)
def test_derivatives_of_the_layers_built_here(layer):
    x = numbers(2, 3, 4, 4)
    check.assert_derivatives(layer, nm.tensor(x))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Linear(0, 3), nm.ShapeError, "Linear: in_features is 0; it must be a positive integer"),
        (lambda: nn.Linear(3, -1), nm.ShapeError, "Linear: out_features is -1"),
        (lambda: nn.Linear(3, 2.0), nm.ShapeError, "Linear: out_features is 2.0"),
        (lambda: nn.Linear(3, True), nm.ShapeError, "Linear: out_features is True"),
        (lambda: nn.Linear(3, 2, activation="tan"), ValueError, "Linear: activation 'tan' is not known"),
        (lambda: nn.Conv2d(3, 4, 0), nm.ShapeError, "Conv2d: kernel_size must be an int or a pair"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), nm.ShapeError, "Conv2d: stride must be"),
        (lambda: nn.Conv2d(3, 4, 3, dilation=(1, 0)), nm.ShapeError, "Conv2d: dilation must be"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), nm.ShapeError, "Conv2d: padding must be"),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), nm.ShapeError, "Conv2d: groups is 0"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), nm.ShapeError, "3 input and 4 output channels do not divide"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), nm.ShapeError, "4 input and 3 output channels do not divide"),
        (
            lambda: nn.Conv2d(3, 4, 3, connections=TABLE.T),
            nm.ShapeError,
            r"connections is bool of shape \(3, 4\); it must be bool of shape .* = \(4, 3\)",
        ),
        (lambda: nn.Conv2d(3, 4, 3, connections=TABLE * 1), nm.ShapeError, "connections is int64"),
        (
            lambda: nn.Conv2d(3, 4, 3, connections=np.eye(4, 3, dtype=bool)),
            nm.ShapeError,
            r"output channels \[3\] have no connection",
        ),
        (
            lambda: nn.Conv2d(4, 4, 3, groups=2, connections=np.eye(4, dtype=bool)),
            ValueError,
            "a connection table and groups=2 exclude each other",
        ),
        (lambda: nn.TrainableAvgPool2d(0, 2), nm.ShapeError, "TrainableAvgPool2d: channels is 0"),
        (lambda: nn.MaxPool2d(0), nm.ShapeError, "MaxPool2d: kernel_size must be"),
        (lambda: nn.AvgPool2d(2, -1), nm.ShapeError, "AvgPool2d: stride must be"),
        (lambda: nn.MaxPool2d(2, dilation=0), nm.ShapeError, "MaxPool2d: dilation must be"),
        (lambda: nn.Dropout(1.5), ValueError, "Dropout: p is 1.5"),
        (lambda: nn.LeakyReLU(0.0), ValueError, "LeakyReLU: the parameter of leaky_relu is 0.0"),
        (lambda: nn.LocalResponseNorm(0), nm.ShapeError, "LocalResponseNorm: size is 0"),
        (lambda: nn.LocalResponseNorm(5, groups=0), nm.ShapeError, "LocalResponseNorm: groups is 0"),
    ],
)
def test_sizes_that_cannot_be_are_told_when_a_layer_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Linear(3, 2), (4, 5), r"linear: input of shape \(4, 5\) .*\(in Linear\)"),
        (nn.Conv2d(1, 6, 5), (1, 3, 28, 28), r"conv2d: input has 3 channels, shape \(1, 3, 28, 28\), but weight"),
        (nn.Conv2d(1, 6, 5), (1, 1, 4, 28), r"conv2d: kernel \(5, 5\) .* is larger than its padded input"),
        (nn.MaxPool2d(5), (1, 1, 3, 3), r"max_pool2d: kernel \(5, 5\).* is larger than the padded input \(3, 3\)"),
        (nn.TrainableAvgPool2d(4, 2), (1, 3, 4, 4), r"input has shape \(1, 3, 4, 4\), but \(N, 4, H, W\) is needed"),
        (nn.Flatten(), (), "flatten: start_axis 1 is outside"),
    ],
)
def test_inputs_that_do_not_fit_are_told(layer, shape, message):
    with pytest.raises(nm.ShapeError, match=message):
        layer(nm.ones(shape))


def test_an_activation_may_be_replaced_and_is_checked():
    layer = nn.Linear(3, 2, activation="tanh")
    x = nm.tensor(np.ones((1, 3), np.float32))
    layer.activation = "relu"
    assert np.array_equal(layer(x).numpy(), nm.linear(x, layer.weight, layer.bias, activation="relu").numpy())
    assert "activation='relu'" in repr(layer)
    with pytest.raises(ValueError, match="Linear: activation 'no such' is not known"):
        layer.activation = "no such"
    assert layer.activation == "relu"
