"""Flat buffers and clipping: parameters as views of one vector, and what leaves it."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import nn


def loss_of(model: nn.Module, dtype: str = "float32") -> nm.Tensor:
    x = nm.tensor(np.random.default_rng(0).standard_normal((4, 3)), dtype=dtype)
    return (model(x) * model(x)).sum()


def test_parameters_and_gradients_are_parts_of_two_buffers():
    model = nn.DeepNetwork((3, 5, 2))
    before = model.state_dict()
    (group,) = nn.FlatParameters(model.parameters()).groups
    assert group.data.size == group.gradient.size == 15 + 5 + 10
    assert np.array_equal(group.data, np.concatenate([a.ravel() for a in before.values()]))
    assert not group.is_whole()
    loss_of(model).backward()
    assert group.is_whole()
    assert np.array_equal(group.gradient, np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]))
    for p in model.parameters():
        assert np.shares_memory(p.data, group.data) and np.shares_memory(p.grad.data, group.gradient)
        assert p.data.flags.c_contiguous


def test_gradients_are_those_without_buffers_also_when_added_up():
    plain = nn.DeepNetwork((3, 5, 2))
    flat = copy.deepcopy(plain)
    nn.FlatParameters(flat.parameters())
    for _ in range(2):
        for model in (plain, flat):
            loss_of(model).backward()
        for a, b in zip(plain.parameters(), flat.parameters(), strict=True):
            assert np.array_equal(a.grad.numpy(), b.grad.numpy())
    first = [p.grad.numpy().copy() for p in plain.parameters()]
    for model in (plain, flat):
        model.zero_grad()
        loss_of(model).backward()  # writes over the buffer, does not add to what it held
    for a, b, old in zip(plain.parameters(), flat.parameters(), first, strict=True):
        assert np.array_equal(a.grad.numpy(), b.grad.numpy()) and np.allclose(b.grad.numpy(), old / 2)


def test_gradients_there_before_are_kept():
    model = nn.DeepNetwork((3, 5, 2))
    loss_of(model).backward()
    before = [p.grad.numpy().copy() for p in model.parameters()]
    (group,) = nn.FlatParameters(model.parameters()).groups
    assert group.is_whole()
    assert all(np.array_equal(p.grad.numpy(), g) for p, g in zip(model.parameters(), before, strict=True))


def test_one_buffer_for_each_dtype():
    mixed = nn.Sequential(nn.Linear(3, 2), nn.Linear(3, 4, dtype="float64"), nn.Linear(2, 1))
    groups = nn.FlatParameters(mixed.parameters()).groups
    assert [(g.data.dtype, g.data.size) for g in groups] == [("float32", 8 + 3), ("float64", 16)]


def test_making_flat_between_forward_and_backward_is_harmless():
    model = nn.DeepNetwork((3, 5, 2))
    reference = copy.deepcopy(model)
    loss_of(reference).backward()
    loss = loss_of(model)
    nn.FlatParameters(model.parameters())
    loss.backward()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        assert np.array_equal(a.grad.numpy(), b.grad.numpy())


def test_who_leaves_is_told():
    model = nn.DeepNetwork((3, 5, 2))
    first = nn.FlatParameters(model.parameters())
    loss_of(model).backward()
    second = nn.FlatParameters(model.parameters())
    assert not first.groups[0].is_whole() and second.groups[0].is_whole()
    model.to("float64")
    assert not second.groups[0].is_whole()
    loss_of(model, "float64").backward()
    assert not second.groups[0].is_whole()


def test_second_derivatives_do_not_use_the_buffer():
    model = nn.Linear(3, 1)
    (group,) = nn.FlatParameters(model.parameters()).groups
    loss_of(model).backward(create_graph=True)
    assert not group.is_whole() and model.weight.grad.requires_grad


def test_deepcopies_do_not_share_the_buffer():
    model = nn.Linear(3, 1)
    (group,) = nn.FlatParameters(model.parameters()).groups
    twin = copy.deepcopy(model)
    assert twin.weight.gradient_buffer is None and not np.shares_memory(twin.weight.data, group.data)


def test_misuse_is_told():
    p = nn.Parameter([1.0])
    with pytest.raises(ValueError, match=r"parameter 1, shape .1,., is given twice"):
        nn.FlatParameters([p, p])
    with pytest.raises(TypeError, match="FlatParameters: item 0 is a Tensor, not a Parameter"):
        nn.FlatParameters([nm.ones(3)])
    assert nn.FlatParameters([]).groups == []


@pytest.mark.parametrize("flat", [False, True])
def test_clipping_scales_to_the_norm(flat):
    model = nn.DeepNetwork((3, 5, 2))
    if flat:
        nn.FlatParameters(model.parameters())
    loss_of(model).backward()
    before = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]).astype(np.float64)
    norm = np.sqrt(np.square(before).sum())
    assert nn.clip_grad_norm(model.parameters(), 2 * norm) == pytest.approx(norm, rel=1e-12)
    assert np.array_equal(np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]), before)
    assert nn.clip_grad_norm(model.parameters(), norm / 4) == pytest.approx(norm, rel=1e-12)
    after = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    assert np.allclose(after, before / 4, rtol=1e-6)


def test_clipping_passes_over_missing_gradients_and_refuses_nan():
    a, b = nn.Parameter([3.0, 4.0]), nn.Parameter([1.0])
    assert nn.clip_grad_norm([a, b], 1.0) == 0.0
    (a * a).sum().backward()
    assert nn.clip_grad_norm([a, b], 5.0) == pytest.approx(10.0)
    assert np.allclose(a.grad.numpy(), [3.0, 4.0]) and b.grad is None
    b.grad = nm.tensor([np.nan])
    with pytest.raises(nm.GradientError, match=r"clip_grad_norm: the norm is nan, from gradients of shape \(1,\)"):
        nn.clip_grad_norm([a, b], 1.0)
    assert np.allclose(a.grad.numpy(), [3.0, 4.0])
    with pytest.raises(ValueError, match="max_norm is 0"):
        nn.clip_grad_norm([a], 0)


def test_clipping_does_not_overflow_in_single_precision():
    a = nn.Parameter([1.0])
    a.grad = nm.tensor([1e30])
    assert nn.clip_grad_norm([a], 1.0) == pytest.approx(1e30, rel=1e-6)
    assert a.grad.item() == pytest.approx(1.0)
