"""Gradients where dy happens to be 0 below a `where`, gradients as memory of their own, constants changed later."""

import copy

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import _cpu, nn


def leaf(values):
    return nm.tensor(np.array(values, np.float64), requires_grad=True)


def derivative(f, order):
    for _ in range(order):
        f = nm.grad(f)
    return f


@pytest.mark.parametrize(
    ("f", "at", "order", "expected"),
    [
        (lambda x: nm.where(np.array(True), nm.sin(x) ** 2, 0.0), 0.0, 2, 2.0),
        (lambda x: nm.where(np.array(True), (x * x - 1.0) ** 2, 0.0), 1.0, 2, 8.0),
        (lambda x: nm.elu(nm.sin(x) ** 2 + 1.0), 0.0, 4, -8.0),
        (lambda x: nm.smooth_relu(nm.sin(x) ** 2 + 1.0), 0.0, 4, -8.0),
    ],
    ids=["sin", "polynomial", "elu", "smooth_relu"],
)
def test_a_gradient_that_is_zero_by_chance_keeps_its_derivative_below_a_where(f, at, order, expected):
    assert derivative(f, order)(leaf(at)).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_where_leaks_no_nan_from_the_branch_not_taken(order):
    def f(x):
        return nm.where(x > 0, nm.sqrt(x), 0.0).sum()

    g = f if order == 1 else lambda x: nm.grad(f)(x).sum()
    expected = [0.0, 0.0, 0.25 if order == 1 else -1 / 32]
    np.testing.assert_allclose(nm.grad(g)(leaf([-1.0, 0.0, 4.0])).numpy(), expected)


def test_weights_of_zero_do_not_hide_the_derivative_of_the_loss():
    x, w = leaf([[0.3, -0.2], [1.0, 2.0]]), leaf([0.0, 1.0])
    loss = nm.sum(nm.cross_entropy(x, [0, 1], reduction="none") * w)
    (dx,) = nm.autodiff.grad(loss, x, create_graph=True)
    (dw,) = nm.autodiff.grad(nm.sum(dx * np.array([[1.0, 2.0], [3.0, 4.0]])), w)
    p = np.exp(0.3) / (np.exp(0.3) + np.exp(-0.2))
    q = np.exp(2.0) / (np.exp(1.0) + np.exp(2.0))
    np.testing.assert_allclose(dw.numpy(), [(p - 1) + 2 * (1 - p), 3 * (1 - q) + 4 * (q - 1)], rtol=1e-12)


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_share_no_memory(create_graph):
    x, z, seed = leaf([1.0, 2.0]), leaf([3.0, 4.0]), np.ones(2)
    dx, dz = nm.autodiff.grad(x + z, [x, z], seed, create_graph=create_graph)
    with nm.no_grad():
        dx *= 5.0
    assert dz.numpy().tolist() == seed.tolist() == [1.0, 1.0]


def test_joining_a_generator_keeps_the_history():
    x = leaf([1.0, 2.0])
    nm.concatenate(v * 2.0 for v in (x, x)).sum().backward()
    nm.stack(v * 3.0 for v in (x, x)).sum().backward()
    assert x.grad.numpy().tolist() == [10.0, 10.0]


def test_indices_and_conditions_may_change_after_use():
    x, index, condition = leaf([1.0, 2.0]), np.array([0]), np.array([True, False])
    y = nm.sum(x[index]) + nm.sum(nm.where(condition, x, 0.0))
    index[:], condition[:] = 1, False
    y.backward()
    assert x.grad.numpy().tolist() == [2.0, 0.0]


def test_numpy_scalars_alone_take_the_default_dtype():
    assert nm.where(nm.tensor([1.0]) > 0, np.float64(1), 0.0).dtype == np.float32
    assert nm.exp(np.float64(2)).dtype == np.float32


def test_an_optimiser_copied_with_its_model_goes_on_alike():
    def step(model, optimizer):
        loss = nm.cross_entropy(model(np.ones((2, 3), np.float32)), [1, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    model = nn.Linear(3, 2)
    optimizer = nm.optim.SGD(model.parameters(), 0.1, 0.9)
    step(model, optimizer)
    copies = copy.deepcopy((model, optimizer))
    assert [step(model, optimizer) for _ in range(3)] == [step(*copies) for _ in range(3)]
    assert copies[0].weight.data is not model.weight.data


def test_clip_grad_norm_counts_a_parameter_once():
    p = nn.Parameter(np.ones(4))
    p.grad = nm.tensor(3 * np.ones(4))
    assert nn.clip_grad_norm([p, p], 1.0) == 6.0
    np.testing.assert_allclose(p.grad.numpy(), 0.5)
    assert nn.clip_grad_norm(p, 2.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nm.concatenate([leaf([1.0])], axis=None), nm.ShapeError, "axis must be an int"),
        (lambda: nm.pad(nm.tensor(np.array([1, 2])), 1, constant=0.5), nm.DtypeError, "does not fit"),
        (lambda: nn.Linear(2, 2).to("int64"), nm.DtypeError, "Module.to"),
        (lambda: nm.sum(leaf([1.0]), axis=1.0), nm.DtypeError, "axis must be"),
        (lambda: nm.check.derivatives(nm.log, np.array([-1.0])), ValueError, "NaN or Inf"),
        (lambda: nm.set_num_threads(2**40), ValueError, "1 to 1024"),
        (lambda: nm.smooth_relu(leaf([1.0]), 1e-300), ValueError, "1e-30"),
        (lambda: nm.max_pool2d(leaf(np.ones((1, 1, 4, 4))), 2, stride=2**70), nm.ShapeError, "stride"),
        (lambda: nm.local_response_norm(leaf(np.ones((1, 4, 2, 2))), 2**70), nm.ShapeError, "size"),
    ],
)
def test_what_is_refused_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_strides_and_dilations_that_are_never_taken_do_not_matter():
    x, w = leaf(np.ones((1, 1, 4, 4))), nm.tensor(np.ones((1, 1, 2, 2)))
    nm.conv2d(x, w, stride=2**62).sum().backward()
    expected = np.zeros((4, 4))
    expected[:2, :2] = 1
    assert np.array_equal(x.grad.numpy()[0, 0], expected)
    out = np.empty((1, 1, 2, 2))
    huge = 2**63 - 1
    _cpu.avg_pool2d_forward(out, np.ones((1, 1, 2, 2)), (1, 1, 1, 1, 0, 0, 0, 0, huge, huge, False), True)
    assert np.array_equal(out, np.ones((1, 1, 2, 2)))


def test_a_model_of_the_digits_passes_its_own_check():
    image = np.random.default_rng(0).standard_normal((1, 1, 28, 28))
    assert nm.check.derivatives(nn.LeNet(), image).ok
