"""Device "cuda": what it says where something is missing, and on a stand-in for CuPy what it asks of CuPy and _cuda."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import DeviceError, _cpu, _cuda_emulated, backend, cuda, emulated, nn, optim
from tinygrad_nm.emulated import EmulatedArray


class StandInKernels:
    """The module _cuda as far as cuda.py knows it, its kernels those of the emulated device."""

    def __init__(self) -> None:
        self.stream, self.runs = 0, []  # (kernel, stream, whether each array is contiguous)

    def set_stream(self, stream: int) -> None:
        self.stream = stream

    def device_count(self) -> int:
        return 2

    def driver_version(self) -> int:
        return 13000

    def runtime_version(self) -> int:
        return 13000

    def __getattr__(self, name: str) -> Any:
        function = getattr(_cuda_emulated, name)

        def kernel(*arguments: Any) -> Any:
            assert not any(isinstance(x, np.ndarray) for x in arguments)
            contiguous = [x.flags.c_contiguous for x in arguments if isinstance(x, EmulatedArray)]
            self.runs.append((name, self.stream, contiguous))
            return function(*[x._values if isinstance(x, EmulatedArray) else x for x in arguments])

        return kernel


class StandInCuPy(types.ModuleType):
    """CuPy as far as cuda.py knows it, its arrays those of the emulated device."""

    ndarray = EmulatedArray

    def __init__(self) -> None:
        super().__init__("cupy")
        self.current, self.stream = 0, 1
        self.cuda = SimpleNamespace(
            Device=lambda index: SimpleNamespace(use=lambda: setattr(self, "current", index)),
            get_current_stream=lambda: SimpleNamespace(ptr=self.stream),
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        )
        self.from_dlpack = emulated.asarray

    def __getattr__(self, name: str) -> Any:
        return getattr(emulated.xp, name)


def owner(x: EmulatedArray) -> np.ndarray:
    return emulated._owner(x._values)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Stand-ins for CuPy and _cuda (its attribute `kernels`), and no device loaded but the CPU."""
    fake, kernels = StandInCuPy(), StandInKernels()
    fake.kernels = kernels
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "tinygrad_nm._cuda", kernels)
    row = backend.device("cuda-emulated")
    allocate, places = emulated.empty, {}

    def empty(shape: Any, dtype: Any = float) -> EmulatedArray:
        made = allocate(shape, dtype)
        places[id(owner(made))] = owner(made), fake.current
        return made

    monkeypatch.setattr(emulated, "empty", empty)
    monkeypatch.setattr(emulated.xp, "empty", empty)
    number = property(lambda x: SimpleNamespace(id=places[id(owner(x))][1]))
    monkeypatch.setattr(EmulatedArray, "device", number, raising=False)
    pointer = property(lambda x: SimpleNamespace(ptr=row.address(x)))
    monkeypatch.setattr(EmulatedArray, "data", pointer, raising=False)
    before = dict(backend.DEVICES)
    backend.DEVICES.pop(EmulatedArray)
    yield fake
    backend.DEVICES.clear()
    backend.DEVICES.update(before)


# ---- what is missing -----------------------------------------------------------------------------------------


def refused(number: int = 0, why: str = "") -> Any:
    """A question to the module, answered by a number or by an error that says why."""

    def ask() -> int:
        if why:
            raise RuntimeError(why)
        return number

    return ask


def test_the_first_thing_that_is_missing_is_told(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last to the first: each hides those after it."""
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", refused(why="no libnvrtc.so.13"))
    with pytest.raises(DeviceError, match=r"CuPy finds no compiler \(no libnv.*\); pip install 'cupy-cuda13x\[ctk\]'"):
        backend.device("cuda")
    monkeypatch.setattr(cupy.kernels, "device_count", refused(why="device_count: the driver is old"), raising=False)
    with pytest.raises(DeviceError, match=r"'cuda' is not available: the driver is old; nvidia-smi tells"):
        backend.device("cuda")
    monkeypatch.setattr(cupy.kernels, "device_count", refused(0))
    with pytest.raises(DeviceError, match=r"the CUDA driver finds no GPU; nvidia-smi"):
        backend.device("cuda:1")
    for answer in (refused(why="driver_version: there is no CUDA driver"), refused(0)):
        monkeypatch.setattr(cupy.kernels, "driver_version", answer, raising=False)
        with pytest.raises(DeviceError, match=r"available: there is no CUDA driver; Debian: .*nvidia-driver.*--gpus"):
            nm.tensor(1.0, device="cuda")
    for runtime, extra in ((13000, "cuda13"), (12040, "cuda12")):
        monkeypatch.setitem(sys.modules, "cupy", None)
        monkeypatch.setattr(cupy.kernels, "runtime_version", refused(runtime))
        with pytest.raises(DeviceError, match=rf"CuPy cannot be imported \(.*\); pip install 'tinygrad-nm\[{extra}\]'"):
            nm.zeros(2, device="cuda")
    monkeypatch.setitem(sys.modules, "tinygrad_nm._cuda", None)
    with pytest.raises(
        DeviceError, match=r"no CUDA kernels \((.*)\); .*CMAKE_ARGS=-DTINYGRAD_NM_CUDA=ON pip install"
    ) as e:
        nn.Linear(2, 2).to("cuda")
    assert _cpu.build_options()["cuda"] in str(e.value)
    assert [row.name for row in backend.DEVICES.values()] == ["cpu"]


def test_a_runtime_that_is_missing_is_told(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str, package: str | None = None) -> Any:
        if name == "._cuda":
            raise ImportError("libcudart.so.13: cannot open shared object file")
        return importlib.__import__(name)

    monkeypatch.setattr(cuda.importlib, "import_module", fails)
    with pytest.raises(DeviceError, match=r"CUDA runtime that is not there \(libcudart.so.13.*pip install nvidia-cuda"):
        cuda.load()


def test_on_this_machine_it_works_or_says_why_not() -> None:
    try:
        backend.device("cuda")
    except DeviceError as error:
        why = str(error)
    else:
        why = ""
        assert nm.zeros(2, device="cuda").device == "cuda"
    assert not why or (why.startswith("device 'cuda' is not available: ") and "; " in why)


# ---- what it asks of CuPy and of _cuda -------------------------------------------------------------------------


def test_names_and_the_current_device(cupy: Any) -> None:
    x = nm.tensor([1.0, 2.0], device="cuda")
    assert x.device == "cuda" == nm.zeros(1, device="cuda:0").device and type(x.data) is cupy.ndarray
    assert x.to("cuda:0") is x.to("cuda") is x and (x + 1.0).device == "cuda"
    y = x.to("cuda:1")
    assert cupy.current == 1 and x.device == "cuda" and y.device == "cuda:1" and y.numpy().tolist() == [1.0, 2.0]
    for function in (nm.add, nm.clip, nm.less):
        with pytest.raises(DeviceError, match=rf"{function.__name__}: operands on cuda and cuda:1 do not mix"):
            function(x, y)
    with pytest.raises(DeviceError, match="'cuda:2' is not available: there are 2 GPUs, counted from 0"):
        x.to("cuda:2")
    assert repr(nm.zeros(1, device="cuda:1")) == "tensor([0.], device='cuda:1')"
    assert nm.from_dlpack(Exported()).device == "cuda:1"


class Exported:
    """An array of another library on the second GPU."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.ones(2)


def test_training_and_replay(cupy: Any) -> None:
    results = []
    for device in ("cpu", "cuda"):
        nm.manual_seed(0)
        model = nn.Linear(3, 2, bias=False, dtype=np.float64).to(device)
        rng = np.random.default_rng(0)
        forward = nm.compile(lambda x, model=model: model(x))
        for _ in range(4):
            x = rng.standard_normal((4, 3))
            loss = nm.mse_loss(model(x), np.ones((4, 2)))
            model.zero_grad()
            loss.backward()
            with nm.no_grad():
                model.weight.sub_(model.weight.grad * 0.1)
                y = forward(x)
        assert forward.why_not is None and y.device == device
        results.append([loss.item(), *y.numpy().ravel(), *model.weight.numpy().ravel()])
        optim.SGD(model.parameters(), 0.1)
        assert model.weight.data.base is not None and model.weight.device == device
    np.testing.assert_allclose(results[1], results[0], rtol=1e-12)


def test_kernels_follow_the_current_stream(cupy: Any) -> None:
    x = nm.tensor(np.ones((2, 2)), device="cuda")
    for stream in (1, 1, 77, 77, 1):
        cupy.stream = stream
        nm.matmul(x, x)
    assert [run[:2] for run in cupy.kernels.runs if run[0] == "gemm"] == [("gemm", s) for s in (1, 1, 77, 77, 1)]


def test_operands_are_made_contiguous_unless_the_kernel_takes_them_as_they_lie(cupy: Any) -> None:
    x = nm.tensor(np.ones((2, 3)), device="cuda")
    nm.matmul(x, x.T)
    assert cupy.kernels.runs[-1][2] == [True, True, False]
    kernels = backend.kernels(x.data)
    out = emulated.xp.empty((2, 2))
    image, filters = emulated.xp.zeros((1, 1, 5, 5)), emulated.xp.zeros((3, 2, 1, 2)).T
    kernels.conv2d_pool2d_kept(image, filters, (1, 1, 0, 0, 0, 0, 1, 1, 1), "relu", 0.0, ("avg", 1, 1))
    assert cupy.kernels.runs[-1][2] == [True, True]
    with pytest.raises(ValueError, match="out is not C-contiguous"):
        kernels.gemm(out.T, x.data[:, :2], x.data[:, :2])
