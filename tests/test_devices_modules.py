"""Modules, optimisers, compiled functions, derivative checks and settings on the device "cuda-emulated"."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from test_devices import DEVICE, A, normal, on
from tinygrad_nm import DeviceError, backend, emulated, nn, optim

# ---- modules and optimisers ------------------------------------------------------------------------------------


def network(**options: Any) -> nn.Sequential:
    """Linear layers without activations."""
    nm.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5, **options), nn.Linear(5, 2, **options))


def test_modules_move_with_all_they_have() -> None:
    model = network()
    before = model.state_dict()
    assert model.to(DEVICE) is model and {p.device for p in model.parameters()} == {DEVICE}
    after = model.state_dict()
    assert all(type(a) is np.ndarray and a.tobytes() == before[name].tobytes() for name, a in after.items())
    assert model(A.astype(np.float32)).device == DEVICE
    model.to(np.float64)
    assert {(p.device, p.dtype.name) for p in model.parameters()} == {(DEVICE, "float64")}
    assert model.to("cpu")(A).device == "cpu"
    assert nn.summary(network().to(DEVICE), (3,)).parameters == 32


def test_flat_parameters_stay_flat() -> None:
    model = network()
    nn.FlatParameters(model.parameters())
    model.to(DEVICE)
    buffers = {id(p.data.base) for p in model.parameters()} | {id(p.gradient_buffer.base) for p in model.parameters()}
    assert len(buffers) == 2
    loose = network().to(DEVICE)
    assert all(p.data.base is None and p.gradient_buffer is None for p in loose.parameters())


def test_the_seed_draws_the_same_on_every_device() -> None:
    here, there = network(), network().to(DEVICE)
    nm.manual_seed(7)
    nn.init.he_normal_(here[0].weight)
    nm.manual_seed(7)
    nn.init.he_normal_(there[0].weight)
    assert here[0].weight.numpy().tobytes() == there[0].weight.numpy().tobytes()
    nn.init.zeros_(there[0].weight)
    assert there[0].weight.device == DEVICE and not there[0].weight.numpy().any()


def test_weights_are_saved_and_loaded_across_devices(tmp_path: Any) -> None:
    pytest.importorskip("safetensors")
    here, there = network(), network().to(DEVICE)
    nn.init.constant_(here[0].weight, 0.5)
    nn.save(here, tmp_path / "a")
    nn.load(there, tmp_path / "a")
    assert there[0].weight.device == DEVICE and (there[0].weight.numpy() == 0.5).all()
    nn.save(there, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    there.load_state_dict({name: on(a) for name, a in here.state_dict().items()})
    there.load_state_dict({name: on(a).data for name, a in here.state_dict().items()})
    with pytest.raises(ValueError, match=r"0\.bias is missing"):
        there.load_state_dict({})


def train(model: Any, optimizer: Any, steps: int = 3) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = nm.mse_loss(model(A), np.ones((4, 2)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


OPTIONS: list[dict[str, Any]] = [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}]


@pytest.mark.parametrize("options", OPTIONS)
def test_training_agrees_with_the_cpu(options: dict[str, Any]) -> None:
    results = []
    for device in ("cpu", DEVICE):
        model = network(dtype=np.float64).to(device)
        optimizer = optim.SGD(model.parameters(), 0.05, **options)
        results.append((train(model, optimizer), [p.numpy() for p in model.parameters()]))
        assert all(p.grad.device == device for p in model.parameters())
        if options:
            again = optim.SGD(model.parameters(), 0.05, **options)
            again.load_state_dict(optimizer.state_dict())
            for a, b in zip(again.state_dict()["velocity"], optimizer.state_dict()["velocity"], strict=True):
                assert type(a) is np.ndarray and a.tobytes() == b.tobytes()
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-12)
    for here, there in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-12, atol=1e-14)


def test_a_copy_of_model_and_optimiser_trains_on() -> None:
    model = network(dtype=np.float64).to(DEVICE)
    optimizer = optim.SGD(model.parameters(), 0.05, 0.9)
    train(model, optimizer)
    model2, optimizer2 = copy.deepcopy((model, optimizer))
    assert train(model2, optimizer2) == train(model, optimizer)


def test_an_optimiser_from_before_the_move_says_so() -> None:
    model = network(dtype=np.float64)
    optimizer = optim.SGD(model.parameters(), 0.1)
    model.to(DEVICE)
    with pytest.raises(DeviceError, match=rf"was on cpu when the optimiser was built and is on {DEVICE} now; build"):
        train(model, optimizer)
    for p in model.to("cpu").to(np.float32).parameters():
        p.grad = nm.ones(p.shape)
    with pytest.raises(nm.DtypeError, match="was float64 when the optimiser was built and is float32 now; build"):
        optimizer.step()


def test_gradients_are_clipped_on_the_device() -> None:
    x = on([3.0, 4.0], requires_grad=True)
    (x * x).sum().backward()
    assert nn.clip_grad_norm([x], 1.0) == pytest.approx(10.0)
    np.testing.assert_allclose(x.grad.numpy(), [0.6, 0.8])
    x.grad.data[0] = np.inf
    with pytest.raises(nm.GradientError, match="the norm is inf"):
        nn.clip_grad_norm([x], 1.0)


def test_a_connection_table_works_on_the_device() -> None:
    table = np.array([[True, False], [True, True]])
    layer = nn.Conv2d(2, 2, 3, connections=table, dtype=np.float64)
    here = layer.dense_weight().numpy()
    layer.to(DEVICE)
    dense = layer.dense_weight()
    assert dense.device == DEVICE and dense.numpy().tobytes() == here.tobytes()
    (dense * dense).sum().backward()
    np.testing.assert_allclose(layer.weight.grad.numpy(), 2 * layer.weight.numpy())


# ---- models --------------------------------------------------------------------------------------------------


def small_alexnet(dtype: Any) -> Any:
    """Every layer of AlexNet, few channels."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2, activation="relu", dtype=dtype),
        nn.LocalResponseNorm(5, k=2.0, divide_by_size=False, groups=2),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(6, 8, 3, padding=1, groups=2, activation="relu", initial_bias=0.1, dtype=dtype),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(32, 12, activation="relu", dtype=dtype),
        nn.Dropout(0.5),
        nn.Linear(12, 10, dtype=dtype),
    )


MODELS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "lenet": (nn.LeNet, (1, 28, 28)),
    "lenet5": (nn.LeNet5, (1, 28, 28)),
    "lenet1989": (nn.LeNet1989, (1, 28, 28)),
    "alexnet": (small_alexnet, (3, 31, 31)),
    "deep": (lambda dtype: nn.DeepNetwork((2, 8, 8, 10), "smooth_relu", dtype=dtype), (2,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_train_as_on_the_cpu(name: str) -> None:
    build, shape = MODELS[name]
    results = []
    for device in ("cpu", DEVICE):
        nm.manual_seed(1)
        model = build(dtype=np.float64).to(device)
        optimizer = optim.SGD(model.parameters(), 0.05, 0.9)
        rng = np.random.default_rng(0)
        losses = []
        for _ in range(3):
            loss = nm.cross_entropy(model(rng.standard_normal((3, *shape))), rng.integers(0, 10, 3))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        results.append((losses, model.state_dict()))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-10)
    for key, here in results[0][1].items():
        np.testing.assert_allclose(results[1][1][key], here, rtol=1e-8, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("model", [nn.LeNet, nn.LeNet5])
def test_twenty_steps_of_the_command_agree_with_the_cpu(model: Callable[[], Any]) -> None:
    """The loop behind `tinygrad-nm train lenet --device cuda-emulated`, compiled as it is there, in float32."""
    pytest.importorskip("rich")
    from tinygrad_nm.cli.recipes import CLASSIFICATION, Recipe
    from tinygrad_nm.cli.training import Training

    rng = np.random.default_rng(0)
    images = rng.standard_normal((4 * 20, 1, 28, 28)).astype(np.float32)
    split = nm.data.Split(images, rng.integers(0, 10, len(images)))
    losses = []
    kernels = backend.device(DEVICE).kernels
    before = sum(kernels.launches().values())
    for device in ("cpu", DEVICE):
        nm.manual_seed(2)
        training = Training(model().to(device), CLASSIFICATION, split, Recipe(1, 4, 0.02), 0)
        seen = []
        for step in training.steps():
            seen.append(step.loss * step.batch)
        losses.append(np.diff(seen, prepend=0.0))
        assert training._compiled.why_not is None and len(seen) == 20
    launched = sum(kernels.launches().values()) - before
    assert launched >= 20 * 20  # forward, backward and update are kernels of the device
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


# ---- compile, checks, settings ---------------------------------------------------------------------------------


def compiled(model: Any) -> Any:
    return nm.compile(lambda x: model(x))


@pytest.mark.parametrize("place", [lambda x: x, on, lambda x: on(x).data], ids=["numpy", "tensor", "array"])
def test_a_compiled_function_replays_on_the_device(place: Callable[[Any], Any]) -> None:
    model = network(dtype=np.float64).to(DEVICE)
    with nm.no_grad():
        function = compiled(model)
        for shift in range(5):
            x = A + shift
            y = function(place(x))
            assert y.device == DEVICE and function.why_not is None
            assert y.numpy().tobytes() == model(x).numpy().tobytes()
        assert any(hasattr(plan, "steps") for plan in function._plans.values())
        model.to("cpu")
        assert function(A).device == "cpu"


def test_a_whole_step_replays_on_the_device() -> None:
    losses = []
    for wrap in (lambda f, **_: f, nm.compile):
        model = network(dtype=np.float64).to(DEVICE)
        optimizer = optim.SGD(model.parameters(), 0.05, 0.9)

        def step(x: Any, labels: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            loss = nm.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        losses.append([run(A + k, np.array([0, 1, 1, 0])).item() for k in range(6)])
        if wrap is nm.compile:
            assert run.why_not is None
            with pytest.raises(IndexError, match="label 2 at"):
                run(A, np.array([0, 1, 2, 0]))
    assert losses[0] == losses[1]


def test_derivatives_are_checked_on_the_device_of_the_inputs() -> None:
    seen = set()

    def product(a: Any, b: Any) -> Any:
        seen.add((a.device, b.device))
        return nm.matmul(a, b) * 0.5

    report = nm.check.derivatives(product, on(normal(2, 3)), normal(3, 2))
    assert report.ok and seen == {(DEVICE, DEVICE)}, str(report)
    assert nm.check.adjoint(network().to(DEVICE), normal(2, 3), dtype=np.float32).ok
    assert nm.check.taylor(lambda x: (x * x).cpu().sum(), on([1.0, 2.0])).ok


def test_anomalies_are_found_on_the_device() -> None:
    x = on([1.0, 0.0])
    with nm.autodiff.detect_anomaly(), pytest.raises(nm.AnomalyError, match="divide: forward gave Inf"):
        nm.divide(1.0, x)


@pytest.fixture
def winograd() -> Iterator[None]:
    before = nm.get_winograd(np.float64)
    yield
    nm.set_winograd(before, np.float64)


@pytest.mark.usefixtures("winograd")
def test_winograd_is_switched_on_every_device() -> None:
    rows = [backend.device(name) for name in ("cpu", DEVICE)]
    for choice in (True, False):
        nm.set_winograd(choice, np.float64)
        assert [row.kernels.get_winograd("float64") for row in rows] == [choice] * 2
    program = f"""
import tinygrad_nm as nm
from tinygrad_nm import backend
nm.set_winograd(True, "float64")
nm.set_winograd(False, "float32")
told = []
with backend.without_winograd():
    with backend.without_winograd():
        kernels = backend.device({DEVICE!r}).kernels
    inner = [len(block) for block in backend._forbidding.blocks]
print(kernels.get_winograd("float64"), kernels.get_winograd("float32"), inner)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True False [2]", done.stderr


def test_the_emulation_is_fast_or_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = backend.device(DEVICE).kernels
    before = kernels.module
    try:
        for mode in ("strict", "fast"):
            backend.set_emulation(mode)
            assert kernels.module.strict == (mode == "strict")
            out = emulated.xp.empty((2, 2))
            kernels.gemm(out, on(A).data[:2, :2], on(A).data[:2, :2])
        with pytest.raises(ValueError, match=r"'slow' is not known .*use 'fast' or 'strict'"):
            backend.set_emulation("slow")
    finally:
        kernels.switch(before)
    for value, said in (("strict", "True"), ("", "use 'fast' or 'strict'")):
        monkeypatch.setenv("TINYGRAD_NM_EMULATION", value)
        program = "from tinygrad_nm import backend; print(backend.device('cuda-emulated').kernels.module.strict)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert said in done.stdout + done.stderr
    monkeypatch.setitem(sys.modules, "tinygrad_nm._cuda_emulated_strict", None)
    with pytest.raises(DeviceError, match=r"built without it .*TINYGRAD_NM_EMULATED=ON pip install"):
        backend.set_emulation("strict")


def test_large_results_are_refused_by_name() -> None:
    with pytest.raises(nm.ShapeError, match=r"probe: the result's shape .* larger than any memory"):
        backend.empty("probe", on([1.0]).data, (2**40, 2**40))
    with pytest.raises(MemoryError, match="probe: there is no memory"):
        backend.empty_on("probe", DEVICE, (2**50,), np.float32)
