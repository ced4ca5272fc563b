"""SGD in both forms against the formulas, over flat buffers and one by one; schedules."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import nn, optim
from tinygrad_nm.modes import thread


def by_formula(w, gradients, lr, momentum, lr_in_velocity, nesterov, weight_decay):
    """The formulas of SGD's documentation, in NumPy."""
    v = np.zeros_like(w)
    for g in gradients:
        d = g + weight_decay * w
        if lr_in_velocity:
            v = momentum * v + lr * d
            w = w - (momentum * v + lr * d if nesterov else v)
        else:
            v = momentum * v + d
            w = w - lr * (d + momentum * v if nesterov else v)
    return w


FORMS = [
    (momentum, inside, nesterov, decay)
    for momentum, inside, nesterov, decay in itertools.product((0.0, 0.9), (False, True), (False, True), (0.0, 0.1))
    if momentum or not nesterov
]


@pytest.mark.parametrize("kind", ["flat", "one missing", "tensor", "not contiguous"])
@pytest.mark.parametrize(("momentum", "inside", "nesterov", "decay"), FORMS)
def test_steps_follow_the_formulas(kind, momentum, inside, nesterov, decay):
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal((4, 3)), rng.standard_normal((4, 4, 3))
    if kind == "tensor":
        w = nm.tensor(start, requires_grad=True)
    elif kind == "not contiguous":
        w = nm.from_numpy(np.asfortranarray(start), requires_grad=True)
        assert not w.data.flags.c_contiguous
    else:
        w = nn.Parameter(start)
    other = nn.Parameter(np.ones(5))
    optimiser = optim.SGD([w, other], 0.1, momentum, lr_in_velocity=inside, nesterov=nesterov, weight_decay=decay)
    for g in gradients:
        optimiser.zero_grad()
        loss = (w * nm.tensor(g)).sum()
        if kind == "flat":
            loss = loss + (other * 0.5).sum()
        loss.backward()
        optimiser.step()
    expected = by_formula(start, gradients, 0.1, momentum, inside, nesterov, decay)
    assert np.allclose(w.numpy(), expected, rtol=1e-13, atol=1e-15)
    if kind == "flat":
        others = by_formula(np.ones(5), np.full((4, 5), 0.5), 0.1, momentum, inside, nesterov, decay)
        assert np.allclose(other.numpy(), others, rtol=1e-13)
    else:
        assert (other.numpy() == 1).all()  # no gradient: untouched, weight decay included


def train(model, optimiser, steps=3, skip=()):
    x = nm.tensor(np.random.default_rng(1).standard_normal((8, 3)), dtype="float32")
    for _ in range(steps):
        optimiser.zero_grad()
        nm.cross_entropy(model(x), np.arange(8) % 2).backward()
        for p in skip:
            p.grad = None
        optimiser.step()


def test_one_kernel_call_updates_all_and_gives_the_same_bits_as_one_by_one(monkeypatch):
    calls = []
    real = nm._cpu.sgd_update
    monkeypatch.setattr(nm._cpu, "sgd_update", lambda *a: (calls.append(a[0].size), real(*a)))
    fused, single = nn.DeepNetwork((3, 4, 2)), nn.DeepNetwork((3, 4, 2))
    single.load_state_dict(fused.state_dict())
    train(fused, optim.SGD(fused.parameters(), 0.1, 0.9, weight_decay=0.01))
    assert calls == [24] * 3
    optimisers = [optim.SGD([p], 0.1, 0.9, weight_decay=0.01) for p in single.parameters()]

    class All:
        def zero_grad(self):
            single.zero_grad()

        def step(self):
            for o in optimisers:
                o.step()

    train(single, All())
    for a, b in zip(fused.parameters(), single.parameters(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_a_missing_gradient_leaves_weight_and_velocity():
    model = nn.DeepNetwork((3, 4, 2))
    optimiser = optim.SGD(model.parameters(), 0.1, 0.9)
    train(model, optimiser)
    bias, weight = model.layer1.bias.numpy().copy(), model.layer1.weight.numpy().copy()
    velocity = optimiser.state_dict()["velocity"]
    train(model, optimiser, 1, skip=[model.layer1.bias])
    assert np.array_equal(model.layer1.bias.numpy(), bias)
    assert not np.array_equal(model.layer1.weight.numpy(), weight)
    assert np.array_equal(optimiser.state_dict()["velocity"][1], velocity[1])
    assert not np.array_equal(optimiser.state_dict()["velocity"][0], velocity[0])


def test_two_optimisers_of_one_model_both_work():
    """The second makes the buffers its own; the first goes on one parameter at a time."""
    model = nn.DeepNetwork((3, 4, 2))
    reference = copy.deepcopy(model)
    first = optim.SGD(model.parameters(), 0.1, 0.9)
    optim.SGD(model.parameters(), 0.1)
    train(model, first)
    train(reference, optim.SGD(reference.parameters(), 0.1, 0.9))
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_a_parameter_put_on_another_array_is_stepped_where_it_is():
    w, v = nn.Parameter([1.0]), nn.Parameter([1.0])
    optimiser = optim.SGD([w, v], 0.5)
    (w * v).sum().backward()
    w.data = np.array([3.0], np.float32)
    optimiser.step()
    assert (w.item(), v.item()) == (2.5, 0.5)


def test_a_step_between_forward_and_backward_is_refused():
    model = nn.Linear(3, 1)
    optimiser = optim.SGD(model.parameters(), 0.1)
    x = nm.tensor(np.ones((1, 3)), dtype="float32", requires_grad=True)
    model(x).sum().backward()
    late = model(x).sum()
    optimiser.step()
    with pytest.raises(nm.GradientError, match="changed in place"):
        late.backward()


def test_a_gradient_set_by_hand_is_used():
    w = nn.Parameter([1.0, 2.0])
    w.grad = nm.tensor([10.0, 20.0])
    optimiser = optim.SGD([w], 0.1)
    w.grad = nm.tensor([1.0, 2.0])
    optimiser.step()
    assert np.allclose(w.numpy(), [0.9, 1.8])


def test_second_order_gradients_can_be_stepped_with():
    w = nn.Parameter([2.0])
    optimiser = optim.SGD([w], 0.5)
    (w * w).sum().backward(create_graph=True)
    optimiser.step()
    assert w.item() == 0.0


def test_steps_are_counted_for_messages():
    w = nn.Parameter([1.0])
    optimiser = optim.SGD([w], 0.1)
    before = thread.modes.step
    optimiser.step()
    optimiser.step()
    assert thread.modes.step == before + 2


def test_state_goes_on_with_the_same_bits():
    whole = nn.DeepNetwork((3, 4, 2))
    parts = copy.deepcopy(whole)
    train(whole, optim.SGD(whole.parameters(), 0.1, 0.9), 6)
    first = optim.SGD(parts.parameters(), 0.1, 0.9)
    train(parts, first, 3)
    saved = copy.deepcopy(first.state_dict())
    train(copy.deepcopy(parts), first, 1)
    second = optim.SGD(parts.parameters(), 0.7, 0.1)
    second.load_state_dict(saved)
    assert second.lr == 0.1 and second.momentum == 0.9
    train(parts, second, 3)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_loading_a_state_from_before_the_first_step_forgets_velocity():
    model = nn.DeepNetwork((3, 4, 2))
    optimiser = optim.SGD(model.parameters(), 0.1, 0.9)
    fresh = optimiser.state_dict()
    assert fresh["velocity"] == []
    train(model, optimiser)
    assert len(optimiser.state_dict()["velocity"]) == 3
    optimiser.load_state_dict(fresh)
    assert optimiser.state_dict()["velocity"] == []


def test_a_state_that_does_not_fit_is_refused_whole():
    model = nn.DeepNetwork((3, 4, 2))
    optimiser = optim.SGD(model.parameters(), 0.1, 0.9)
    train(model, optimiser)
    good = optimiser.state_dict()
    bad = good | {"velocity": [np.zeros(3), *good["velocity"][1:]], "colour": 1}
    del bad["momentum"]
    with pytest.raises(ValueError, match="momentum is missing; colour is unexpected; velocity 0 has shape"):
        optimiser.load_state_dict(bad)
    with pytest.raises(ValueError, match="there are 1 velocities for 3 parameters"):
        optimiser.load_state_dict(good | {"velocity": good["velocity"][:1]})
    with pytest.raises(ValueError, match="momentum is -1"):
        optimiser.load_state_dict(good | {"lr": 5.0, "momentum": -1.0})
    assert optimiser.lr == 0.1
    assert all(np.array_equal(a, b) for a, b in zip(optimiser.state_dict()["velocity"], good["velocity"], strict=True))


def test_a_change_of_dtype_is_told():
    model = nn.Linear(3, 1)
    optimiser = optim.SGD(model.parameters(), 0.1)
    model.to("float64")
    model(nm.tensor(np.ones((1, 3)))).sum().backward()
    with pytest.raises(nm.DtypeError, match=r"was float32 when the optimiser was built and is float64 now"):
        optimiser.step()


W = nn.Parameter([1.0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.SGD([], 0.1), ValueError, "SGD: there are no parameters"),
        (lambda: optim.SGD([W, W], 0.1), ValueError, "SGD: parameter 1, shape .1,., is given twice"),
        (lambda: optim.SGD(W, 0.1), TypeError, "SGD: params is one tensor"),
        (lambda: optim.SGD([np.ones(3)], 0.1), TypeError, "SGD: parameter 0 is a ndarray, not a tensor"),
        (lambda: optim.SGD([W * 2], 0.1), ValueError, "is not a leaf that requires a gradient"),
        (lambda: optim.SGD([nm.ones(3)], 0.1), ValueError, "is not a leaf that requires a gradient"),
        (lambda: optim.SGD([W], -0.1), ValueError, "SGD: lr is -0.1"),
        (lambda: optim.SGD([W], math.nan), ValueError, "SGD: lr is nan"),
        (lambda: optim.SGD([W], math.inf), ValueError, "SGD: lr is inf"),
        (lambda: optim.SGD([W], 0.1, -0.5), ValueError, "SGD: momentum is -0.5"),
        (lambda: optim.SGD([W], 0.1, weight_decay=-1), ValueError, "SGD: weight_decay is -1"),
        (lambda: optim.SGD([W], 0.1, nesterov=True), ValueError, "nesterov=True needs a momentum above 0"),
    ],
)
def test_misuse_is_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_repr_names_what_differs_from_the_defaults():
    assert repr(optim.SGD([W], 0.1, 0.9)) == "SGD(1 parameters, lr=0.1, momentum=0.9)"


def optimiser_at(lr: float) -> optim.SGD:
    return optim.SGD([nn.Parameter([1.0])], lr)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (lambda o: optim.Constant(o), [0.8] * 6),
        (lambda o: optim.Step(o, 2), [0.8, 0.8, 0.08, 0.08, 0.008, 0.008]),
        (lambda o: optim.Step(o, 3, 0.5), [0.8, 0.8, 0.8, 0.4, 0.4, 0.4]),
        (lambda o: optim.InverseTime(o), [0.8 / (1 + k) for k in range(6)]),
        (lambda o: optim.InverseTime(o, 2), [0.8, 0.8 / 1.5, 0.4, 0.32, 0.8 / 3, 0.8 / 3.5]),
        (
            lambda o: optim.Cosine(o, 4, 0.2),
            [0.8, 0.5 + 0.3 * math.sqrt(0.5), 0.5, 0.5 - 0.3 * math.sqrt(0.5), 0.2, 0.2],
        ),
    ],
)
def test_schedules(schedule, expected):
    optimiser = optimiser_at(0.8)
    made = schedule(optimiser)
    seen = [optimiser.lr]
    for _ in range(5):
        made.step()
        seen.append(optimiser.lr)
    assert seen == pytest.approx(expected, rel=1e-12)
    assert [made.lr(k) for k in range(6)] == pytest.approx(expected, rel=1e-12)


def test_one_over_k_steps_diverge_but_their_squares_do_not():
    steps = np.array([optim.InverseTime(optimiser_at(1.0)).lr(k) for k in range(100_000)])
    assert np.cumsum(steps)[[999, 9999, 99999]] == pytest.approx(
        [math.log(n) + np.euler_gamma for n in (1e3, 1e4, 1e5)], abs=1e-3
    )
    assert np.square(steps).sum() < math.pi**2 / 6


def test_a_schedule_goes_on_where_it_stopped():
    optimiser = optimiser_at(0.8)
    schedule = optim.Cosine(optimiser, 10)
    for _ in range(4):
        schedule.step()
    resumed_optimiser = optimiser_at(0.1)
    resumed = optim.Cosine(resumed_optimiser, 10)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed_optimiser.lr == optimiser.lr
    schedule.step()
    resumed.step()
    assert resumed_optimiser.lr == optimiser.lr
    with pytest.raises(KeyError):
        resumed.load_state_dict({"k": 1})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: optim.Step(o, 0), ValueError, "Step: every is 0"),
        (lambda o: optim.Step(o, 1, 0.0), ValueError, "factor 0.0"),
        (lambda o: optim.InverseTime(o, 0), ValueError, "InverseTime: halfway is 0"),
        (lambda o: optim.Cosine(o, 0), ValueError, "Cosine: total is 0"),
        (lambda o: optim.Cosine(o, 5, -1.0), ValueError, "final -1.0"),
        (lambda o: optim.Schedule(o).step(), NotImplementedError, "Schedule: lr is not defined"),
    ],
)
def test_schedules_that_cannot_be_are_told(make, error, message):
    with pytest.raises(error, match=message):
        make(optimiser_at(0.1))
