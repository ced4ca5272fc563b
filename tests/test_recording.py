"""What a recording finds out: functions that would compute something else when replayed run as they are."""

from __future__ import annotations

import collections
import warnings
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from bindings_cases import KERNELS
from test_replay import WEIGHT, assert_same_state, labels, twins
from tinygrad_nm import _cpu, recording

nn = nm.nn
NO_STEPS = {"sgd_update", "peak_arithmetic", "peak_memory", "peak_read"}  # the first is a part of SGD's own step

BUFFER = np.zeros((2, 4), np.float32)


def writes_into_a_buffer(x: Any) -> Any:
    y = nm.linear(x, WEIGHT)
    nm.tanh(y)
    y.data *= 2.0
    return nm.tanh(y)


def writes_to_its_argument(x: Any) -> Any:
    x *= 2.0
    return nm.linear(x, WEIGHT)


def turned_into_text(x: Any) -> Any:
    y = nm.linear(x, WEIGHT)
    return y if "-" in repr(y) else nm.tanh(y)


def read_by_array(x: Any) -> Any:
    y = nm.linear(x, WEIGHT)
    return y if np.array(y)[0, 0] > 0 else nm.tanh(y)


def looks_for_anomalies(x: Any) -> Any:
    with nm.detect_anomaly():
        return nm.linear(x, WEIGHT)


def seeds(x: Any) -> Any:
    nm.manual_seed(3)
    return nm.linear(x, WEIGHT)


def same_dropout(x: Any) -> Any:
    nm.manual_seed(3)
    return nm.dropout(x, 0.5)


def named(x: Any) -> Any:
    return collections.OrderedDict(y=nm.linear(x, WEIGHT))


def dropout(x: Any) -> Any:
    return nm.dropout(x, 0.5)


def reads(x: Any) -> Any:
    y = nm.linear(x, WEIGHT)
    return y if nm.sum(y).item() > 0 else nm.tanh(y)


def reads_numpy(x: Any) -> Any:
    return nm.linear(nm.linear(x, WEIGHT).numpy(), WEIGHT.T)


def by_operators(x: Any) -> Any:
    return nm.linear(nm.tensor(x) * 2.0, WEIGHT)


def sums(x: Any) -> Any:
    return nm.sum(nm.linear(x, WEIGHT))


def gives_a_number(x: Any) -> Any:
    nm.linear(x, WEIGHT)
    return 3.0


def needs_its_graph(x: Any) -> Any:
    return nm.linear(x, nm.tensor(WEIGHT, requires_grad=True))


def writes(x: Any) -> Any:
    y = nm.linear(x, WEIGHT)
    y[0] = 0.0
    return y


def by_chance(x: Any) -> Any:
    by_chance.calls = getattr(by_chance, "calls", 0) + 1
    y = nm.linear(x, WEIGHT)
    return nm.tanh(y) if by_chance.calls % 2 else nm.sigmoid(y)


def more_kernels(x: Any) -> Any:
    more_kernels.calls = getattr(more_kernels, "calls", 0) + 1
    y = nm.tanh(x)
    return nm.tanh(y) if more_kernels.calls % 2 else y


def other_kernels(x: Any) -> Any:
    other_kernels.calls = getattr(other_kernels, "calls", 0) + 1
    return nm.tanh(x) if other_kernels.calls % 2 else nm.linear(x, x)


def other_results(x: Any) -> Any:
    other_results.calls = getattr(other_results, "calls", 0) + 1
    pair = nm.linear(x, WEIGHT), nm.linear(x, WEIGHT[::-1])
    return pair[other_results.calls % 2]


REFUSED = {
    dropout: "dropout draws anew",
    reads: r"item\(\) reads a value",
    reads_numpy: r"numpy\(\) reads values",
    by_operators: r"gemm reads an array of shape \(2, 4\), which is new at each call",
    sums: r"no kernel wrote the result of shape \(\)",
    gives_a_number: "returns float",
    needs_its_graph: "still needs its graph",
    writes: "written to in place",
    by_chance: "other arguments",
    more_kernels: "it ran 2 kernels at first and then 1",
    other_kernels: "it ran activation_forward at first and then gemm",
    other_results: "another result",
    writes_into_a_buffer: r"tanh|activation_forward reads an array of shape \(2, 3\) that no kernel wrote to",
    writes_to_its_argument: r"gemm reads an array of shape \(2, 4\) that no kernel wrote to",
    turned_into_text: "turned into text",
    read_by_array: "reads values into Python",
    looks_for_anomalies: "looks at every result",
    seeds: "manual_seed",
    same_dropout: "manual_seed",
    named: "returns OrderedDict",
}


@pytest.mark.parametrize("function", REFUSED, ids=lambda f: f.__name__)
def test_what_cannot_be_repeated_runs_as_it_is(function: Any) -> None:
    compiled = nm.compile(function)

    def four_calls() -> None:
        for k in range(4):
            x = np.random.default_rng(k).standard_normal((2, 4)).astype(np.float32)
            start = getattr(function, "calls", 0)
            nm.manual_seed(k)
            again = x.copy()
            got = compiled(x)
            if hasattr(function, "calls"):
                function.calls = start
            nm.manual_seed(k)
            expected = function(again)
            np.testing.assert_array_equal(x, again)
            if function is named:
                got, expected = got["y"], expected["y"]
            np.testing.assert_array_equal(np.asarray(recording.data_of(got)), np.asarray(recording.data_of(expected)))

    with pytest.warns(RuntimeWarning, match=f"compile: {function.__name__} is run as it is: .*{REFUSED[function]}"):
        four_calls()
    assert compiled.why_not is not None


def test_a_gradient_that_is_added_to_an_earlier_one() -> None:
    plain, other = twins(lambda: nn.DeepNetwork((4, 3)))
    functions, target = [], np.array([0, 2])
    for model in (plain, other):
        nm.optim.SGD(model.parameters(), lr=0.1)

        def gradients(x: Any, model: Any = model) -> Any:
            loss = nm.cross_entropy(model(x), target)
            loss.backward()
            return loss

        functions.append(gradients)
    compiled = nm.compile(functions[1])
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    for k in range(8):
        if k < 5:  # as long as the caller empties them, they are the same at each call
            plain.zero_grad(), other.zero_grad()
        functions[0](x + k)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            compiled(x + k)
        assert [str(w.message) for w in told if "added to an earlier one" in str(w.message)] == [
            str(w.message) for w in told
        ]
        assert bool(told) == (k == 5)
        assert_same_state(plain, other)


def fills_a_buffer(x: Any) -> Any:
    np.multiply(x, 2.0, out=BUFFER)
    return nm.linear(BUFFER, WEIGHT)


def test_a_buffer_that_numpy_fills_is_never_taken_for_state() -> None:
    compiled = nm.compile(fills_a_buffer)
    for k in range(5):
        x = np.random.default_rng(k).standard_normal((2, 4)).astype(np.float32)
        np.testing.assert_array_equal(compiled(x).numpy(), fills_a_buffer(x).numpy())


def clipped(model: Any, optimizer: Any) -> None:
    nn.clip_grad_norm(model.parameters(), 3.0)


def sets_lr(model: Any, optimizer: Any) -> None:
    optimizer.lr = 0.9 * optimizer.lr


def halves(model: Any, optimizer: Any) -> None:
    for p in model.parameters():
        p.grad = nm.tensor(p.grad.data * 0.5)


def halves_in_place(model: Any, optimizer: Any) -> None:
    for p in model.parameters():
        p.grad.data *= 0.5


def halves_data(model: Any, optimizer: Any) -> None:
    for p in model.parameters():
        p.grad.data = p.grad.data * 0.5


def forgets(model: Any, optimizer: Any) -> None:
    model.zero_grad()


@pytest.mark.filterwarnings("ignore:compile")
@pytest.mark.parametrize(
    "touch", [clipped, sets_lr, halves, halves_in_place, halves_data, forgets], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("inside", [True, False])
def test_what_happens_to_gradients(touch: Any, inside: bool) -> None:
    """Within the compiled function, or between it and the update, which then is outside."""
    plain, other = twins(lambda: nn.DeepNetwork((4, 3, 3)))
    functions = []
    for model in (plain, other):
        optimizer = nm.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def gradients(x: Any, target: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            loss = nm.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            if inside:
                touch(model, optimizer)
            return loss

        functions.append((model, optimizer, gradients))
    compiled = nm.compile(functions[1][2])
    for k in range(7):
        x = np.random.default_rng(k).standard_normal((5, 4)).astype(np.float32) * (1 if k < 3 else 30)
        for model, optimizer, gradients in functions:
            (compiled if model is other else gradients)(x, labels(5, k) % 3)
            if not inside:
                touch(model, optimizer)
            optimizer.step()
        for p, q in zip(plain.parameters(), other.parameters(), strict=True):
            np.testing.assert_array_equal(p.numpy(), q.numpy())
            assert (p.grad is None) == (q.grad is None)


def test_two_heads_do_not_leave_their_gradients_to_one_another() -> None:
    models = twins(lambda: nn.Sequential(trunk=nn.Linear(4, 3), a=nn.Linear(3, 2), b=nn.Linear(3, 2)))
    runs, target = [], np.array([0, 1])
    for model in models:
        optimizer = nm.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def of(head: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            def gradients(x: Any) -> Any:
                optimizer.zero_grad()
                loss = nm.cross_entropy(head(model.trunk(x)), target)
                loss.backward()
                return loss

            return gradients

        runs.append((of(model.a), of(model.b), optimizer))
    compiled = [nm.compile(f) for f in runs[1][:2]]
    for k in range(16):
        x = np.random.default_rng(k).standard_normal((2, 4)).astype(np.float32)
        runs[0][k // 4 % 2](x), runs[0][2].step()
        compiled[k // 4 % 2](x), runs[1][2].step()
        for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
            np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert [f.why_not for f in compiled] == [None, None]


def test_every_kernel_says_what_it_writes() -> None:
    written = {kernel.name: kernel.written for kernel in KERNELS}
    assert {name: places for name, places in written.items() if name not in NO_STEPS} == recording.WRITTEN
    assert all(hasattr(_cpu, name) for name in recording.WRITTEN)
