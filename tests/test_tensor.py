"""The Tensor object itself: what it shows, copies, converts and offers as methods; random state."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import backend
from tinygrad_nm.ops import methods
from tinygrad_nm.tensor import GradientError


def leaf(data: Any) -> Any:
    return nm.tensor(np.array(data), requires_grad=True)


def test_repr_shows_values_dtype_and_history() -> None:
    assert repr(nm.tensor([1.0, 2.5])) == "tensor([1. , 2.5])"
    assert repr(leaf([1.0])) == "tensor([1.], dtype=float64, requires_grad=True)"
    assert repr(nm.exp(leaf([0.0]))) == "tensor([1.], dtype=float64, operation=exp)"
    assert "..." in repr(nm.zeros(1000))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_has_values_of_its_own_and_the_flag(duplicate: Any) -> None:
    x = leaf([1.0, 2.0])
    y = duplicate(x)
    assert y.requires_grad and y.is_leaf and not np.shares_memory(x.data, y.data)
    np.testing.assert_array_equal(x.numpy(), y.numpy())
    with pytest.raises(GradientError, match=r"copy: .*detach\(\)"):
        duplicate(x * 2.0)


def test_requires_grad_can_be_switched_on_leaves_only() -> None:
    x = nm.tensor(np.ones(2))
    x.requires_grad = True
    assert (x * x).requires_grad
    assert not x.requires_grad_(False).requires_grad
    y = leaf([1.0]) * 2.0
    with pytest.raises(GradientError, match="result of an operation"):
        y.requires_grad_(False)


def test_zeros_ones_and_default_dtype() -> None:
    assert nm.zeros((2, 3)).shape == (2, 3) and nm.zeros(2).dtype == np.float32
    nm.set_default_dtype(np.float64)
    ones = nm.ones(3, requires_grad=True)
    assert ones.dtype == np.float64 and ones.requires_grad and ones.numpy().sum() == 3
    assert nm.ones(2, dtype=np.int64).dtype == np.int64


def test_tensor_of_tensors_and_of_arrays_keeps_their_dtype() -> None:
    assert nm.tensor([nm.ones(2, np.float64), nm.zeros(2, np.float64)]).shape == (2, 2)
    assert nm.tensor([np.ones(2), np.ones(2)]).dtype == np.float64
    assert nm.tensor(nm.ones(2, np.float64)).dtype == np.float64
    with pytest.raises(ValueError, match="tensor: the data holds objects"):
        nm.tensor([object()])


def test_to_a_device_or_dtype() -> None:
    x = leaf([1.0])
    assert x.to("cpu") is x and x.to(np.float64) is x
    assert x.to("float32").dtype == np.float32 and x.to(np.float32).requires_grad
    with pytest.raises(ValueError, match="abacus"):
        x.to("abacus")


def test_iteration_indexing_and_transposition() -> None:
    x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert [row.numpy().tolist() for row in x] == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert x.T.shape == (3, 2) and abs(-x).requires_grad
    assert x[nm.tensor(np.array([1, 0])), 0].numpy().tolist() == [4.0, 1.0]
    assert x[[1]].shape == (1, 3) and x[[]].shape == (0, 3) and x[np.int64(1), np.array(2)].item() == 6.0
    assert x[np.bool_(True)].shape == (1, 2, 3) and x[:, [True, False, True]].shape == (2, 2)


def test_a_mask_must_match_its_own_axis() -> None:
    x = nm.tensor(np.ones((2, 3)))
    for index in (np.ones(3, bool), (slice(None), np.ones(2, bool)), (Ellipsis, np.ones(4, bool))):
        with pytest.raises(ValueError, match=r"getitem: .*\(2, 3\)"):
            x[index]


def test_constants_given_as_tensors_are_watched_too() -> None:
    """A mask or an index that changes between forward and backward gives an error or the old gradient."""
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    mask, index = nm.tensor([True, False]), nm.tensor(np.array([1, 1]))
    chosen, gathered = nm.where(mask, x, y).sum(), x[index].sum()
    labels = nm.tensor(np.array([0]))
    loss = nm.cross_entropy(x.reshape(1, 2), labels)
    mask.fill_(False)
    index.zero_()
    labels.fill_(1)
    with pytest.raises(GradientError, match="saved by where"):
        chosen.backward()
    gathered.backward()
    assert x.grad.numpy().tolist() == [0.0, 2.0]
    x.grad = None
    loss.backward()
    assert x.grad.numpy()[0] < 0 < x.grad.numpy()[1]


def test_writes_of_floats_into_integers_are_refused() -> None:
    i = nm.tensor(np.arange(3))
    for write in (lambda: i.__setitem__(0, 0.5), lambda: i.fill_(0.5), lambda: i.copy_(np.ones(3))):
        with pytest.raises(TypeError, match="floats do not fit a tensor of int64"):
            write()
    i[0] = 7
    assert i.numpy().tolist() == [7, 1, 2]
    with pytest.raises(ValueError, match="setitem"):
        i[:2] = np.array([1, 2, 3])
    with pytest.raises(GradientError, match="setitem: the value has a gradient"):
        nm.tensor(np.ones(2))[0] = leaf(1.0)
    with pytest.raises(GradientError, match="copy_: the value has a gradient"):
        nm.tensor(np.ones(2)).copy_(leaf([1.0, 2.0]))


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_methods_are_the_functions(name: str) -> None:
    x = nm.tensor(np.array([[0.3, 0.7]]))
    arguments = {"astype": (np.float32,), "to": ("cpu",), "reshape": (2,), "clip": (0.0, 0.5), "expand_dims": (0,)}
    given = arguments.get(name, ())
    found = getattr(x, name)(*given)
    assert found.numpy().tobytes() == methods.METHODS[name](x, *given).numpy().tobytes()


def test_operators_leave_strangers_to_python() -> None:
    x = nm.tensor([1.0])
    assert (x == "text") is False and (x != None) is True  # noqa: E711
    for call in (lambda: x + "text", lambda: "text" @ x):
        with pytest.raises(TypeError, match="unsupported operand"):
            call()
    with pytest.raises(TypeError):
        x += object()


def test_integers_bool_and_subclasses_in_arithmetic() -> None:
    i, b = nm.tensor(np.array([1, 2])), nm.tensor([True, False])
    assert (b - b).numpy().tolist() == [0, 0]
    assert nm.power(i, -1).numpy().tolist() == [1.0, 0.5]
    assert nm.where(i - 1, 1.0, 0.0).numpy().tolist() == [0.0, 1.0]
    assert nm.pad(nm.tensor(2.0), ()).item() == 2.0
    assert nm.linear(nm.ones((1, 2)), nm.ones((1, 2)), activation=nm.relu).item() == 2.0

    class Labelled(np.ndarray):
        pass

    assert type(nm.tensor(np.ones(2).view(Labelled)).data) is np.ndarray
    assert type(nm.add(np.ones(2).view(Labelled), 1.0).data) is np.ndarray


def test_a_gradient_on_the_tape_is_not_written_over() -> None:
    x = leaf([2.0])
    (x**3).sum().backward(create_graph=True)
    slope = x.grad
    (x * 1.0).backward([1.0])
    assert slope.numpy().tolist() == [12.0] and x.grad.numpy().tolist() == [13.0]


def test_array_conversion_of_constants() -> None:
    x = nm.tensor(np.ones(2))
    assert np.array(x, copy=True).flags.writeable
    assert not np.asarray(x).flags.writeable
    with pytest.raises(ValueError, match="without a copy"):
        np.array(x, dtype=np.float32, copy=False)


def test_random_state_resumes_generator_and_dropout() -> None:
    nm.manual_seed(5)
    x = nm.ones((2, 50))
    nm.dropout(x, 0.5)
    state = nm.random.get_state()
    first = nm.random.generator().random(3), nm.dropout(x, 0.5).numpy().tobytes()
    nm.manual_seed(1)
    nm.random.set_state(state)
    second = nm.random.generator().random(3), nm.dropout(x, 0.5).numpy().tobytes()
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]


def test_dropout_keeps_its_share_and_is_the_identity_in_evaluation() -> None:
    x = nm.ones((100, 200))
    y = nm.dropout(x, 0.25).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / y.size)
    assert nm.dropout(x, 0.25, training=False).numpy().tobytes() == x.numpy().tobytes()
    assert nm.dropout(x, 0.0).numpy().tobytes() == x.numpy().tobytes()


def test_results_larger_than_memory_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"probe: the result's shape .* larger than any memory"):
        backend.empty("probe", np.ones(1), (2**62, 2**62))
    with pytest.raises(MemoryError, match="probe: there is no memory"):
        backend.empty("probe", np.ones(1), (2**50,))


def test_numbers_of_threads() -> None:
    before = nm.get_num_threads()
    try:
        nm.set_num_threads(1)
        assert nm.get_num_threads() == 1
    finally:
        nm.set_num_threads(before)
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="set_num_threads"):
            nm.set_num_threads(bad)
