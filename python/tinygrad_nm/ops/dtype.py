"""Changing the dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backend
from ..autodiff import record
from ..recording import repeated
from ..tensor import Tensor
from .operands import array


def astype(x: Any, dtype: Any) -> Any:
    """x in another dtype (float32, float64, an integer type or bool), a copy; gradients flow between floats."""
    data = array("astype", x)
    converted = backend.native(np.empty(0, dtype), "astype").dtype
    return record(astype_rule, data.astype(converted), (x,), (data.dtype,))


def astype_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (astype(dy, saved[0]),)


def to(x: Tensor, target: Any) -> Tensor:
    """x on a device (a name such as "cpu") or in a dtype; x itself where nothing changes. Gradients flow back."""
    if isinstance(target, str) and not _is_dtype(target):
        return x if backend.is_on(x.data, target) else move(x, target)
    return x if x.dtype == np.dtype(target) else astype(x, target)


def move(x: Any, name: str) -> Any:
    """A copy of x on the device of that name."""
    data = array("to", x)
    out = backend.empty_on("to", name, data.shape, data.dtype)
    repeated(backend.transfer, out, data)
    return record(move_rule, out, (x,), (backend.device_of(data),))


def move_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (move(dy, saved[0]),)


def _is_dtype(name: str) -> bool:
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True
