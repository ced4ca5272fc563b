"""Functions that turn a function into its gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from . import autodiff
from ._errors import GradientError, ShapeError
from .modes import thread
from .tensor import Tensor, tensor


def value_and_grad(f: Callable[..., Tensor], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """A function that gives (f(...), its gradient) with respect to the positional argument(s) `argnums`.

    f returns one value (shape () or one element). The gradient is a tensor for an int, a tuple of tensors for a
    tuple; zeros for an argument that f does not use. Calls nest: each call differentiates with respect to
    variables of its own, and the result can be differentiated whenever it depends on anything else that requires a
    gradient.
    """
    several = isinstance(argnums, (tuple, list))
    numbers = tuple(argnums) if isinstance(argnums, (tuple, list)) else (argnums,)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for i in numbers:
            if not -len(args) <= i < len(args):
                raise ShapeError(
                    f"grad: argnums {argnums} names argument {i}, but the call has {len(args)} positional ones"
                )
        with autodiff.enable_grad():
            replaced = list(args)
            for i in numbers:
                x = args[i] if isinstance(args[i], Tensor) else tensor(args[i])
                replaced[i] = autodiff.alias(x)
            variables = [replaced[i] for i in numbers]
            out = f(*replaced, **kwargs)
        if not isinstance(out, Tensor):
            raise GradientError(f"grad: the function returned {type(out).__name__}, not a tensor of one value")
        if out.size != 1:
            raise ShapeError(f"grad: the function returned shape {out.shape}, not one value; sum it")
        further = thread.modes.recording and out.node is not None and autodiff.reaches_other_leaves([out], variables)
        gradients = autodiff.grad(out, variables, create_graph=further)
        return (out if further else out.detach()), gradients if several else gradients[0]

    return wrapped


def grad(f: Callable[..., Tensor], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """A function that gives the gradient of f with respect to `argnums`: see value_and_grad."""
    both = value_and_grad(f, argnums)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return wrapped
