"""Stochastic gradient descent, with momentum in both of its forms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .. import backend
from .._errors import DeviceError, DtypeError
from ..modes import thread, unrepeatable
from ..nn.flat import FlatGroup, FlatParameters
from ..nn.module import Parameter, forget_gradients
from ..recording import repeated
from ..tensor import Tensor


class SGD:
    """Stochastic gradient descent over parameters w with gradients g.

    With d = g + weight_decay w and velocity v = 0 at first:

        PyTorch's (the default):       v <- momentum v + d;     w <- w - lr v
            nesterov:                                           w <- w - lr (d + momentum v)
        AlexNet's (lr_in_velocity):    v <- momentum v + lr d;  w <- w - v
            nesterov:                                           w <- w - (momentum v + lr d)

    They agree for a constant lr. When lr drops, the second still carries steps of the old size. A parameter
    without a gradient is left as it is, and so is its velocity. Parameters become views of one flat buffer
    (FlatParameters), so that one kernel call updates all of them. `lr` may be set at any time; see the
    schedules.

    params: the parameters, each once; other leaf tensors that require a gradient are taken too.
    Raises ValueError for an empty or repeated list, for tensors that are no such leaves and for numbers out of range,
    TypeError for anything but tensors.
    Sources: Krizhevsky, Sutskever, Hinton (2012), section 5; Sutskever et al. (2013) for Nesterov's form.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        *,
        lr_in_velocity: bool = False,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.momentum = _non_negative("momentum", momentum)
        self.weight_decay = _non_negative("weight_decay", weight_decay)
        self.lr_in_velocity = bool(lr_in_velocity)
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov=True needs a momentum above 0")
        self.lr = lr
        self.params = _checked(params)
        self._flat = FlatParameters([p for p in self.params if isinstance(p, Parameter)])
        self._velocity: dict[int, Any] = {}  # id of a parameter -> its 1-D velocity, a part of the group's
        self._group_velocity: list[Any] = [None] * len(self._flat.groups)

    def __setattr__(self, name: str, value: Any) -> None:
        unrepeatable(f"SGD.{name.lstrip('_')} is set")
        super().__setattr__(name, value)

    @property
    def lr(self) -> float:
        """The step size. Setting it raises ValueError for a negative or infinite one."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = _non_negative("lr", value)

    def zero_grad(self) -> None:
        """Forgets all gradients: `.grad` becomes None."""
        repeated(forget_gradients, self.params, written=())

    def step(self) -> None:
        """One update of every parameter that has a gradient. Raises DtypeError or DeviceError after Module.to."""
        whole = [group.is_whole() for group in self._flat.groups]
        loose = [p for p in self.params if not isinstance(p, Parameter)]
        if all(whole) and not loose:
            repeated(self._step_groups, whole, written=())  # lr and velocities are those of the replay
            return
        unrepeatable("the optimiser takes parameters one by one, as some have no gradient")
        self._step_groups(whole)
        self._step_each(loose, None)

    def _step_groups(self, whole: list[bool]) -> None:
        if self.momentum and not self._velocity:
            self._make_velocities()
        for group, velocity, at_once in zip(self._flat.groups, self._group_velocity, whole, strict=True):
            if at_once:
                self._kernel(group.data, group.gradient, velocity)
                group.mark_written()
            else:
                self._step_each(group.parameters, group)
        thread.modes.step += 1

    def _step_each(self, parameters: list[Any], group: FlatGroup | None) -> None:
        for p in parameters:
            if p.grad is None:
                continue
            if group is not None:
                _check_kind(p, group.data)
            weight = p.data.reshape(-1)  # a copy where the memory is not contiguous
            self._kernel(weight, p.grad.data.reshape(-1), self._velocity.get(id(p)))
            if not p.data.flags.c_contiguous:
                p.data[...] = weight.reshape(p.shape)
            p.mark_written()

    def _kernel(self, weight: Any, gradient: Any, velocity: Any) -> None:
        backend.kernels(weight).sgd_update(
            weight,
            gradient,
            velocity,
            self.lr,
            self.momentum,
            self.weight_decay,
            self.nesterov,
            self.lr_in_velocity,
        )

    def _make_velocities(self) -> None:
        for i, group in enumerate(self._flat.groups):
            flat = self._group_velocity[i] = backend.xp(group.data).zeros_like(group.data)
            self._velocity |= {id(p): flat[part] for p, part in zip(group.parameters, group.slices, strict=True)}
        for p in self.params:
            if id(p) not in self._velocity:
                self._velocity[id(p)] = backend.xp(p.data).zeros(p.size, p.dtype)

    def _numbers(self) -> dict[str, Any]:
        names = ("lr", "momentum", "weight_decay", "nesterov", "lr_in_velocity")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """The numbers, and under "velocity" a copy of each parameter's, in order (empty before any)."""
        each = [np.array(backend.host(self._velocity[id(p)])) for p in self.params] if self._velocity else []
        velocity = [v.reshape(p.shape) for v, p in zip(each, self.params, strict=False)]
        return self._numbers() | {"velocity": velocity}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave. Raises ValueError, nothing changed, where it does not fit."""
        numbers = self._numbers()
        faults = [f"{name} is missing" for name in (*numbers, "velocity") if name not in saved]
        faults += [f"{name} is unexpected" for name in saved if name not in numbers and name != "velocity"]
        velocity = saved.get("velocity", [])
        if velocity and len(velocity) != len(self.params):
            faults.append(f"there are {len(velocity)} velocities for {len(self.params)} parameters")
        for i, (p, v) in enumerate(zip(self.params, velocity, strict=False)):
            if p.shape != np.shape(v):
                faults.append(f"velocity {i} has shape {np.shape(v)}, its parameter {p.shape}")
        if faults:
            raise ValueError(f"SGD.load_state_dict: {'; '.join(faults)}")
        checked = {name: _non_negative(name, saved[name]) for name in ("lr", "momentum", "weight_decay")}
        for name in numbers:
            setattr(self, name, checked.get(name, saved[name]))
        self._velocity = {}
        if velocity:
            self._make_velocities()
        for p, v in zip(self.params, velocity, strict=False):
            flat = self._velocity[id(p)]
            backend.transfer(flat, np.reshape(v, -1).astype(flat.dtype, copy=False))

    def __getstate__(self) -> dict[str, Any]:
        return {"params": self.params, "saved": self.state_dict()}

    def __setstate__(self, copied: dict[str, Any]) -> None:
        """A copy (with its model, in one deepcopy) steps the copied parameters, in a flat buffer of their own."""
        for name, number in copied["saved"].items():
            if name != "velocity":
                setattr(self, name, number)
        self.params = copied["params"]
        self._flat = FlatParameters([p for p in self.params if isinstance(p, Parameter)])
        self._velocity = {}
        self._group_velocity = [None] * len(self._flat.groups)
        self.load_state_dict(copied["saved"])

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={number}" for name, number in self._numbers().items() if number)
        return f"SGD({len(self.params)} parameters, {numbers})"


def _check_kind(p: Tensor, built: Any) -> None:
    """Whether a parameter still has the dtype and the device of the buffer that was built for it."""
    for error, then, now in (
        (DtypeError, built.dtype, p.dtype),
        (DeviceError, f"on {backend.device_of(built)}", f"on {p.device}"),
    ):
        if then != now:
            raise error(
                f"SGD: a parameter of shape {p.shape} was {then} when the optimiser was built and is {now} now; "
                "build the optimiser after Module.to"
            )


def _non_negative(name: str, value: float) -> float:
    value = float(value)
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"SGD: {name} is {value}; it must be a finite number of at least 0")
    return value


def _checked(params: Iterable[Tensor]) -> list[Tensor]:
    """The parameters as a list of distinct leaves that require a gradient."""
    if isinstance(params, Tensor):
        raise TypeError("SGD: params is one tensor; give a list of them")
    found = list(params)
    if not found:
        raise ValueError("SGD: there are no parameters; was the generator model.parameters() used up already?")
    seen: set[int] = set()
    for i, p in enumerate(found):
        if not isinstance(p, Tensor):
            raise TypeError(f"SGD: parameter {i} is a {type(p).__name__}, not a tensor; give model.parameters()")
        if not (p.is_leaf and p.requires_grad):
            raise ValueError(f"SGD: parameter {i}, shape {p.shape}, is not a leaf that requires a gradient")
        if id(p) in seen:
            raise ValueError(f"SGD: parameter {i}, shape {p.shape}, is given twice")
        seen.add(id(p))
    return found
