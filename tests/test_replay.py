"""Compiled functions: the same bits as the function itself, and nothing replayed that would be another computation."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import backend, replay

nn = nm.nn
WEIGHT = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)


def images(n: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 1, 28, 28)).astype(dtype)


def labels(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 10, n)


def trainer(model: Any, **options: Any) -> tuple[Any, Callable[..., Any]]:
    """(optimiser, one step of training)."""
    optimizer = nm.optim.SGD(model.parameters(), lr=0.05, **options)

    def step(x: Any, target: Any) -> Any:
        loss = nm.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return optimizer, step


def twins(make: Callable[[], Any]) -> tuple[Any, Any]:
    """Two models with the same weights."""
    nm.manual_seed(3)
    first = make()
    nm.manual_seed(3)
    return first, make()


def assert_same_state(one: Any, two: Any) -> None:
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


MODELS = {
    "lenet": nn.LeNet,
    "lenet5": nn.LeNet5,
    "lenet5-float64": lambda: nn.LeNet5(dtype="float64"),
    "max-pool": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2), nn.MaxPool2d(3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(100, 10)
    ),
    "norm": lambda: nn.Sequential(
        nn.Conv2d(1, 6, 7, stride=3, activation="relu"), nn.LocalResponseNorm(5), nn.Flatten(), nn.Linear(384, 10)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_training_gives_the_same_bits(name: str) -> None:
    plain, other = twins(MODELS[name])
    (first, step), (second, body) = trainer(plain, momentum=0.9), trainer(other, momentum=0.9)
    calls = []

    def counted(x: Any, target: Any) -> Any:
        calls.append(len(x))
        return body(x, target)

    compiled = nm.compile(counted)
    dtype = str(next(plain.parameters()).dtype)
    for k in range(8):
        n = 5 if k % 2 else 3
        first.lr = second.lr = 0.05 / (1 + k)
        x, target = images(n, k, dtype), labels(n, k)
        assert step(x, target).item() == compiled(x, target).item()
        assert_same_state(plain, other)
    assert calls == [3, 5, 3, 5] and compiled.why_not is None
    assert nm.autodiff.thread.modes.step == 16


def test_inference_gives_the_same_bits_and_follows_the_weights() -> None:
    model = nn.LeNet5()

    @nm.compile
    @nm.no_grad()
    def scores(x: Any) -> Any:
        return {"scores": model(x)}

    def expected(x: Any) -> Any:
        with nm.no_grad():
            return model(x).numpy()

    for k in range(4):
        np.testing.assert_array_equal(scores(images(2, k))["scores"].numpy(), expected(images(2, k)))
    nm.manual_seed(77)
    model.load_state_dict(nn.LeNet5().state_dict())
    np.testing.assert_array_equal(scores(images(2, 9))["scores"].numpy(), expected(images(2, 9)))


def test_ignored_labels_are_counted_anew() -> None:
    plain, other = twins(lambda: nn.DeepNetwork((6, 8, 4)))
    steps = []
    for model in (plain, other):
        optimizer = nm.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any, target: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            loss = nm.cross_entropy(model(x), target, ignore_index=2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return (loss,)

        steps.append(step)
    compiled = nm.compile(steps[1])
    for k in range(6):
        x, target = np.random.default_rng(k).random((7, 6), np.float32), labels(7, k) % 4
        assert steps[0](x, target)[0].item() == compiled(x, target)[0].item()
        assert_same_state(plain, other)
    before = [p.numpy().copy() for p in other.parameters()]
    with pytest.raises(IndexError, match=r"cross_entropy: label 4 at .* outside 0 \.\. 3"):
        compiled(x, np.full(7, 4))
    with pytest.raises(ValueError, match="cross_entropy: no label counts"):
        compiled(x, np.full(7, 2))
    for p, q in zip(other.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), q)


def test_results_are_copies_without_history() -> None:
    model = nn.LeNet()
    compiled = nm.compile(trainer(model)[1])
    losses = [compiled(images(2, k), labels(2, k)) for k in range(5)]
    values = [float(loss.numpy()) for loss in losses]
    assert len(set(values)) == 5 and all(not loss.requires_grad for loss in losses)
    compiled(images(2, 9), labels(2, 9))
    assert [float(loss.numpy()) for loss in losses] == values


def test_arguments_are_not_kept() -> None:
    compiled = nm.compile(nm.no_grad()(nn.LeNet().forward))
    x = images(2)
    first = compiled(x)
    for _ in range(3):
        y = compiled(x)
    x[...] = 0
    np.testing.assert_array_equal(y.numpy(), first.numpy())
    np.testing.assert_array_equal(compiled(nm.tensor(images(2))).numpy(), first.numpy())


def test_layouts_plain_values_and_copies() -> None:
    w = np.random.default_rng(0).standard_normal((40, 60)).astype(np.float32)

    @nm.compile
    def scaled(x: Any, how: Any) -> Any:
        y = nm.linear(x, w)
        return nm.tanh(y) if how[0] is True or str(how[0]) == "-0.0" else y

    for k in range(4):
        x = np.random.default_rng(k).standard_normal((60, 60)).astype(np.float32)
        for given in (x, np.asfortranarray(x), x[::-1], nm.tensor(x)):
            for how in ((1,), (True,), (0.0,), (-0.0,)):
                expected = scaled.function(given, how).numpy()
                np.testing.assert_array_equal(scaled(given, how).numpy(), expected)
    other = copy.deepcopy(scaled)
    np.testing.assert_array_equal(other(x, (1,)).numpy(), scaled(x, (1,)).numpy())
    assert not other._plans.keys() - scaled._plans.keys() and len(other._plans) == 1


def test_other_layouts_are_not_copied_into_one_that_sums_otherwise() -> None:
    calls = []

    @nm.compile
    def counted(x: Any) -> Any:
        calls.append(x.flags.c_contiguous)
        return nm.linear(x, WEIGHT)

    for _ in range(4):
        counted(np.ones((4, 2), np.float32).T)
        counted(np.ones((2, 4), np.float32))
    assert calls.count(False) == 4 and calls.count(True) == 2


def test_a_method_is_compiled_for_its_object() -> None:
    class Scaled:
        def __init__(self, factor: float) -> None:
            self.w = WEIGHT * np.float32(factor)

        @nm.compile
        def apply(self, x: Any) -> Any:
            return nm.linear(x, self.w)

    one, two, x = Scaled(1.0), Scaled(2.0), np.ones((2, 4), np.float32)
    for _ in range(4):
        np.testing.assert_array_equal(two.apply(x).numpy(), 2.0 * one.apply(x).numpy())


def test_errors_leave_nothing_behind() -> None:
    before = [device.kernels for device in backend.DEVICES.values()]

    def fails(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nm.compile(fails)(images(1))
    assert before == [device.kernels for device in backend.DEVICES.values()]
    assert nm.autodiff.thread.modes.recording_of is None
    with pytest.raises(TypeError, match="argument 0 is a list"):
        nm.compile(fails)([1.0])
    with pytest.raises(TypeError, match="argument 1 requires a gradient"):
        nm.compile(fails)(images(1), nm.tensor(images(1), requires_grad=True))


# ---- what changes between calls ------------------------------------------------------------------------------------


def freeze(model: Any, optimizer: Any) -> None:
    model[0].weight.requires_grad_(False)


def other_activation(model: Any, optimizer: Any) -> None:
    model[0].activation = "sigmoid"


def new_weights(model: Any, optimizer: Any) -> None:
    model[0].weight.replace_(np.ones_like(model[0].weight.data))


def momentum(model: Any, optimizer: Any) -> None:
    optimizer.momentum, optimizer.weight_decay = 0.5, 0.01


def other_buffers(model: Any, optimizer: Any) -> None:
    nn.FlatParameters(model.parameters())


def other_layer(model: Any, optimizer: Any) -> None:
    nm.manual_seed(8)
    model.layer1 = nn.Linear(4, 3, activation="relu")


CHANGES = [freeze, other_activation, new_weights, momentum, other_buffers, other_layer]


@pytest.mark.filterwarnings("ignore:compile")  # with some weights not its own the optimiser takes its slow way
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_change_between_calls_is_followed(change: Any) -> None:
    plain, other = twins(lambda: nn.DeepNetwork((4, 3, 3)))
    (first, step), (second, body) = trainer(plain, momentum=0.9), trainer(other, momentum=0.9)
    compiled = nm.compile(body)
    for k in range(9):
        if k == 4:
            change(plain, first), change(other, second)
        x, target = np.random.default_rng(k).random((5, 4), np.float32), labels(5, k) % 3
        assert step(x, target).item() == compiled(x, target).item()
        for p, q in zip(plain.parameters(), other.parameters(), strict=True):
            np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_training_and_evaluation_have_plans_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5))
    compiled = nm.compile(nm.no_grad()(model.forward))
    x = np.ones((2, 4), np.float32)
    model.eval()
    for _ in range(4):
        assert np.count_nonzero(compiled(x).numpy()) == 128
    model.train()
    with pytest.warns(RuntimeWarning, match="dropout"):
        counts = [np.count_nonzero(compiled(x).numpy()) for _ in range(4)]
    assert len(set(counts)) > 1 and all(20 < n < 108 for n in counts)


def test_a_replayed_update_counts_as_a_write() -> None:
    model = nn.DeepNetwork((4, 3))
    compiled = nm.compile(trainer(model)[1])
    x, target = np.ones((2, 4), np.float32), np.array([0, 1])
    for _ in range(3):
        compiled(x, target)
    y = nm.linear(nm.tensor(x, requires_grad=True), model[0].weight).sum()
    compiled(x, target)
    with pytest.raises(nm.GradientError, match="changed in place"):
        y.backward()


def test_anomalies_are_still_found() -> None:
    compiled = nm.compile(nm.no_grad()(lambda x: nm.linear(x, WEIGHT)))
    x = np.ones((2, 4), np.float32)
    for _ in range(3):
        compiled(x)
    with nm.detect_anomaly(), pytest.raises(nm.AnomalyError, match="linear: forward gave NaN"):
        compiled(x * np.nan)


def test_threads_do_not_share_a_call() -> None:
    """Two threads call one compiled function, while a third runs the same kernels by itself."""
    model = nn.LeNet()
    compiled = nm.compile(nm.no_grad()(model.forward))
    with nm.no_grad():
        expected = [model(images(2, k)).numpy() for k in range(3)]
    faults: list[Any] = []

    def work(call: Any, k: int) -> None:
        with nm.no_grad():
            for _ in range(60):
                if not np.array_equal(call(images(2, k)).numpy(), expected[k]):
                    faults.append(k)

    threads = [threading.Thread(target=work, args=(f, k)) for k, f in enumerate((compiled, compiled, model))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults and compiled.why_not is None


def test_kernels_of_other_threads_are_no_steps() -> None:
    def with_company(x: Any) -> Any:
        beside = threading.Thread(target=lambda: nm.linear(x, WEIGHT))
        beside.start()
        beside.join()
        return nm.linear(x, WEIGHT)

    compiled = nm.compile(with_company)
    for _ in range(2):
        compiled(np.ones((2, 4), np.float32))
    (plan,) = compiled._plans.values()
    assert len(plan.steps) == 1


def test_plans_are_limited() -> None:
    compiled = nm.compile(nm.no_grad()(lambda x: nm.linear(x, WEIGHT)))
    for n in range(1, 2 * replay.MOST_PLANS):
        compiled(np.ones((n, 4), np.float32))
    assert len(compiled._plans) == replay.MOST_PLANS
