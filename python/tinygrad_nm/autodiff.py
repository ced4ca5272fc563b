"""The tape: Tensor, record, backward. It knows no operation.

An operation computes an array and calls `record(rule, array, inputs, saved)`. A rule is a module-level function

    rule(dy, needs, out, saved) -> one gradient (or None) for each input

written once for both kinds of sweep: in a first-order sweep dy, out and saved are plain arrays and nothing is
recorded; under `create_graph` they are Tensors, so that the rule itself lands on the tape and has derivatives.

Everything here is iterative, so that a chain of 100,000 operations works. `tensor.py` holds the two objects.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import backend
from ._errors import AnomalyError, DeviceError, DtypeError, GradientError, ShapeError
from .backend import DEVICES
from .modes import Sweeping, detect_anomaly, enable_grad, layer_path, no_grad, thread
from .recording import repeated
from .tensor import Node, Tensor, value

__all__ = ["alias", "backward", "detect_anomaly", "enable_grad", "grad", "no_grad", "place", "pull_back", "record"]


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
    modes = thread.modes
    if type(data) not in DEVICES:
        data = np.asarray(data)
    if not (modes.recording or modes.special):
        return Tensor(data, version=_version(view_of, data))
    nodes: list[Node | None] = []
    needed = False
    for x in inputs:
        node = None
        if isinstance(x, Tensor):
            node = x.node
            if node is not None:
                needed = True
        nodes.append(node)
    if modes.special:
        if modes.in_rule and not any(isinstance(x, Tensor) for x in inputs):
            return data
        if modes.recording_of is not None:
            modes.recording_of.used(inputs)
        if modes.anomaly and not modes.sweeping:
            _check_finite(data, rule.__name__.removesuffix("_rule"), "forward", layer_path())
    out = Tensor(data) if view_of is None else Tensor(data, version=_version(view_of, data))
    if needed and modes.recording and data.dtype.kind == "f":
        node = out.node = Node(rule, nodes, saved)
        if save_out:
            node.out, node.version = data, out.version
        if modes.anomaly:
            node.where = layer_path()
    return out


def _version(view_of: Any, data: Any) -> list[int] | None:
    """The count of writes of the tensor whose memory `data` shares, if it does."""
    return view_of.version if isinstance(view_of, Tensor) and data.base is not None else None


def alias_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (dy,)


def alias(x: Tensor) -> Tensor:
    """The same value as a variable of its own: derivatives with respect to it stop here, history goes on."""
    if x.node is None or not thread.modes.recording:
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
    seeds = [seeds] if isinstance(seeds, (Tensor, np.ndarray)) or type(seeds) in DEVICES else list(seeds)
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
        one = backend.empty(operation, t.data, t.shape)
        repeated(_fill, one, 1)
        return one
    if not isinstance(gradient, Tensor) and type(gradient) not in DEVICES:
        gradient = np.asarray(gradient, dtype=None if isinstance(gradient, np.ndarray) else t.dtype)
    if backend.device_of(value(gradient)) != t.device:
        gradient = _on_device_of(t, gradient, operation)
    if gradient.shape != t.shape:
        raise ShapeError(f"{operation}: the gradient has shape {gradient.shape}, but the output has {t.shape}")
    if gradient.dtype != t.dtype:
        raise DtypeError(f"{operation}: the gradient is {gradient.dtype}, the output {t.dtype}; convert with .astype")
    return gradient


def _on_device_of(t: Tensor, gradient: Any, operation: str) -> Any:
    """A NumPy array is a constant, and brought over."""
    if isinstance(gradient, np.ndarray):
        return backend.put(operation, gradient, t.device)
    there = backend.device_of(value(gradient))
    raise DeviceError(f"{operation}: the gradient is on {there}, the output on {t.device}; use .to({t.device!r})")


def _fill(out: Any, value: float) -> None:
    out.fill(value)


def _reachable(roots: Sequence[Node]) -> list[Node]:
    """All nodes behind the roots, oldest first."""
    seen = set(roots)
    stack = list(seen)
    while stack:
        node = stack.pop()
        if node.saved is None:
            raise _freed(node)
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


def _sweep(
    outputs: Sequence[Tensor], seeds: Sequence[Any], targets: set | None, create_graph: bool, retain: bool
) -> dict[Node, Any]:
    """Carries gradients from the outputs back to the leaves (targets None) or to the target nodes, which it returns.

    The youngest node that has a gradient is next: all that came from it is younger, so its gradient is complete.
    """
    roots = [t.node for t in outputs if t.node is not None]
    wanted = None if targets is None else _leading_to(targets, _reachable(roots))
    waiting: list[tuple[int, Node]] = []  # a heap of those that have a gradient, the youngest first; but of one
    following: Node | None = None  # alone, as in a chain, this is it
    gradients: dict[Node, Any] = {}
    owned: set[Node] = set()  # sums that this sweep allocated itself: the only ones it may add to in place
    found: dict[Node, Any] = {}
    leaves: list[Node] = []
    quiet = np.errstate(divide="ignore", invalid="ignore", over="ignore")
    with Sweeping(create_graph, placing=targets is None) as modes, quiet:
        for root, seed in zip(roots, seeds):
            if root not in gradients:
                heapq.heappush(waiting, (-root.time, root))
            _add(gradients, owned, root, _as(create_graph, seed))
        while waiting or following is not None:
            node, following = following or heapq.heappop(waiting)[1], None
            dy = gradients.pop(node)
            if targets is not None and node in targets:
                found[node] = dy
            if node.rule is None:
                if targets is None:  # an output is itself a leaf
                    leaves.append(node)
                    gradients[node] = dy
                continue
            if node.saved is None:
                raise _freed(node)
            needs = node.inputs  # a node is true, None false, and a leaf may offer a place: see `place`
            if wanted is not None:
                needs = [n if n in wanted else None for n in needs]
            if wanted is None or any(needs):
                results = _on_tape(node, dy, needs) if create_graph else _plain(node, dy, needs)
                if modes.anomaly:
                    _check_gradients(node, results)
                for parent, g in zip(needs, results):
                    if parent is None or g is None:
                        continue
                    if type(g) not in _GRADIENTS:
                        g = _array(g)
                    if parent in gradients:
                        _add(gradients, owned, parent, g)
                        continue
                    gradients[parent] = g
                    if parent.rule is None and targets is None:
                        leaves.append(parent)
                    elif following is None and not waiting:
                        following = parent
                    else:
                        for n in (parent, following) if following is not None else (parent,):
                            heapq.heappush(waiting, (-n.time, n))
                        following = None
            if not retain:
                node.saved = node.out = node.version = None
                node.inputs = ()
        if targets is None:
            for node in leaves:
                _accumulate(node.leaf(), gradients.pop(node))
    return found


_GRADIENTS = {Tensor, *DEVICES}  # of the CPU, asked for first


def _array(gradient: Any) -> Any:
    """A gradient as Tensor or array: arithmetic on 0-d arrays gives NumPy scalars."""
    return gradient if isinstance(gradient, Tensor) or type(gradient) in DEVICES else np.asarray(gradient)


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


def _plain(node: Node, dy: Any, needs: Sequence[Any]) -> Any:
    """The rule's gradients from plain arrays, after a check that nothing it saved has been written to since."""
    saved = node.saved
    for s in saved:
        if isinstance(s, Tensor):
            if s.version[0] > node.time:
                raise _changed(node, s.shape)
            saved = None
    if saved is None:
        saved = [s.data if isinstance(s, Tensor) else s for s in node.saved]
    if node.version is not None and node.version[0] > node.time:
        raise _changed(node, node.out.shape)
    return node.rule(dy, needs, node.out, saved)


def _on_tape(node: Node, dy: Any, needs: Sequence[Any]) -> Any:
    """The same with Tensors, so that the gradients have derivatives themselves."""
    for s in node.saved:
        if isinstance(s, Tensor) and s.version[0] > node.time:
            raise _changed(node, s.shape)
    out = None
    if node.version is not None:
        if node.version[0] > node.time:
            raise _changed(node, node.out.shape)
        out = Tensor(node.out, version=node.version)
        out.node = node
    return node.rule(dy, needs, out, node.saved)


def _freed(node: Node) -> GradientError:
    return GradientError(
        f"backward: the graph of {node.operation} was freed by an earlier backward; pass retain_graph=True to the "
        "first one to keep it"
    )


def _changed(node: Node, shape: tuple[int, ...]) -> GradientError:
    return GradientError(
        f"backward: a tensor saved by {node.operation}, shape {shape}, was changed in place after it was used; change "
        "a copy, or call backward first"
    )


def _check_gradients(node: Node, results: Any) -> None:
    for g in results:
        if g is not None:
            _check_finite(value(g), node.operation, "backward", node.where)


def place(need: Any, operation: str, like: Any, shape: tuple[int, ...] | None = None) -> Any:
    """Memory for the gradient that a first-order rule is asked for by `need`, of the shape of `like` or `shape`.

    That is the buffer which a parameter names for it, where this is the first gradient of it: then nothing is
    copied. None where no gradient is asked for.
    """
    if need is None:
        return None
    shape = like.shape if shape is None else shape
    placed = thread.modes.placed
    if placed is not None and type(need) is Node and need.leaf is not None and need not in placed:
        leaf = need.leaf()
        buffer = None if leaf is None or leaf.grad is not None else leaf.gradient_buffer
        if buffer is not None and buffer.shape == shape and buffer.dtype == like.dtype:
            placed.add(need)
            return buffer
    return backend.empty(operation, like, shape)


def _add(gradients: dict, owned: set, node: Any, g: Any) -> None:
    before = gradients.get(node)
    if before is None:
        gradients[node] = g
    elif node in owned and not isinstance(before, Tensor):
        before += g
    else:
        gradients[node] = _array(before + g)
        owned.add(node)


def _accumulate(leaf: Tensor | None, g: Any) -> None:
    """Adds to `.grad` of a leaf, in memory of its own: what a rule gave may be shared with other gradients."""
    if leaf is None:
        return
    if thread.modes.recording_of is not None:
        thread.modes.recording_of.accumulated(leaf, g)
    if isinstance(g, Tensor):
        leaf.grad = _own(g) if leaf.grad is None else leaf.grad + g
    elif leaf.grad is None:
        store = leaf.gradient_buffer
        if store is None:
            store = backend.xp(leaf.data).empty(leaf.shape, leaf.dtype)
        if store is not g:
            store[...] = g
        leaf.grad = Tensor(store)
    elif leaf.grad.node is not None:
        leaf.grad = Tensor(leaf.grad.data + g)
    else:
        leaf.grad.data += g
        leaf.grad.mark_written()


def _check_finite(data: Any, operation: str, sweep: str, where: str) -> None:
    xp = backend.xp(data) if type(data) in DEVICES else np
    if data.dtype.kind == "f" and not xp.isfinite(data).all():
        kind = "NaN" if xp.isnan(data).any() else "Inf"
        place = f" in {where}" if where else ""
        raise AnomalyError(f"{operation}: {sweep} gave {kind}{place} at step {thread.modes.step}, shape {data.shape}")
