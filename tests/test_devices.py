"""What a device means: names, moving, mixing, constants, labels, modules and optimisers, on "cuda-emulated"."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import DeviceError, backend, emulated, nn
from tinygrad_nm.emulated import EmulatedArray

DEVICE = "cuda-emulated"


def on(data: Any, **options: Any) -> nm.Tensor:
    """A tensor on the device, of float64 for numbers."""
    return nm.tensor(np.asarray(data), device=DEVICE, **options)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


# ---- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tpu", "", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "cuda-emulated:0", None, 3])
def test_unknown_names_are_refused(name: Any) -> None:
    for use in (lambda: backend.device(name), lambda: nm.zeros(2, device=name)):
        with pytest.raises(DeviceError, match="is not known; use one of cpu, cuda, cuda-emulated"):
            use()
    assert issubclass(DeviceError, ValueError)


def test_devices_are_loaded_when_they_are_named() -> None:
    program = """
import sys, tinygrad_nm as nm
from tinygrad_nm import backend
names = lambda: [d.name for d in backend.DEVICES.values()]
before = names(), [m for m in sys.modules if "cuda" in m or "emulated" in m or "cupy" in m]
nm.tensor(1.0, device="cuda-emulated")
print(before, names())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "(['cpu'], []) ['cpu', 'cuda-emulated']", done.stderr


def test_made_on_a_device() -> None:
    for made in (nm.tensor([1.0], device=DEVICE), nm.zeros(1, device=DEVICE), nm.ones(1, device=DEVICE)):
        assert made.device == DEVICE and type(made.data) is EmulatedArray and made.dtype == np.float32
    assert nm.zeros((2, 3), np.int64, device=DEVICE).numpy().tolist() == [[0] * 3] * 2
    leaf = nm.ones(2, requires_grad=True, device=DEVICE)
    assert leaf.requires_grad and leaf.numpy().tolist() == [1.0, 1.0]
    assert nm.tensor([1.0]).device == nm.zeros(1).device == nm.tensor([1.0], device="cpu").device == "cpu"


def test_copies_stay_where_the_data_is_unless_told() -> None:
    x = on([1.0, 2.0])
    for same in (nm.tensor(x), nm.tensor(x.data), nm.tensor([x, x]), nm.tensor(x, np.float32)):
        assert same.device == DEVICE and same.data is not x.data
    assert nm.tensor(x, device="cpu").numpy().tolist() == [1.0, 2.0]
    x.data[0] = 5.0
    assert nm.tensor(x.data.T[::-1]).numpy().tolist() == [2.0, 5.0]
    with pytest.raises(TypeError, match="complex"):
        nm.tensor(emulated.xp.asarray(np.ones(2, complex)))


# ---- values come to the host when asked ------------------------------------------------------------------------


def test_values_come_when_asked() -> None:
    x = on([[1.0, 2.5]])
    assert repr(x) == f"tensor([[1. , 2.5]], dtype=float64, device='{DEVICE}')"
    assert (
        repr(nn.Parameter(x))
        == f"Parameter(tensor([[1. , 2.5]], dtype=float64, device='{DEVICE}', requires_grad=True))"
    )
    host = x.numpy()
    assert type(host) is np.ndarray and not host.flags.writeable
    x.data[...] = 0.0
    assert host.tolist() == [[1.0, 2.5]] and len(x) == 1 and x.shape == (1, 2)
    assert on(3.5).item() == 3.5 == float(on(3.5)) and int(on(3)) == 3 and bool(on(1.0)) and not on(0.0)
    assert [row.tolist() for row in map(nm.Tensor.numpy, on([[1, 2], [3, 4]]))] == [[1, 2], [3, 4]]


def test_they_do_not_come_by_themselves() -> None:
    for convert in (np.asarray, np.array, np.from_dlpack):
        with pytest.raises((TypeError, BufferError), match=r"cuda-emulated.*(numpy|get)\(\)"):
            convert(on([1.0]))


def test_copies_and_pickles_stay_on_the_device() -> None:
    x = on([1.0, 2.0], requires_grad=True)
    for same in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert same.device == DEVICE and same.requires_grad and same.numpy().tolist() == [1.0, 2.0]
    p = copy.deepcopy(nn.Parameter(on([1.0])))
    assert isinstance(p, nn.Parameter) and p.device == DEVICE


# ---- moving --------------------------------------------------------------------------------------------------


def test_moving_carries_the_gradient_back() -> None:
    x = nm.tensor(normal(3, 2), requires_grad=True)
    y = x.to(DEVICE)
    assert y.device == DEVICE and y.to(DEVICE) is y and x.cpu() is x and x.to("cpu") is x
    (y * y).sum().backward(retain_graph=True)
    assert x.grad.device == "cpu"
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.numpy())
    (first,) = nm.autodiff.grad((y * y * y).cpu().sum(), [x], create_graph=True)
    (second,) = nm.autodiff.grad(first.sum(), [x])
    np.testing.assert_allclose(second.numpy(), 6 * x.numpy())
    assert y.T.cpu().numpy().tolist() == x.T.numpy().tolist()


def test_dtypes_and_devices_are_told_apart() -> None:
    x = on([1.0])
    assert x.to("float32").dtype == np.float32 and x.to("float32").device == DEVICE
    with pytest.raises(DeviceError, match="abacus"):
        x.to("abacus")


def test_gradients_are_where_the_leaf_is() -> None:
    x = on(normal(4), requires_grad=True)
    (x * 3.0).sum().backward()
    assert x.grad.device == DEVICE and x.grad.numpy().tolist() == [3.0] * 4
    y = x * x
    for gradient in (np.ones(4), on(np.ones(4)), [1.0] * 4, on(np.ones(4)).data):
        (g,) = nm.autodiff.grad(
            y, [x], gradient if not isinstance(gradient, list) else [np.array(gradient)], retain_graph=True
        )
        np.testing.assert_allclose(g.numpy(), 2 * x.numpy())
    with pytest.raises(
        DeviceError, match=rf"grad: the gradient is on cpu, the output on {DEVICE}; use .to\('{DEVICE}'\)"
    ):
        nm.autodiff.grad(y, [x], nm.tensor(np.ones(4)))
    unused = on([1.0], requires_grad=True)
    assert nm.autodiff.grad(y.sum(), [unused])[0].device == DEVICE


def test_other_libraries_by_dlpack() -> None:
    host = np.arange(3.0)
    shared = nm.from_dlpack(host)
    host[0] = 7.0
    assert shared.device == "cpu" and shared.numpy()[0] == 7.0
    assert np.shares_memory(np.from_dlpack(shared), host) and shared.__dlpack_device__() == (1, 0)
    x = on([1.0, 2.0])
    again = nm.from_dlpack(x)
    assert again.data is x.data is nm.from_dlpack(x.data).data and x.__dlpack_device__() == (12, 0)
    with pytest.raises(BufferError, match="no other library knows the device cuda-emulated"):
        x.__dlpack__()
    with pytest.raises(TypeError, match="from_dlpack: a list has no __dlpack__"):
        nm.from_dlpack([1.0])
    with pytest.raises(nm.GradientError, match=r"dlpack: .*detach"):
        nm.tensor([1.0], requires_grad=True).__dlpack__()

    class Elsewhere:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 10, 0

    with pytest.raises(DeviceError, match="DLPack's device type 10 is not known"):
        nm.from_dlpack(Elsewhere())


def test_torch_by_dlpack() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed (extra `oracle`)")
    import torch

    theirs = torch.arange(4.0)
    ours = nm.from_dlpack(theirs)
    back = torch.from_dlpack(ours)
    theirs[1] = 9.0
    assert ours.numpy().tolist() == back.tolist() == [0.0, 9.0, 2.0, 3.0]


# ---- devices do not mix; NumPy's constants do --------------------------------------------------------------------

A, W, B = normal(4, 3), normal(2, 3), normal(2)
PAIRS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
    "add": (nm.add, (A, A)),
    "multiply": (nm.multiply, (A, A[:1])),
    "divide": (nm.divide, (A, A)),
    "power": (nm.power, (abs(A), A)),
    "maximum": (nm.maximum, (A, A)),
    "less": (nm.less, (A, A)),
    "equal": (nm.equal, (A, A)),
    "where": (lambda a, b: nm.where(nm.identity(a) > 0, b, 0.0), (A, A)),
    "clip": (lambda a, b: nm.clip(a, low=b), (A, A)),
    "concatenate": (lambda *p: nm.concatenate(p), (A, A)),
    "stack": (lambda *p: nm.stack(p), (A, A)),
    "matmul": (nm.matmul, (A, W.T)),
    "linear": (nm.linear, (A, W)),
    "mse_loss": (nm.mse_loss, (A, A)),
    "copy_": (lambda a, b: nm.tensor(a).copy_(b), (A, A)),
    "setitem": (lambda a, b: nm.tensor(a).__setitem__(0, b), (A, A[0])),
    "getitem": (lambda a, b: nm.identity(a)[b], (A, np.array([0, 2]))),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_tensors_on_two_devices(name: str) -> None:
    function, arrays = PAIRS[name]
    for devices in (("cpu", DEVICE), (DEVICE, "cpu")):
        tensors = [nm.tensor(a, device=d) for a, d in zip(arrays, devices, strict=True)]
        with pytest.raises(
            DeviceError, match=rf"{name}: operands on {devices[0]} and {devices[1]} do not mix; .*\.to\("
        ):
            function(*tensors)
        if name != "where":  # its condition is made of the first
            with pytest.raises(DeviceError, match="do not mix"):
                function(tensors[0], tensors[1].data if devices[1] != "cpu" else tensors[1])


@pytest.mark.parametrize("name", PAIRS)
def test_numpy_arrays_are_constants_everywhere(name: str) -> None:
    function, arrays = PAIRS[name]
    here = function(*[nm.tensor(a) for a in arrays])
    for i in range(len(arrays)):
        if i == 1 or name not in ("copy_", "setitem", "getitem", "where"):  # which write to, or are made of, the first
            mixed = [on(a) if j == i else a for j, a in enumerate(arrays)]
            if name in ("copy_", "setitem", "getitem", "where"):
                mixed = [on(arrays[0]), arrays[1]]
            found = function(*mixed)
            if here is not None:
                assert found.device == DEVICE
                np.testing.assert_allclose(found.numpy(), here.numpy(), rtol=1e-12)


def test_operators_take_constants_on_either_side() -> None:
    nm.set_default_dtype("float64")
    x = on([1.0, 2.0])
    for y in (x + np.ones(2), np.ones(2) + x, nm.add(x, [1.0, 1.0]), x + 1, np.float64(1) + x, x + x.data * 0 + 1):
        assert y.device == DEVICE and y.numpy().tolist() == [2.0, 3.0]
    x += np.ones(2)
    x *= 2.0
    assert x.numpy().tolist() == [4.0, 6.0] and (x > np.array([5.0, 5.0])).numpy().tolist() == [False, True]
    assert (x + emulated.xp.ones(2)).numpy().tolist() == [5.0, 7.0]
    x += emulated.xp.ones(2)
    assert x.numpy().tolist() == [5.0, 7.0]


def test_constants_carry_no_gradient_and_leave_that_of_the_tensor() -> None:
    x = on(A, requires_grad=True)
    (nm.where(A > 0, x, 0.0) * A + A / (x * x + 1.0)).sum().backward()
    y = nm.tensor(A, requires_grad=True)
    (nm.where(A > 0, y, 0.0) * A + A / (y * y + 1.0)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-12)


# ---- indices -------------------------------------------------------------------------------------------------

KEYS: dict[str, Any] = {
    "int": 1,
    "slice": (slice(None, None, -2), None, Ellipsis),
    "array": np.array([[0, 3, 0], [1, 1, -1]]),
    "list": [2, 0, 2],
    "pair": (np.array([2, 0, 2]), np.array([1, 2, 1])),
    "mask": A > 0,
    "row mask": (np.array([True, False, True, True]), 1),
    "mixed": (slice(1, None), np.array([0, 0, 2])),
    "bool": True,
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("place", [lambda key: key, lambda key: on(key).data, on], ids=["numpy", "array", "tensor"])
def test_indexing_and_its_gradient(name: str, place: Callable[[Any], Any]) -> None:
    key = KEYS[name]
    moved = tuple(place(k) if isinstance(k, np.ndarray) else k for k in (key if isinstance(key, tuple) else (key,)))
    results = []
    for x, k in ((nm.tensor(A, requires_grad=True), key), (on(A, requires_grad=True), moved)):
        y = x[k]
        (y * y).sum().backward()
        results.append((y.numpy(), x.grad.numpy()))
    for here, there in zip(*results, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-14, strict=True)


def test_indices_are_checked_on_the_host() -> None:
    x = on(A)
    for wrong in (np.array([4]), [0, -5], (slice(None), np.array([3])), 4):
        with pytest.raises(IndexError, match=r"getitem: .*shape \(4, 3\)"):
            x[wrong]
    for mask in (np.ones(3, bool), on(np.ones(3, bool))):
        with pytest.raises(nm.ShapeError, match=r"getitem: .*\(4, 3\)"):
            x[mask]


# ---- labels --------------------------------------------------------------------------------------------------

LOGITS = normal(5, 3)
LABELS = np.array([0, 2, 1, 1, 0])


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"reduction": "none"}, {"ignore_index": 1}])
@pytest.mark.parametrize(
    "place", [lambda y: y, list, on, lambda y: y.astype(np.uint8)], ids=["numpy", "list", "device", "uint8"]
)
def test_labels_anywhere(options: dict[str, Any], place: Callable[[Any], Any]) -> None:
    x = on(LOGITS, requires_grad=True)
    here = nm.nll_loss(LOGITS, LABELS, **options)
    there = nm.nll_loss(x, place(LABELS), **options)
    np.testing.assert_allclose(there.numpy(), here.numpy(), rtol=1e-12)
    there.sum().backward()
    assert x.grad.device == DEVICE


@pytest.mark.parametrize("loss", [nm.nll_loss, nm.cross_entropy])
def test_wrong_labels(loss: Callable[..., Any]) -> None:
    x = on(LOGITS)
    for wrong in (3, -1):
        labels = LABELS.copy()
        labels[2] = wrong
        with pytest.raises(IndexError, match=rf"label {wrong} at \(2,\) is outside 0 \.\. 2: there are 3 classes"):
            loss(x, labels)
    with pytest.raises(ValueError, match="no label counts"):
        loss(x, np.full(5, -100))
    with pytest.raises(nm.DtypeError, match="labels are bool"):
        loss(x, LABELS > 1)
    with pytest.raises(DeviceError, match=f"operands on {DEVICE} and cpu do not mix"):
        loss(x, nm.tensor(LABELS))
    with pytest.raises(DeviceError, match=f"operands on cpu and {DEVICE} do not mix"):
        loss(nm.tensor(LOGITS), on(LABELS))


def test_cross_entropy_with_probabilities_of_numpy() -> None:
    target = np.full((5, 3), 1 / 3)
    np.testing.assert_allclose(nm.nll_loss(on(LOGITS), LABELS).item(), nm.nll_loss(LOGITS, LABELS).item(), rtol=1e-12)
    assert nm.mse_loss(on(LOGITS), target).device == DEVICE
    assert nm.softmax(on(np.empty((0, 3)))).shape == (0, 3)
    assert nm.logsumexp(on(np.empty((2, 0))), axis=1).numpy().tolist() == [-np.inf, -np.inf]
