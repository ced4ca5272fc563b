"""The tape: Tensor, record, backward. It knows no operation.

An operation computes an array and calls `record(rule, array, inputs, saved)`. A rule is a module-level function

    rule(dy, needs, out, saved) -> one gradient (or None) for each input

written once for both kinds of sweep: in a first-order sweep dy, out and saved are plain arrays and nothing is
recorded; under `create_graph` they are Tensors, so that the rule itself lands on the tape and has derivatives.

Everything here is iterative, so that a chain of 100,000 operations works. `tensor.py` holds the two objects.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import backend
from ._errors import AnomalyError, DtypeError, GradientError, ShapeError
from .tensor import Node, Tensor, state, value


def record(
    rule: Callable[..., Any],
    data: Any,
    inputs: Sequence[Any],
    saved: tuple[Any, ...] = (),
    save_out: bool = False,
    view_of: Any = None,
) -> Any:
    """`data` as the result of an operation on `inputs`, whose derivative is `rule`.

    saved: what the rule needs besides dy (Tensors keep their history for second derivatives). save_out: the rule
    also needs the result. view_of: the input whose memory `data` may share. Gives a Tensor; within a first-order
    rule, where all inputs are plain arrays, the array itself.
    """
    if type(data) not in backend.DEVICES:
        data = np.asarray(data)
    if state.anomaly and not state.sweeping:
        _check_finite(data, rule.__name__.removesuffix("_rule"), "forward", layer_path())
    nodes = tuple([x.node if isinstance(x, Tensor) else None for x in inputs])
    if state.in_rule and not any(isinstance(x, Tensor) for x in inputs):
        return data
    out = Tensor(data)
    if isinstance(view_of, Tensor) and data.base is not None:
        out.version = view_of.version
    if state.recording and backend.is_float(data) and any(node is not None for node in nodes):
        out.node = Node(rule, nodes, saved, Tensor(data, version=out.version) if save_out else None)
        if state.anomaly:
            out.node.where = layer_path()
    return out


def alias_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (dy,)


def alias(x: Tensor) -> Tensor:
    """The same value as a variable of its own: derivatives with respect to it stop here, history goes on."""
    if x.node is None or not state.recording:
        return Tensor(x.data, requires_grad=True, version=x.version)
    return record(alias_rule, x.data.view(), (x,), view_of=x)


def pull_back(definition: Callable[..., Tensor], inputs: Sequence[Any], dy: Tensor, needs: Sequence[bool]) -> tuple:
    """The gradients of a fused operation, on the tape, from its definition in plain differentiable operations."""
    variables = [alias(x) if need else x for x, need in zip(inputs, needs)]
    targets = [v for v, need in zip(variables, needs) if need]
    found = iter(grad(definition(*variables), targets, dy, create_graph=True))
    return tuple(next(found) if need else None for need in needs)


def grad(
    outputs: Any, inputs: Any, grad_outputs: Any = None, create_graph: bool = False, retain_graph: bool | None = None
) -> tuple[Tensor, ...]:
    """The gradients of sum(outputs * grad_outputs) with respect to each of `inputs`, as a tuple; `.grad` is left alone.

    outputs, inputs: a tensor or a sequence of tensors. An input that the outputs do not depend on gets zeros.
    create_graph: the gradients can be differentiated again (the graph is then retained unless told otherwise).
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    seeds = [None] * len(outputs) if grad_outputs is None else grad_outputs
    seeds = [seeds] if isinstance(seeds, (Tensor, np.ndarray)) else list(seeds)
    if len(seeds) != len(outputs):
        raise ShapeError(f"grad: {len(outputs)} outputs but {len(seeds)} grad_outputs; give one for each")
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor) or x.node is None:
            raise GradientError(f"grad: input {i} does not require a gradient; make it with requires_grad=True")
    pairs = [(t, _seed(t, g, "grad")) for t, g in zip(outputs, seeds) if t.node is not None]
    targets = {x.node for x in inputs}
    retain = create_graph if retain_graph is None else retain_graph
    found = _sweep([t for t, _ in pairs], [g for _, g in pairs], targets, create_graph, retain)
    return tuple(_result(found.get(x.node), x) for x in inputs)


def _result(gradient: Any, x: Tensor) -> Tensor:
    if gradient is None:
        return Tensor(backend.xp(x.data).zeros_like(x.data))
    return _own(gradient)


def _own(gradient: Any) -> Tensor:
    """The gradient in memory of its own: a rule may give one array, or a view of it, for several inputs."""
    if isinstance(gradient, Tensor):
        with enable_grad():
            return record(alias_rule, gradient.data.copy(), (gradient,))
    return Tensor(gradient.copy())


def backward(t: Tensor, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
    """`t.backward(...)`: see there."""
    seed = _seed(t, gradient, "backward")
    _sweep([t], [seed], None, create_graph, retain_graph or create_graph)


def _seed(t: Tensor, gradient: Any, operation: str) -> Any:
    """dy of the sweep: `gradient` checked against the tensor, or one."""
    if t.node is None:
        raise GradientError(
            f"{operation}: the tensor does not require a gradient: no input of its operations did, or it was "
            "computed under no_grad(); make an input with requires_grad=True"
        )
    if gradient is None:
        if t.size != 1:
            raise ShapeError(
                f"{operation}: the output has shape {t.shape}, not one value; give the gradient, or sum it"
            )
        return backend.xp(t.data).ones_like(t.data)
    if not isinstance(gradient, (Tensor, *backend.DEVICES)):
        gradient = np.asarray(gradient, dtype=t.dtype)
    if gradient.shape != t.shape:
        raise ShapeError(f"{operation}: the gradient has shape {gradient.shape}, but the output has {t.shape}")
    if gradient.dtype != t.dtype:
        raise DtypeError(f"{operation}: the gradient is {gradient.dtype}, the output {t.dtype}; convert with .astype")
    return gradient


def _reachable(roots: Sequence[Node]) -> list[Node]:
    """All nodes behind the roots, oldest first."""
    seen = set(roots)
    stack = list(seen)
    while stack:
        node = stack.pop()
        if node.saved is None:
            raise GradientError(
                f"backward: the graph of {node.operation} was freed by an earlier backward; pass retain_graph=True to "
                "the first one to keep it"
            )
        for parent in node.inputs:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=_time)


def _time(node: Node) -> int:
    return node.time


def reaches_other_leaves(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> bool:
    """Whether the outputs depend on leaves other than `inputs`: then gradients are functions of those, too."""
    own = {x.node for x in inputs}
    nodes = _reachable([t.node for t in outputs if t.node is not None])
    return any(node.rule is None and node not in own for node in nodes)


@contextlib.contextmanager
def _sweeping(create_graph: bool) -> Iterator[None]:
    before = state.recording, state.in_rule, state.selecting, state.sweeping
    state.recording, state.in_rule, state.selecting, state.sweeping = create_graph, not create_graph, False, True
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            yield
    finally:
        state.recording, state.in_rule, state.selecting, state.sweeping = before


def _sweep(
    outputs: Sequence[Tensor], seeds: Sequence[Any], targets: set | None, create_graph: bool, retain: bool
) -> dict[Node, Any]:
    """Carries gradients from the outputs back to the leaves (targets None) or to the target nodes, which it returns."""
    order = _reachable([t.node for t in outputs if t.node is not None])
    wanted = None if targets is None else _leading_to(targets, order)
    gradients: dict[Node, Any] = {}
    owned: set[Node] = set()  # sums that this sweep allocated itself: the only ones it may add to in place
    found: dict[Node, Any] = {}
    known = (Tensor, *backend.DEVICES)  # rules on 0-d arrays give NumPy scalars
    with _sweeping(create_graph):
        for t, seed in zip(outputs, seeds):
            _add(gradients, owned, t.node, _as(create_graph, seed))
        while order:
            node = order.pop()
            dy = gradients.pop(node, None)
            if targets is not None and node in targets and dy is not None:
                found[node] = dy
            if node.rule is None:
                if targets is None and dy is not None:
                    _accumulate(node.leaf(), dy)
                continue
            if dy is not None and (wanted is None or node in wanted):
                needs = tuple([n is not None and (wanted is None or n in wanted) for n in node.inputs])
                if any(needs):
                    results = _apply(node, dy, needs, create_graph)
                    for parent, need, g in zip(node.inputs, needs, results):
                        if need and g is not None:
                            _add(gradients, owned, parent, g if type(g) in known else np.asarray(g))
            if not retain:
                node.release()
    return found


def _leading_to(targets: set, order: Sequence[Node]) -> set[Node]:
    wanted: set[Node] = set()
    for node in order:
        if node in targets or any(n in wanted for n in node.inputs if n is not None):
            wanted.add(node)
    return wanted


def _as(on_tape: bool, gradient: Any) -> Any:
    if on_tape:
        return gradient if isinstance(gradient, Tensor) else Tensor(gradient)
    return value(gradient)


def _apply(node: Node, dy: Any, needs: tuple[bool, ...], create_graph: bool) -> Any:
    """The rule's gradients, after a check that nothing it saved has been written to since."""
    saved = node.saved
    for s in (*saved, node.out):
        if isinstance(s, Tensor) and s.version[0] > node.time:
            raise GradientError(
                f"backward: a tensor saved by {node.operation}, shape {s.shape}, was changed in place after it was "
                "used; change a copy, or call backward first"
            )
    out = node.out
    if create_graph:
        if out is not None:
            out = Tensor(out.data, version=out.version)
            out.node = node
    else:
        saved = tuple([s.data if isinstance(s, Tensor) else s for s in saved])
        out = value(out)
    results = node.rule(dy, needs, out, saved)
    if state.anomaly:
        for g in results:
            if g is not None:
                _check_finite(value(g), node.operation, "backward", node.where)
    return results


def _add(gradients: dict, owned: set, node: Any, g: Any) -> None:
    before = gradients.get(node)
    if before is None:
        gradients[node] = g
    elif node in owned and not isinstance(before, Tensor):
        before += g
        gradients[node] = before
    else:
        gradients[node] = before + g
        owned.add(node)


def _accumulate(leaf: Tensor | None, g: Any) -> None:
    """Adds to `.grad` of a leaf, in memory of its own: what a rule gave may be shared with other gradients."""
    if leaf is None:
        return
    if isinstance(g, Tensor):
        leaf.grad = _own(g) if leaf.grad is None else leaf.grad + g
    elif leaf.grad is None:
        store = leaf.gradient_buffer
        if store is None:
            store = backend.xp(leaf.data).empty(leaf.shape, leaf.dtype)
        store[...] = g
        leaf.grad = Tensor(store)
    elif leaf.grad.node is not None:
        leaf.grad = Tensor(leaf.grad.data + g)
    else:
        leaf.grad.data += g
        leaf.grad.mark_written()


class _mode(contextlib.ContextDecorator):
    recording: bool

    def __init__(self) -> None:
        self.before: list[bool] = []

    def _recreate_cm(self) -> _mode:
        return type(self)()  # a decorated function may run in several threads at once

    def __enter__(self) -> None:
        self.before.append(state.recording)
        state.recording = self.recording

    def __exit__(self, *exc: Any) -> None:
        state.recording = self.before.pop()


class no_grad(_mode):
    """Within it (a `with` block or a decorated function, this thread only) nothing is recorded."""

    recording = False


class enable_grad(_mode):
    """Within it (this thread only) operations are recorded again, also inside `no_grad()`."""

    recording = True


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Within it the first operation to give NaN or Inf, forward or backward, raises AnomalyError and is named,
    with the layer's path and the optimiser's step. Every result is looked at: for finding a fault, not for speed."""
    before, state.anomaly = state.anomaly, True
    try:
        yield
    finally:
        state.anomaly = before


def _check_finite(data: Any, operation: str, sweep: str, where: str) -> None:
    xp = backend.xp(data) if type(data) in backend.DEVICES else np
    if data.dtype.kind == "f" and not xp.isfinite(data).all():
        kind = "NaN" if xp.isnan(data).any() else "Inf"
        place = f" in {where}" if where else ""
        raise AnomalyError(f"{operation}: {sweep} gave {kind}{place} at step {state.step}, shape {data.shape}")


def layer_path() -> str:
    """The path of the layer being called, as in `LeNet5.conv1`; empty outside of a model."""
    stack = state.layers
    names = [type(module).__name__ for module in stack[:1]]
    for parent, child in itertools.pairwise(stack):
        names.append(next((name for name, m in parent.named_children() if m is child), type(child).__name__))
    return ".".join(names)
