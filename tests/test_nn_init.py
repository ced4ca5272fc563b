"""Initial weights: the course's experiment, the numbers of Glorot and Bengio (2010), and each rule's variance."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import nn
from tinygrad_nm.nn import init


def fresh(*shape: int, dtype: str = "float64") -> nn.Parameter:
    return nn.Parameter(np.full(shape, np.nan, dtype))


RULES = {
    "N(0, 1)": (init.normal_, 1.0e6),
    "U[-0.5, 0.5]": (lambda w: init.uniform_(w, -0.5, 0.5), (100 / 12) ** 3),
    "U[-0.05, 0.05]": (lambda w: init.uniform_(w, -0.05, 0.05), (100 / 1200) ** 3),
    "Glorot": (lambda w: init.glorot_uniform_(w, fans=(100, 100)), 1.0),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_courses_experiment_on_three_layers(rule):
    """The mean of |K3 K2 K1 y|^2 / |y|^2 over 2,000 draws in R^100 lies within four standard errors."""
    draw, expected = RULES[rule]
    nm.manual_seed(2024)
    ratios = []
    for _ in range(40):
        k = draw(fresh(50, 3, 100, 100, dtype="float32")).numpy()
        y = nm.random.generator().standard_normal((50, 100, 1))
        z = k[:, 2] @ (k[:, 1] @ (k[:, 0] @ y))
        ratios.append(np.square(z).sum((1, 2)) / np.square(y).sum((1, 2)))
    ratios = np.concatenate(ratios)
    assert ratios.shape == (2000,)
    assert abs(ratios.mean() - expected) < 4 * ratios.std(ddof=1) / math.sqrt(2000)
    assert 0.15 < ratios.std() / ratios.mean() < 0.35  # near 0.24, so that four errors are some 2%


FAN_IN, FAN_OUT = 300, 200
VARIANCES = {
    "glorot_uniform_": 2 / (FAN_IN + FAN_OUT),
    "glorot_normal_": 2 / (FAN_IN + FAN_OUT),
    "he_uniform_": 2 / FAN_IN,
    "he_normal_": 2 / FAN_IN,
    "lecun_uniform_": 1 / FAN_IN,
    "lecun_normal_": 1 / FAN_IN,
    "standard_": 1 / (3 * FAN_IN),
}


@pytest.mark.parametrize("name", VARIANCES)
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_each_rule_has_its_variance_and_shape(name, gain):
    weight = fresh(FAN_OUT, FAN_IN)
    assert getattr(init, name)(weight, gain) is weight
    w = weight.numpy()
    variance = gain**2 * VARIANCES[name]
    fourth = 1.8 if "uniform" in name or name == "standard_" else 3.0  # E w^4 / (E w^2)^2
    assert abs(w.mean()) < 4 * math.sqrt(variance / w.size)
    assert abs(np.square(w).mean() / variance - 1) < 4 * math.sqrt((fourth - 1) / w.size)
    largest = math.sqrt(3 * variance)
    assert (np.abs(w).max() <= largest) == (fourth == 1.8)


def test_standard_is_one_third_and_its_bound():
    w = init.standard_(fresh(1000, 400)).numpy()
    assert np.abs(w).max() <= 1 / math.sqrt(400)
    assert 400 * w.var() == pytest.approx(1 / 3, rel=0.01)


def test_names_of_authors_are_the_same_functions():
    assert init.xavier_uniform_ is init.glorot_uniform_ and init.xavier_normal_ is init.glorot_normal_
    assert init.kaiming_uniform_ is init.he_uniform_ and init.kaiming_normal_ is init.he_normal_
    assert init.he_normal_.__name__ == "he_normal_" and "He" in (init.he_normal_.__doc__ or "")


def test_fans_come_from_the_shape_or_are_given_for_each_weight():
    assert init.fans_of((8, 4)) == (4, 8)
    assert init.fans_of((8, 4, 3, 5)) == (60, 120)
    fans = np.array([10.0, 1000.0]).reshape(2, 1)
    w = init.lecun_normal_(fresh(2, 20000), fans=(fans, 1)).numpy()
    assert w.var(axis=1) == pytest.approx([1 / 10, 1 / 1000], rel=0.05)
    with pytest.raises(nm.ShapeError, match=r"init: shape \(5,\) has no fan-in"):
        init.he_normal_(fresh(5))


def test_constants_and_moments():
    assert (init.zeros_(fresh(3)).numpy() == 0).all()
    assert (init.constant_(fresh(3, 2), 1.5).numpy() == 1.5).all()
    w = init.normal_(fresh(50000), 3.0, 0.5).numpy()
    assert w.mean() == pytest.approx(3.0, abs=0.01) and w.std() == pytest.approx(0.5, rel=0.02)
    u = init.uniform_(fresh(50000), 2.0, 4.0).numpy()
    assert 2 <= u.min() < 2.001 and 3.999 < u.max() < 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init.uniform_(fresh(2), 1.0, 0.0), "uniform_: low 1.0 is above high 0.0"),
        (lambda: init.normal_(fresh(2), 0.0, -1.0), "normal_: std -1.0 is negative"),
        (lambda: init.gain("cubic"), "gain: no gain is known for 'cubic'"),
    ],
)
def test_numbers_that_cannot_be_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "parameter", "expected"),
    [
        ("relu", None, math.sqrt(2)),
        ("tanh", None, 5 / 3),
        ("identity", None, 1.0),
        ("leaky_relu", None, math.sqrt(2 / 1.0001)),
        ("leaky_relu", 1.0, 1.0),
    ],
)
def test_gains(name, parameter, expected):
    assert init.gain(name, parameter) == pytest.approx(expected, rel=1e-12)


def test_seeds_and_generators_decide():
    nm.manual_seed(5)
    a = init.normal_(fresh(9)).numpy().copy()
    nm.manual_seed(5)
    assert np.array_equal(init.normal_(fresh(9)).numpy(), a)
    assert not np.array_equal(init.normal_(fresh(9)).numpy(), a)
    given = [init.normal_(fresh(9), generator=np.random.default_rng(1)).numpy() for _ in range(2)]
    assert np.array_equal(*given)


def test_an_initialiser_of_a_layer_sees_its_fans():
    layer = nn.Conv2d(64, 128, 3, groups=2, init=init.he_normal_)
    assert layer.weight.numpy().var() == pytest.approx(2 / (32 * 9), rel=0.05)


def test_writing_weights_between_forward_and_backward_is_refused():
    layer = nn.Linear(2, 2)
    loss = layer(nm.tensor(np.ones((1, 2)), dtype="float32", requires_grad=True)).sum()
    init.zeros_(layer.weight)
    with pytest.raises(nm.GradientError, match="changed in place"):
        loss.backward()


WIDTH, LAYERS = 1000, 5
# Glorot and Bengio (2010), figure 2's quantity in a public redo: standard deviations of the activations
STANDARD = (0.164, 0.094, 0.054, 0.031, 0.018)
NORMALISED = (0.268, 0.248, 0.232, 0.222, 0.213)


@pytest.mark.parametrize(("rule", "published"), [("standard_", STANDARD), ("glorot_uniform_", NORMALISED)])
def test_activations_of_five_tanh_layers_fade_as_published(rule, published):
    y = nm.random.generator().uniform(-0.5, 0.5, (100, WIDTH))  # inputs with the variance of U[0, 1] grey levels
    x = nm.tensor(y, dtype="float32")
    for expected in published:
        x = nn.Linear(WIDTH, WIDTH, activation="tanh", init=getattr(init, rule))(x).detach()
        assert x.numpy().std() == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(("rule", "published"), [("standard_", 0.5), ("glorot_uniform_", 0.8)])
def test_mean_singular_value_of_a_layers_jacobian(rule, published):
    """J = diag(1 - y^2) K at a typical activation: 0.5 with standard weights, 0.8 with normalised ones."""
    width = 300
    layer = nn.Linear(width, width, activation="tanh", init=getattr(init, rule))
    spread = {"standard_": STANDARD, "glorot_uniform_": NORMALISED}[rule][1]
    y = layer(nm.tensor(nm.random.generator().normal(0, spread, (1, width)), dtype="float32")).numpy()
    jacobian = (1 - y**2).T * layer.weight.numpy()
    assert np.linalg.svd(jacobian, compute_uv=False).mean() == pytest.approx(published, abs=0.03)


def test_weight_gradients_are_level_across_layers_with_standard_weights():
    """What the backward signal loses, the forward signal had more of (Glorot and Bengio 2010, section 4.2.1)."""
    width = 300
    model = nn.DeepNetwork([width] * 7, "tanh", init=init.standard_)
    x = nm.tensor(nm.random.generator().normal(0, 0.3, (100, width)), dtype="float32")
    y = model(x)
    y.backward(nm.tensor(nm.random.generator().normal(0, 1, y.shape), dtype="float32"))
    spread = [layer.weight.grad.numpy().var() for layer in model]
    assert max(spread) / min(spread) < 1.5
