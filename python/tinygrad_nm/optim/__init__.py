"""Optimisers and step-size schedules."""

from .schedules import Constant, Cosine, InverseTime, Schedule, Step
from .sgd import SGD

__all__ = ["SGD", "Constant", "Cosine", "InverseTime", "Schedule", "Step"]
