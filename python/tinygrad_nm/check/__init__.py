"""Checks of derivatives, in float64: Taylor tests, adjoint tests, and both for every argument of a function or model.

    >>> import tinygrad_nm as nm
    >>> print(nm.check.taylor(nm.tanh, [0.3, -0.7]))            # doctest: +SKIP
    >>> nm.check.assert_derivatives(nm.matmul, a, b)            # doctest: +SKIP

The rules are those of the course module "Numerical Methods for Deep Learning" (Ruthotto, Haber), made strict: see
`taylor` and `adjoint`.
"""

from ._adjoint import AdjointReport, ArgumentAdjoint, adjoint
from ._derivatives import DerivativesReport, assert_derivatives, derivatives
from ._taylor import TaylorReport, taylor

__all__ = [
    "AdjointReport",
    "ArgumentAdjoint",
    "DerivativesReport",
    "TaylorReport",
    "adjoint",
    "assert_derivatives",
    "derivatives",
    "taylor",
]
