"""One flat buffer per dtype for parameters, one for their gradients: one fused update, one vector."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from .. import backend
from ..modes import attributes_set
from ..tensor import clock
from .module import Parameter


class FlatGroup:
    """The parameters of one dtype (and device): `data` and `gradient` are their flat buffers, in order."""

    def __init__(self, parameters: list[Parameter]) -> None:
        self.parameters = parameters
        first = parameters[0].data
        ends = [0]
        for p in parameters:
            ends.append(ends[-1] + p.size)
        self.slices = [slice(start, end) for start, end in itertools.pairwise(ends)]
        xp = backend.xp(first)
        self.data = xp.empty(ends[-1], first.dtype)
        self.gradient = xp.zeros(ends[-1], first.dtype)
        attributes_set[0] += 1  # parameters move: what was compiled no longer holds
        self.views = []
        self.gradient_views = []
        for p, part in zip(parameters, self.slices, strict=True):
            view, gradient = self.data[part].reshape(p.shape), self.gradient[part].reshape(p.shape)
            view[...] = p.data
            # the same values: no write that a graph has to know of
            p.data, p.gradient_buffer = view, gradient
            if p.grad is not None and p.grad.node is None:
                gradient[...] = p.grad.data
                p.grad.data = gradient
            self.views.append(view)
            self.gradient_views.append(gradient)

    def is_whole(self) -> bool:
        """Whether every parameter and its gradient, none missing, still are their parts of the buffers."""
        for p, view, gradient in zip(self.parameters, self.views, self.gradient_views, strict=True):
            grad = p.grad
            if p.data is not view or grad is None or grad.data is not gradient:
                return False
        return True

    def mark_written(self) -> None:
        """Counts a write to every parameter."""
        now = clock()
        for p in self.parameters:
            p.version[0] = now


class FlatParameters:
    """Makes parameters views of one flat buffer per dtype and device, and gives their gradients such a
    buffer.

    `groups`: one FlatGroup for each. Values and existing gradients are kept. A parameter that is made part of
    another FlatParameters later, or changes dtype, leaves: `is_whole` of its group tells. Raises ValueError
    for a parameter given twice.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        by_kind: dict[Any, list[Parameter]] = {}
        seen: set[int] = set()
        for i, p in enumerate(parameters):
            if not isinstance(p, Parameter):
                raise TypeError(f"FlatParameters: item {i} is a {type(p).__name__}, not a Parameter")
            if id(p) in seen:
                raise ValueError(f"FlatParameters: parameter {i}, shape {p.shape}, is given twice")
            seen.add(id(p))
            by_kind.setdefault((p.device, p.dtype), []).append(p)
        self.groups = [FlatGroup(members) for members in by_kind.values()]
