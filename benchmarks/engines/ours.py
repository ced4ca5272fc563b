"""tinygrad_nm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import tinygrad_nm as nm
from engines import Unsupported, Work
from networks import LEARNING_RATE, MOMENTUM, NETWORKS, Conv
from tinygrad_nm import _cpu, backend
from workloads import LRN_NUMBERS, SGD_NUMBERS, Case

NAME = "ours"
DEVICE = "cpu"  # engines/ours_cuda.py sets another
MODELS = {"lenet": nm.nn.LeNet, "lenet5": nm.nn.LeNet5, "alexnet": nm.nn.AlexNet}


def start(threads: int) -> str:
    """Sets the number of threads; the version."""
    nm.set_num_threads(threads)
    return f"tinygrad_nm {nm.__version__} ({_cpu.isa()})"


def prepare(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    """What we have for the work: networks without dropout also by `nm.compile`."""
    if case.kind not in KINDS:
        raise Unsupported(f"ours: no {case.kind}")
    return KINDS[case.kind](case, {name: backend.put("ours", a, DEVICE) for name, a in inputs.items()})


def _gemm(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    a, b = (inputs[name].T if name in case.options["turned"] else inputs[name] for name in "ab")
    out, gemm = backend.empty("ours", a, (case.options["m"], case.options["n"])), backend.kernels(a).gemm
    return _one(lambda: gemm(out, a, b), c=out)


def _one(run: Any, **results: np.ndarray) -> dict[str, Work | str]:
    """A call that writes into these arrays."""

    def answer() -> dict[str, np.ndarray]:
        run()
        return {name: backend.host(result) for name, result in results.items()}

    return {"": Work(run, answer)}


def _conv2d(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    layer, sweep = Conv(*case.options["layer"]), case.options["sweep"]
    x, w, dy = (inputs[name] for name in ("x", "w", "dy"))
    how = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}

    def forward() -> dict[str, Any]:
        return {"y": nm.conv2d(x, w, **how)}

    def backward_input() -> dict[str, Any]:
        return {"dx": nm.conv2d_backward_input(dy, w, x.shape, **how)}

    def backward_weight() -> dict[str, Any]:
        return {"dw": nm.conv2d_backward_weight(x, dy, w.shape, **how)}

    sweeps = {
        "forward": forward,
        "backward_input": backward_input,
        "backward_weight": backward_weight,
        "backward": lambda: backward_input() | backward_weight(),
    }
    run = sweeps[sweep]
    return {"": Work(run, lambda: {name: value.numpy() for name, value in run().items()})}


def _like(x: Any) -> Any:
    return backend.empty("ours", x, x.shape)


def _activation(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    x, dy, function = inputs["x"], inputs["dy"], case.options["function"]
    out, kernels = _like(x), backend.kernels(x)
    if case.options["sweep"] == "forward":
        return _one(lambda: kernels.activation_forward(out, x, function, 0.0), y=out)
    y = _like(x)  # the derivatives of all three follow from the output
    kernels.activation_forward(y, x, function, 0.0)
    return _one(lambda: kernels.activation_backward(out, dy, y, function, 0.0), dx=out)


def _pool(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    x, dy = inputs["x"], inputs["dy"]
    kernel, stride = case.options["kernel"], case.options["stride"]
    geometry = (kernel, kernel, stride, stride, 0, 0, 0, 0, 1, 1, False)
    y, dx, kernels = _like(dy), _like(x), backend.kernels(x)
    forward = case.options["sweep"] == "forward"
    if case.options["function"] == "avg":
        if forward:
            return _one(lambda: kernels.avg_pool2d_forward(y, x, geometry, True), y=y)
        return _one(lambda: kernels.avg_pool2d_backward(dx, dy, geometry, True), dx=dx)
    positions = _positions(x, kernel, stride)
    if forward:
        return _one(lambda: kernels.max_pool2d_forward(y, positions, x, geometry), y=y)
    return _one(lambda: kernels.max_pool2d_backward(dx, dy, positions, geometry), dx=dx)


def _positions(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Where the maxima lie, in the form in which the tape keeps it."""
    node = nm.max_pool2d(nm.Tensor(x, requires_grad=True), kernel, stride).node
    return next(a for a in node.saved if type(a) in backend.DEVICES and a.dtype.kind in "iu")


def _cross_entropy(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    x, labels = inputs["x"][:, :, None], inputs["labels"][:, None]
    loss, dx, kernels = backend.empty("ours", x, labels.shape), _like(x), backend.kernels(x)
    if case.options["sweep"] == "forward":
        return _one(lambda: kernels.softmax_cross_entropy_forward(loss, x, labels, -100), loss=loss[:, 0])
    dloss = backend.xp(x).ones_like(loss)
    return _one(lambda: kernels.softmax_cross_entropy_backward(dx, dloss, x, labels, -100), dx=dx[:, :, 0])


def _lrn(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    x, dy, out, kernels = inputs["x"], inputs["dy"], _like(inputs["x"]), backend.kernels(inputs["x"])
    numbers = (*LRN_NUMBERS.values(), True, 1)
    if case.options["sweep"] == "forward":
        return _one(lambda: kernels.local_response_norm_forward(out, x, *numbers), y=out)
    return _one(lambda: kernels.local_response_norm_backward(out, dy, x, *numbers), dx=out)


def _sgd(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    w, g = inputs["w"], inputs["g"]
    v, kernels = backend.xp(w).zeros_like(w), backend.kernels(w)
    lr, momentum, decay = SGD_NUMBERS.values()
    return _one(lambda: kernels.sgd_update(w, g, v, lr, momentum, decay, False, False), w=w)


def model_of(case: Case) -> Any:
    """The model with the weights that every engine starts from."""
    name = case.options["model"]
    model = MODELS[name](dtype=case.dtype).to(DEVICE)
    model.load_state_dict(NETWORKS[name].weights(case.dtype))
    return model


def _variants(model: Any) -> tuple[str, ...]:
    """By the tape alone, and compiled: the latter not with dropout, which draws anew at each call."""
    return ("tape",) if _drops(model) else ("tape", "compile")


def _drops(model: Any) -> bool:
    return any(isinstance(layer, nm.nn.Dropout) for layer in model)


class Trainer:
    """A model and its steps: `step(x, labels)` gives the loss."""

    def __init__(self, case: Case, variant: str = "tape") -> None:
        self.case, self.model = case, model_of(case)
        self.optimizer = nm.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        self.start = self.optimizer.state_dict()
        self.step = nm.compile(self._step) if variant == "compile" else self._step

    def _step(self, x: Any, labels: Any) -> Any:
        loss = nm.cross_entropy(self.model(x), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def answer(self, x: Any, labels: Any) -> dict[str, np.ndarray]:
        """Loss, gradients and weights of the first step, without dropout; compiled, of the third, made the first."""
        if _drops(self.model):  # else the modes are the same
            self.model.eval()
        if self.step != self._step:
            for _ in range(2):
                self.step(x, labels)
            self.model.load_state_dict(NETWORKS[self.case.options["model"]].weights(self.case.dtype))
            self.optimizer.load_state_dict(self.start)
        found = {"loss": np.asarray(self.step(x, labels).numpy())}
        self.model.train()
        for name, parameter in self.model.named_parameters():
            found[f"gradient {name}"] = parameter.grad.numpy()
            found[f"weight {name}"] = parameter.detach().numpy()
        return found


def _train(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    batch = inputs["x"], inputs["labels"]
    works: dict[str, Work | str] = {}
    for name in _variants(model_of(case)):
        trainer = Trainer(case, name)
        works[name] = Work(partial(trainer.step, *batch), partial(trainer.answer, *batch))
    return works


def _epoch(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    x, labels, batch = inputs["x"], inputs["labels"], case.options["batch"]
    loader = nm.data.Loader((x, labels), batch)
    works: dict[str, Work | str] = {}
    for name in _variants(model_of(case)):
        trainer = Trainer(case, name)

        def epoch(step: Any = trainer.step) -> None:
            for images, targets in loader:
                step(images, targets)

        works[f"Loader, {name}"] = Work(epoch, partial(trainer.answer, x[:batch], labels[:batch]))
    return works


def _infer(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    model, x = model_of(case).eval(), inputs["x"]

    def run() -> Any:
        with nm.no_grad():
            return model(x)

    compiled = nm.compile(nm.no_grad()(model.forward))  # in eval no dropout is drawn

    def replayed() -> dict[str, np.ndarray]:
        for _ in range(2):
            compiled(x)
        return {"scores": compiled(x).numpy()}

    return {"tape": Work(run, lambda: {"scores": run().numpy()}), "compile": Work(partial(compiled, x), replayed)}


def _overhead(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    t = nm.tensor(inputs["t"], requires_grad=True)
    start = nm.tensor(inputs["t"], requires_grad=True)
    one = np.ones_like(inputs["t"])
    chain = range(case.options["chain"])
    steps = {
        "t * c": lambda y: y * 0.999,
        "t + t": lambda y: y + t,
        "tanh": nm.tanh,
    }
    apply = steps[case.options["operation"]]

    def run() -> None:
        start.grad = t.grad = None
        y = start
        for _ in chain:
            y = apply(y)
        y.backward(one)

    def answer() -> dict[str, np.ndarray]:
        run()
        return {"gradient": start.grad.numpy()}

    return {"": Work(run, answer)}


KINDS = {
    "gemm": _gemm,
    "conv2d": _conv2d,
    "activation": _activation,
    "pool": _pool,
    "cross_entropy": _cross_entropy,
    "lrn": _lrn,
    "sgd": _sgd,
    "train": _train,
    "infer": _infer,
    "epoch": _epoch,
    "overhead": _overhead,
}
