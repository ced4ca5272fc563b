"""The loader: order, prefetching, abandonment, threads, fork; and held-out splits."""

import gc
import os
import threading
import time

import numpy as np
import pytest

from tinygrad_nm.data import Loader, Split, held_out

INPUTS = np.arange(100, dtype=np.float32).reshape(50, 2)
LABELS = np.arange(50)


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("tinygrad-nm-loader")]


def orders(loader, epochs=3):
    return [np.concatenate([labels for _, labels in loader]) for _ in range(epochs)]


def test_an_epoch_is_a_permutation_and_keeps_pairs():
    loader = Loader((INPUTS, LABELS), 8)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [8] * 6 + [2]
    assert len(loader) == 7
    assert sorted(np.concatenate([labels for _, labels in batches])) == list(range(50))
    for inputs, labels in batches:
        np.testing.assert_array_equal(inputs, INPUTS[labels])
        assert inputs.dtype == np.float32
        assert inputs.flags.c_contiguous


def test_the_order_depends_on_seed_and_epoch_only():
    first, again, other = (orders(Loader((INPUTS, LABELS), 8, seed=seed)) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])
    resumed = Loader((INPUTS, LABELS), 25, seed=3)
    resumed.epoch = 2
    np.testing.assert_array_equal(orders(resumed, 1)[0], first[2])


def test_without_shuffling():
    np.testing.assert_array_equal(orders(Loader((INPUTS, LABELS), 8, shuffle=False), 1)[0], LABELS)


def test_drop_last():
    loader = Loader(Split(INPUTS, LABELS), 8, drop_last=True)
    assert [len(labels) for _, labels in loader] == [8] * 6
    assert len(loader) == 6
    assert loader.examples == 48


def test_batches_are_new_arrays():
    loader = Loader((INPUTS, LABELS), 50, shuffle=False)
    (inputs, _), *_ = loader
    inputs[:] = -1
    assert INPUTS[0, 1] == 1


@pytest.mark.parametrize(
    ("arrays", "batch", "options", "words"),
    [
        ((INPUTS[:0], LABELS[:0]), 8, {}, "the data set is empty"),
        ((), 8, {}, "the data set is empty"),
        ((INPUTS, LABELS[:-1]), 8, {}, r"arrays have \[50, 49\] examples"),
        ((INPUTS, LABELS), 0, {}, "batch_size is 0"),
        ((INPUTS, LABELS), 51, {"drop_last": True}, "drop_last leaves no batch of 51 in 50"),
    ],
)
def test_bad_arguments(arrays, batch, options, words):
    with pytest.raises(ValueError, match=words):
        Loader(arrays, batch, **options)


def test_the_next_batch_is_made_while_this_one_is_used():
    made = [threading.Event() for _ in range(7)]
    calls = []

    def transform(inputs, generator):
        assert threading.current_thread() is not threading.main_thread()
        calls.append(len(inputs))
        made[len(calls) - 1].set()
        return inputs

    batches = iter(Loader((INPUTS, LABELS), 8, transform=transform))
    next(batches)
    assert made[1].wait(5), "the second batch was not begun while the first was in use"
    time.sleep(0.05)
    assert len(calls) == 2, "more than one batch was made ahead"
    batches.close()


def test_transform_is_seeded_by_epoch_and_batch():
    def noise(inputs, generator):
        return inputs + generator.standard_normal(inputs.shape, dtype=np.float32)

    runs = []
    for _ in range(2):
        loader = Loader((INPUTS, LABELS), 8, shuffle=False, transform=noise)
        runs.append([np.concatenate([inputs for inputs, _ in loader]) - INPUTS for _ in range(2)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert abs(runs[0][0] - runs[0][1]).max() > 0.1, "two epochs drew the same"
    assert abs(runs[0][0][:8] - runs[0][0][8:16]).max() > 0.1, "two batches drew the same"


def test_an_exception_in_the_thread_reaches_the_loop():
    def broken(inputs, generator):
        raise ArithmeticError("broken transform")

    with pytest.raises(ArithmeticError, match="broken transform"):
        list(Loader((INPUTS, LABELS), 8, transform=broken))
    assert not loader_threads()


def test_no_thread_is_left_behind():
    for _ in Loader((INPUTS, LABELS), 8):
        assert len(loader_threads()) == 1
        break
    gc.collect()
    assert not loader_threads()

    def fails_within_the_loop():
        for _ in Loader((INPUTS, LABELS), 8):
            raise KeyError

    with pytest.raises(KeyError):
        fails_within_the_loop()
    gc.collect()
    assert not loader_threads()

    list(Loader((INPUTS, LABELS), 8))
    assert not loader_threads()


def in_child(function):
    """Runs `function` in a forked child: its exit status, or "hung" after 20 seconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if function() else 2
        finally:
            os._exit(code)
    for _ in range(400):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hung"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_between_and_within_epochs():
    loader = Loader((INPUTS, LABELS), 8, seed=1)
    expected = orders(Loader((INPUTS, LABELS), 8, seed=1), 2)
    batches = iter(loader)
    begun = [next(batches)[1], next(batches)[1]]

    def rest_of_the_epoch_and_another():
        rest = [labels for _, labels in batches]
        whole = np.concatenate([labels for _, labels in loader])
        return np.array_equal(np.concatenate(begun + rest), expected[0]) and np.array_equal(whole, expected[1])

    assert in_child(rest_of_the_epoch_and_another) == 0
    begun += [labels for _, labels in batches]
    np.testing.assert_array_equal(np.concatenate(begun), expected[0])


def test_held_out_is_stratified_seeded_and_disjoint():
    labels = np.repeat([0, 1, 2], [60, 30, 11])
    split = Split(np.arange(101, dtype=np.float32)[:, None], labels)
    rest, held = held_out(split, 20, seed=5)
    assert np.bincount(held.targets).tolist() == [12, 6, 2]
    assert sorted(np.concatenate([rest.inputs, held.inputs])[:, 0]) == list(range(101))
    np.testing.assert_array_equal(held.inputs, held_out(split, 20, seed=5)[1].inputs)
    assert not np.array_equal(held.inputs, held_out(split, 20, seed=6)[1].inputs)


def test_held_out_of_a_regression():
    split = Split(np.zeros((10, 2), np.float32), np.arange(10, dtype=np.float32)[:, None])
    rest, held = held_out(split, 3)
    assert rest.targets.shape == (7, 1)
    assert held.targets.shape == (3, 1)


@pytest.mark.parametrize("count", [0, 50, -1])
def test_held_out_count(count):
    with pytest.raises(ValueError, match=f"cannot hold out {count} of 50"):
        held_out(Split(INPUTS, LABELS), count)
