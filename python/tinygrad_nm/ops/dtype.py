"""Changing the dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import backend
from ..autodiff import record
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
    """x on a device (a name such as "cpu") or in a dtype; x itself where nothing changes."""
    if isinstance(target, str) and not _is_dtype(target):
        backend.check_device(target)
        return x
    return x if x.dtype == np.dtype(target) else astype(x, target)


def _is_dtype(name: str) -> bool:
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True
