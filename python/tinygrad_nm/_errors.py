"""The exceptions that operations raise; each is also the built-in exception a caller would expect."""


class ShapeError(ValueError):
    """Shapes, axes or sizes that do not fit together."""


class DtypeError(TypeError):
    """A dtype that an operation does not take, or two that must not be mixed."""


class GradientError(RuntimeError):
    """A derivative that cannot be had: a freed graph, a changed saved tensor, a write into the graph."""


class AnomalyError(ArithmeticError):
    """The first NaN or Inf found under `detect_anomaly()`."""


class DeviceError(ValueError):
    """A device that cannot be had, or two that meet in one operation."""
