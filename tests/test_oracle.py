"""Every model against PyTorch: forward, loss, gradients and three SGD steps, on the same weights and dropout masks.

The networks are translated layer by layer into PyTorch's functions, so that one translation serves all of them.
Needs the extra `oracle`; skipped, with the reason, where PyTorch is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import nn, optim

torch = pytest.importorskip("torch", reason="PyTorch is not installed: the oracle needs the extra `oracle`")
F = torch.nn.functional


@pytest.fixture(autouse=True, scope="module")
def one_thread_for_torch():
    """Two pools of threads on the same cores wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scaled_tanh(x: Any) -> Any:
    return 1.7159 * torch.tanh(2.0 / 3.0 * x)


def smooth_relu(x: Any, eta: float = 0.1) -> Any:
    return torch.where(x.abs() <= eta, x * x / (4 * eta) + x / 2 + eta / 4, x.clamp(min=0))


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "scaled_tanh": scaled_tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "softplus": F.softplus,
    "elu": F.elu,
    "gelu": F.gelu,
    "sin": torch.sin,
    "smooth_relu": smooth_relu,
}


def activate(x: Any, spec: Any) -> Any:
    name, *parameter = spec if isinstance(spec, tuple) else (spec,)
    return x if name is None else ACTIVATIONS[name](x, *parameter)


def padded(x: Any, padding: Any, value: float = 0.0) -> Any:
    """PyTorch's layers pad both sides alike; F.pad takes (left, right, top, bottom)."""
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    (top, bottom), (left, right) = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def linear(layer: nn.Linear, w: dict[str, Any], x: Any) -> Any:
    return activate(F.linear(x, w["weight"], w.get("bias")), layer.activation)


def conv2d(layer: nn.Conv2d, w: dict[str, Any], x: Any) -> Any:
    weight = w["weight"]
    if layer.links is not None:
        rows, columns = (torch.from_numpy(i) for i in layer.links)
        weight = torch.zeros(layer.out_channels, layer.in_channels, *weight.shape[1:], dtype=weight.dtype)
        weight = weight.index_put((rows, columns), w["weight"])
    g = layer.geometry
    y = F.conv2d(padded(x, g["padding"]), weight, w.get("bias"), g["stride"], 0, g["dilation"], g["groups"])
    return activate(y, layer.activation)


def trainable_pool(layer: nn.TrainableAvgPool2d, w: dict[str, Any], x: Any) -> Any:
    mean = F.avg_pool2d(x, layer.kernel_size, layer.stride)
    return activate(mean * w["weight"][:, None, None] + w["bias"][:, None, None], layer.activation)


def max_pool(layer: nn.MaxPool2d, w: dict[str, Any], x: Any) -> Any:
    o = layer.options
    return F.max_pool2d(x, o["kernel_size"], o["stride"], o["padding"], o["dilation"], o["ceil_mode"])


def avg_pool(layer: nn.AvgPool2d, w: dict[str, Any], x: Any) -> Any:
    o = layer.options
    return F.avg_pool2d(x, o["kernel_size"], o["stride"], o["padding"], o["ceil_mode"], o["count_include_pad"])


def response_norm(layer: nn.LocalResponseNorm, w: dict[str, Any], x: Any) -> Any:
    o = layer.options
    alpha = o["alpha"] * (1 if o["divide_by_size"] else o["size"])  # PyTorch always divides
    parts = x.chunk(o["groups"], 1)
    return torch.cat([F.local_response_norm(p, o["size"], alpha, o["beta"], o["k"]) for p in parts], 1)


TRANSLATIONS: dict[type, Callable[..., Any]] = {
    nn.Linear: linear,
    nn.Conv2d: conv2d,
    nn.TrainableAvgPool2d: trainable_pool,
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: avg_pool,
    nn.LocalResponseNorm: response_norm,
    nn.Dropout: lambda layer, w, x: F.dropout(x, layer.options["p"], layer.training),
    nn.Flatten: lambda layer, w, x: x.flatten(1),
}


class Twin:
    """A Sequential of ours as a function of PyTorch's, with copies of its weights."""

    def __init__(self, model: nn.Sequential) -> None:
        self.model = model
        self.weights = {name: torch.from_numpy(array).requires_grad_() for name, array in model.state_dict().items()}

    def __call__(self, x: Any) -> Any:
        for name, layer in self.model.named_children():
            w = {n.removeprefix(f"{name}."): p for n, p in self.weights.items() if n.startswith(f"{name}.")}
            x = TRANSLATIONS[type(layer)](layer, w, x)
        return x


@pytest.fixture
def shared_masks(monkeypatch):
    """PyTorch's dropout takes the masks that ours drew, in the order in which it drew them."""
    streams: list[tuple[int, int]] = []
    real = nm.random.next_stream

    def recorded():
        streams.append(real())
        return streams[-1]

    def dropout(x, p, training):
        assert training
        ones = np.ones((len(x), x[0].numel()), x.detach().numpy().dtype)
        mask = np.empty_like(ones)
        nm._cpu.dropout(mask, ones, p, *streams.pop(0), 0)
        return x * torch.from_numpy(mask).reshape(x.shape)

    monkeypatch.setattr(nm.random, "next_stream", recorded)
    monkeypatch.setattr(F, "dropout", dropout)
    return streams


class Comparison:
    """Counts what it compares: |ours - theirs| <= bound |theirs|, as vectors."""

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self.count = 0
        self.worst = 0.0

    def __call__(self, what: str, ours: Any, theirs: Any) -> None:
        theirs = theirs.detach().numpy()
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, what
        difference, size = ours.astype(np.float64).ravel() - theirs.ravel(), theirs.astype(np.float64).ravel()
        error = np.sqrt(np.square(difference).sum() / np.square(size).sum())
        self.count += 1
        self.worst = max(self.worst, error)
        assert error <= self.bound, f"{what}: relative error {error:.2e} > {self.bound:.0e}"


def train_both(model, x, losses, ours, theirs, compare, steps=3):
    """`steps` of SGD with both; compares output, loss, every gradient and every weight at each step."""
    twin = Twin(model)
    optimisers = ours(model.parameters()), theirs(list(twin.weights.values()))
    for step in range(steps):
        y, z = model(nm.tensor(x)), twin(torch.from_numpy(x))
        compare(f"step {step}: output", y.numpy(), z)
        loss, twin_loss = losses[0](y), losses[1](z)
        compare(f"step {step}: loss", loss.numpy(), twin_loss)
        for optimiser, value in zip(optimisers, (loss, twin_loss), strict=True):
            optimiser.zero_grad()
            value.backward()
        for name, p in model.named_parameters():
            compare(f"step {step}: gradient of {name}", p.grad.numpy(), twin.weights[name].grad)
        for optimiser in optimisers:
            optimiser.step()
        for name, p in model.named_parameters():
            compare(f"step {step}: {name}", p.numpy(), twin.weights[name])


def classification(labels):
    return (
        lambda y: nm.cross_entropy(y, labels),
        lambda z: F.cross_entropy(z, torch.from_numpy(labels)),
    )


def regression(targets):
    return lambda y: nm.mse_loss(y, targets), lambda z: F.mse_loss(z, torch.from_numpy(targets))


def yes_or_no(targets):
    return (
        lambda y: nm.binary_cross_entropy_with_logits(y, targets),
        lambda z: F.binary_cross_entropy_with_logits(z, torch.from_numpy(targets)),
    )


def everything() -> nn.Sequential:
    """The layers and options that the course's models do not use."""
    return nn.Sequential(
        a=nn.Conv2d(2, 8, (3, 2), (2, 1), ((1, 0), (2, 1)), (1, 2), groups=2, activation="softplus"),
        b=nn.LocalResponseNorm(3, 0.3, 0.6, 1.5),
        c=nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        d=nn.Dropout(0.3),
        e=nn.Conv2d(8, 6, 3, padding=1, bias=False, activation=("leaky_relu", 0.2)),
        f=nn.LocalResponseNorm(5, 0.2, 0.75, 2.0, False, 2),
        g=nn.MaxPool2d(2, 1, 1, 2, True),
        h=nn.Flatten(),
        i=nn.Linear(6 * 7 * 6, 7, activation=("elu", 0.7)),
        j=nn.Dropout(0.5),
        k=nn.Linear(7, 10, bias=False),
    ).to("float64")


RNG = np.random.default_rng(7)
IMAGES = RNG.uniform(-1, 1, (6, 1, 28, 28))
LABELS = RNG.integers(0, 10, 6)
SIGNS = np.where(np.eye(10)[LABELS] > 0, 1.0, -1.0)
POINTS = RNG.uniform(-3, 3, (40, 2))

SMALL = (
    {  # name: (model, input, losses, parameters)
        "lenet": (lambda: nn.LeNet(dtype="float64"), IMAGES, classification(LABELS), 6),
        "lenet1989": (lambda: nn.LeNet1989(dtype="float64"), IMAGES, regression(SIGNS), 10),
        "lenet5": (lambda: nn.LeNet5(dtype="float64"), IMAGES, classification(LABELS), 10),
        "regression": (
            lambda: nn.DeepNetwork((2, 20, 20, 1), "tanh", output_bias=True, dtype="float64"),
            POINTS,
            regression(RNG.standard_normal((40, 1))),
            6,
        ),
        "everything": (
            everything,
            RNG.standard_normal((5, 2, 23, 11)),
            yes_or_no((SIGNS[:5] + 1) / 2),
            6,
        ),
    }
    | {
        f"deep {name}": (
            lambda name=name: nn.DeepNetwork((2, 16, 16, 5), name, dtype="float64"),
            POINTS,
            classification(RNG.integers(0, 5, 40)),
            5,
        )
        for name in ACTIVATIONS
    }
)

FORMS = {  # options of ours beside PyTorch's; for a constant lr AlexNet's form gives the same steps
    "plain": ({"weight_decay": 1e-2}, {"weight_decay": 1e-2}),
    "momentum": ({"momentum": 0.9}, {"momentum": 0.9}),
    "nesterov": ({"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True}),
    "lr in velocity": (
        {"momentum": 0.9, "weight_decay": 5e-4, "lr_in_velocity": True},
        {"momentum": 0.9, "weight_decay": 5e-4},
    ),
    "lr in velocity, nesterov": (
        {"momentum": 0.9, "lr_in_velocity": True, "nesterov": True},
        {"momentum": 0.9, "nesterov": True},
    ),
}


EVERY_MODEL = ("momentum", "lr in velocity")
RUNS = [(name, form) for name in SMALL for form in FORMS if form in EVERY_MODEL or name == "deep sin"]


@pytest.mark.parametrize(("name", "form"), RUNS)
def test_three_steps_in_double_precision(name, form, shared_masks):
    make, x, losses, parameters = SMALL[name]
    ours, theirs = FORMS[form]
    compare = Comparison(1e-11)
    train_both(
        make(),
        x,
        losses,
        lambda p: optim.SGD(p, 0.05, **ours),
        lambda p: torch.optim.SGD(p, 0.05, **theirs),
        compare,
    )
    assert compare.count == 3 * (2 + 2 * parameters)
    assert shared_masks == []  # every mask was used


def test_a_wrong_layer_would_be_noticed():
    """The comparison fails where one layer of the twin differs by one percent."""
    model = nn.LeNet(dtype="float64")
    twin = Twin(model)
    with torch.no_grad():
        twin.weights["conv2.weight"] *= 1.01
    compare = Comparison(1e-11)
    with pytest.raises(AssertionError, match=r"output: relative error .* > 1e-11"):
        compare("output", model(nm.tensor(IMAGES)).numpy(), twin(torch.from_numpy(IMAGES)))


def test_alexnet_at_full_width(shared_masks):
    """Two images, three steps as in the paper, in double precision: in single precision both agree to 2e-6 until, some
    steps on, rounding decides one window of a max-pool differently, after which gradients differ by percents."""
    rng = np.random.default_rng(3)
    compare = Comparison(1e-11)
    train_both(
        nn.AlexNet(positive_bias=0.1, dtype="float64"),
        rng.uniform(-100, 150, (2, 3, 227, 227)),
        classification(rng.integers(0, 1000, 2)),
        lambda p: optim.SGD(p, 0.01, 0.9, weight_decay=5e-4, lr_in_velocity=True),
        lambda p: torch.optim.SGD(p, 0.01, 0.9, weight_decay=5e-4),
        compare,
    )
    assert compare.count == 3 * (2 + 2 * 16)
    assert shared_masks == []
