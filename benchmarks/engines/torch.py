"""PyTorch: oneDNN and MKL. Memory formats, one or all threads and torch.compile are variants; the fastest counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from engines import Unsupported, Work
from networks import LEARNING_RATE, MOMENTUM, NETWORKS, Conv, Drop, Flatten, Linear, Norm, Pool
from workloads import LRN_NUMBERS, SGD_NUMBERS, Case

NAME = "torch"
SMALL = 16  # examples: up to here one thread may be faster than several
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ACTIVATIONS = {None: lambda x: x, "tanh": torch.tanh, "relu": torch.relu}
Works = dict[str, Work | str]
_threads = 1
DEVICE = "cpu"  # engines/torch_cuda.py sets another


def start(threads: int) -> str:
    """Sets the number of threads; the version."""
    global _threads
    _threads = threads
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    return f"torch {torch.__version__}"


def prepare(case: Case, inputs: dict[str, np.ndarray]) -> Works:
    """All variants of the work."""
    if case.kind not in KINDS:
        raise Unsupported(f"torch: no {case.kind}")
    return KINDS[case.kind](case, {n: torch.from_numpy(a).to(DEVICE) for n, a in inputs.items()})


def _one(run: Callable[[], Any], **results: torch.Tensor) -> Work:
    """A call that writes into these tensors."""

    def answer() -> dict[str, np.ndarray]:
        run()
        return {name: tensor.cpu().numpy() for name, tensor in results.items()}

    return Work(run, answer)


def _gives(run: Callable[[], Any], *names: str) -> Work:
    """A call that returns one tensor for each name (or a tensor alone)."""

    def answer() -> dict[str, np.ndarray]:
        results = run()
        results = (results,) if isinstance(results, torch.Tensor) else results
        return {name: r.detach().contiguous().cpu().numpy() for name, r in zip(names, results, strict=True)}

    return Work(run, answer)


def _gemm(case: Case, inputs: Any) -> Works:
    a, b = (inputs[name].T if name in case.options["turned"] else inputs[name] for name in "ab")
    out = torch.empty((case.options["m"], case.options["n"]), dtype=a.dtype, device=DEVICE)
    return {"out=": _one(lambda: torch.mm(a, b, out=out), c=out)}


def _conv2d(case: Case, inputs: Any) -> Works:
    layer, sweep = Conv(*case.options["layer"]), case.options["sweep"]
    pair = [layer.stride] * 2, [layer.padding] * 2, [1, 1]
    masks = {"backward_input": (True, False), "backward_weight": (False, True), "backward": (True, True)}
    works: Works = {}
    for name, form in FORMATS.items():
        x, w, dy = (inputs[key].to(memory_format=form) for key in ("x", "w", "dy"))
        if sweep == "forward":

            def forward(x: Any = x, w: Any = w) -> Any:
                with torch.inference_mode():
                    return F.conv2d(x, w, None, *pair, layer.groups)

            works[name] = _gives(forward, "y")
            continue
        mask = masks[sweep]

        def backward(x: Any = x, w: Any = w, dy: Any = dy, mask: Any = mask) -> Any:
            found = torch.ops.aten.convolution_backward(
                dy, x, w, None, *pair, False, [0, 0], layer.groups, (*mask, False)
            )
            return tuple(g for g, wanted in zip(found, mask) if wanted)

        works[name] = _gives(backward, *(g for g, wanted in zip(("dx", "dw"), mask) if wanted))
    return works


def _activation(case: Case, inputs: Any) -> Works:
    x, dy, aten = inputs["x"], inputs["dy"], torch.ops.aten
    out, function = torch.empty_like(x), case.options["function"]
    if case.options["sweep"] == "forward":
        plain = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[function]
        into = {
            "relu": lambda: torch.clamp(x, min=0, out=out),
            "tanh": lambda: torch.tanh(x, out=out),
            "sigmoid": lambda: torch.sigmoid(x, out=out),
        }[function]
        return {"out=": _one(into, y=out), "": _gives(lambda: plain(x), "y")}
    y = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[function](x)
    into = {
        "relu": lambda: aten.threshold_backward.grad_input(dy, y, 0, grad_input=out),
        "tanh": lambda: aten.tanh_backward.grad_input(dy, y, grad_input=out),
        "sigmoid": lambda: aten.sigmoid_backward.grad_input(dy, y, grad_input=out),
    }[function]
    return {"out=": _one(into, dx=out)}


def _pool(case: Case, inputs: Any) -> Works:
    aten, works = torch.ops.aten, {}
    kernel, stride = [case.options["kernel"]] * 2, [case.options["stride"]] * 2
    maximum, forward = case.options["function"] == "max", case.options["sweep"] == "forward"
    for name, form in FORMATS.items():
        x, dy = (inputs[key].contiguous(memory_format=form) for key in ("x", "dy"))
        y, dx = torch.empty_like(dy), torch.empty_like(x)
        places = torch.empty_like(dy, dtype=torch.int64)
        if maximum:
            aten.max_pool2d_with_indices.out(x, kernel, stride, out=y, indices=places)

        def run(x: Any = x, dy: Any = dy, y: Any = y, dx: Any = dx, places: Any = places) -> None:
            pads = [0, 0]
            if maximum and forward:
                aten.max_pool2d_with_indices.out(x, kernel, stride, out=y, indices=places)
            elif maximum:
                aten.max_pool2d_with_indices_backward.grad_input(
                    dy, x, kernel, stride, pads, [1, 1], False, places, grad_input=dx
                )
            elif forward:
                aten.avg_pool2d.out(x, kernel, stride, out=y)
            else:
                aten.avg_pool2d_backward.grad_input(dy, x, kernel, stride, pads, False, True, None, grad_input=dx)

        works[f"{name} out="] = _one(run, **({"y": y} if forward else {"dx": dx}))
    return works


def _cross_entropy(case: Case, inputs: Any) -> Works:
    x, labels = inputs["x"], inputs["labels"]
    if case.options["sweep"] == "forward":
        return {"": _gives(lambda: F.cross_entropy(x, labels, reduction="none"), "loss")}
    x.requires_grad_()
    loss, ones = F.cross_entropy(x, labels, reduction="none"), x.new_ones(len(labels))
    return {"": _gives(lambda: torch.autograd.grad(loss, x, ones, retain_graph=True), "dx")}


def _lrn(case: Case, inputs: Any) -> Works:
    works = {}
    for name, form in FORMATS.items():
        x, dy = (inputs[key].contiguous(memory_format=form) for key in ("x", "dy"))
        if case.options["sweep"] == "forward":
            works[name] = _gives(lambda x=x: F.local_response_norm(x, **LRN_NUMBERS), "y")
            continue
        x = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = F.local_response_norm(x, **LRN_NUMBERS)
        works[name] = _gives(lambda x=x, y=y, dy=dy: torch.autograd.grad(y, x, dy, retain_graph=True), "dx")
    return works


def _sgd(case: Case, inputs: Any) -> Works:
    works = {}
    for name in ("fused", "foreach"):
        w = inputs["w"].clone().requires_grad_()
        w.grad = inputs["g"]
        optimizer = torch.optim.SGD([w], **SGD_NUMBERS, **{name: True})
        works[name] = _one(optimizer.step, w=w.detach())
    return works


class Net(torch.nn.Module):
    """A network of networks.py, with the weights that every engine starts from."""

    def __init__(self, name: str, dtype: str) -> None:
        super().__init__()
        self.layers = NETWORKS[name].layers
        self.drops = any(isinstance(layer, Drop) for layer in self.layers)
        for path, array in NETWORKS[name].weights(dtype).items():
            layer, kind = path.split(".")
            if not hasattr(self, layer):
                self.add_module(layer, torch.nn.Module())
            getattr(self, layer).register_parameter(kind, torch.nn.Parameter(torch.from_numpy(array)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores."""
        for layer in self.layers:
            x = self._layer(layer, x)
        return x

    def _layer(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        if isinstance(layer, (Conv, Linear)):
            own = getattr(self, layer.name)
            if isinstance(layer, Conv):
                x = F.conv2d(x, own.weight, own.bias, layer.stride, layer.padding, 1, layer.groups)
            else:
                x = F.linear(x, own.weight, own.bias)
            return ACTIVATIONS[layer.activation](x)
        if isinstance(layer, Pool):
            return (F.avg_pool2d if layer.kind == "avg" else F.max_pool2d)(x, layer.kernel, layer.stride)
        if isinstance(layer, Norm):  # torch divides alpha by the size; a group of channels is an image of its own
            n, c, h, w = x.shape
            groups = x.reshape(n * layer.groups, c // layer.groups, h, w)
            y = F.local_response_norm(groups, layer.size, layer.alpha * layer.size, layer.beta, layer.k)
            return y.reshape(n, c, h, w)
        if isinstance(layer, Drop):
            return F.dropout(x, layer.p, self.training)
        assert isinstance(layer, Flatten), layer
        return x.flatten(1)


def _variants(case: Case) -> dict[str, tuple[Any, int, bool]]:
    """(memory format, threads, compiled) by name."""
    found = {name: (form, _threads, False) for name, form in FORMATS.items()}
    if case.options["model"] != "alexnet":
        if _threads > 1 and case.options["batch"] <= SMALL:
            found["contiguous, 1 thread"] = (torch.contiguous_format, 1, False)
        found["compile"] = (torch.contiguous_format, _threads, True)
    return found if case.variant is None else {case.variant: found[case.variant]}


def _compiled(function: Any) -> Any:
    """torch.compile of it, for these shapes alone."""
    return torch.compile(function, dynamic=False)


def _trainer(case: Case, form: Any, compiled: bool) -> tuple[Any, Any]:
    """(model, step(x, labels) -> loss)."""
    model = Net(case.options["model"], case.dtype).to(DEVICE, memory_format=form)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)

    def loss_of(x: Any, labels: Any) -> Any:
        return F.cross_entropy(model(x), labels)

    loss_of = _compiled(loss_of) if compiled else loss_of

    def step(x: Any, labels: Any) -> Any:
        loss = loss_of(x, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def _after_a_step(model: Any, step: Any, x: Any, labels: Any) -> dict[str, np.ndarray]:
    """Loss, gradients and weights of one step without dropout."""
    if model.drops:  # else the modes are the same, and torch.compile would compile for each
        model.eval()
    found = {"loss": step(x, labels).detach().cpu().numpy()}
    model.train()
    for name, parameter in model.named_parameters():
        found[f"gradient {name}"] = parameter.grad.contiguous().cpu().numpy()
        found[f"weight {name}"] = parameter.detach().contiguous().cpu().numpy()
    return found


def _tried(works: Works, name: str, make: Callable[[], Work]) -> None:
    """Adds the work, or the reason why it cannot be: a compiler may be missing."""
    try:
        works[name] = make()
    except Exception as error:
        if name != "compile":
            raise
        works[name] = f"torch.compile failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _train(case: Case, inputs: Any) -> Works:
    works: Works = {}
    labels = inputs["labels"]
    for name, (form, threads, compiled) in _variants(case).items():
        x = inputs["x"].contiguous(memory_format=form)

        def make(form: Any = form, threads: int = threads, compiled: bool = compiled, x: Any = x) -> Work:
            model, step = _trainer(case, form, compiled)
            found = _after_a_step(model, step, x, labels) if compiled else None  # here a compiler would fail
            return Work(
                lambda: step(x, labels),
                lambda: _after_a_step(model, step, x, labels) if found is None else found,
                lambda: torch.set_num_threads(threads),
            )

        _tried(works, name, make)
    return works


def _epoch(case: Case, inputs: Any) -> Works:
    x, labels, batch = inputs["x"], inputs["labels"], case.options["batch"]
    works: Works = {}
    for name in ("DataLoader", "whole-tensor indexing"):
        model, step = _trainer(case, torch.contiguous_format, False)
        images = torch.utils.data.TensorDataset(x, labels)
        loader = torch.utils.data.DataLoader(images, batch, shuffle=True)

        def with_loader(step: Any = step, loader: Any = loader) -> None:
            for a, b in loader:
                step(a, b)

        def with_indexing(step: Any = step) -> None:
            for chosen in torch.randperm(len(x)).split(batch):
                step(x[chosen], labels[chosen])

        run = with_loader if name == "DataLoader" else with_indexing
        works[name] = Work(run, lambda m=model, s=step: _after_a_step(m, s, x[:batch], labels[:batch]))
    return works


def _infer(case: Case, inputs: Any) -> Works:
    works: Works = {}
    for name, (form, threads, compiled) in _variants(case).items():
        x = inputs["x"].contiguous(memory_format=form)

        def make(form: Any = form, threads: int = threads, compiled: bool = compiled, x: Any = x) -> Work:
            model = Net(case.options["model"], case.dtype).to(DEVICE, memory_format=form).eval()
            call = _compiled(model) if compiled else model

            def run() -> Any:
                with torch.inference_mode():
                    return call(x)

            if compiled:
                run()  # here a compiler would fail
            return _gives(run, "scores")._replace(enter=lambda: torch.set_num_threads(threads))

        _tried(works, name, make)
    return works


def _overhead(case: Case, inputs: Any) -> Works:
    t, start = (inputs["t"].clone().requires_grad_() for _ in range(2))
    one, chain = torch.ones_like(inputs["t"]), range(case.options["chain"])
    steps = {"t * c": lambda y: y * 0.999, "t + t": lambda y: y + t, "tanh": torch.tanh}
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
