"""Module: anything with parameters, layers or both as attributes. There is nothing to register."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from .. import backend
from .._errors import DtypeError
from ..modes import attributes_set, layer_path, no_grad, thread
from ..recording import repeated
from ..tensor import Tensor

M = TypeVar("M", bound="Module")


class Parameter(Tensor):
    """A leaf tensor of a module that is trained. `data` is copied; lists take the default dtype.

    Raises DtypeError for anything but float32 and float64.
    """

    __slots__ = ("gradient_buffer",)

    def __init__(self, data: Any, dtype: Any = None) -> None:
        if isinstance(data, Tensor):
            data = data.data
        super().__init__(backend.from_data(data, dtype, "Parameter"), requires_grad=True)
        self.gradient_buffer = None

    def replace_(self, data: Any) -> None:
        """Puts the parameter on another array, of any shape or dtype; its gradient is forgotten."""
        self.data = data
        self.grad = self.gradient_buffer = None
        attributes_set[0] += 1
        self.mark_written()

    def __reduce__(self) -> Any:
        return Parameter, (self.data,)

    def __repr__(self) -> str:
        return f"Parameter({super().__repr__()})"


@dataclasses.dataclass(frozen=True)
class Counts:
    """What one call of a layer on one example costs.

    connections: pairs of a unit and one of its inputs, a bias counting as an input of 1. multiply_adds: those
    of convolutions and linear layers, without biases. units: outputs of a layer with weights of its own.
    """

    connections: int = 0
    multiply_adds: int = 0
    units: int = 0


def forget_gradients(parameters: Iterable[Tensor]) -> None:
    """`.grad` becomes None."""
    for p in parameters:
        p.grad = None


class Module:
    """A function of tensors with parameters.

    Subclasses define `forward`. Parameters and modules are found in the attributes, also inside lists and
    tuples (`layers.0`), in the order in which they were set. An error inside `forward` ends with the path of
    the layer it came from: `(in LeNet5.conv1)`.
    """

    training = True
    pools = False  # whether `pooled_by` is worth asking

    def forward(self, *inputs: Any) -> Any:
        """The function itself. Raises NotImplementedError where a subclass has none."""
        raise NotImplementedError(f"{type(self).__name__}: forward is not defined; define it in the subclass")

    def __call__(self, *inputs: Any) -> Any:
        layers = thread.modes.layers
        layers.append(self)
        try:
            return self.forward(*inputs)
        except Exception as error:
            _annotate(error)
            raise
        finally:
            layers.pop()

    def __setattr__(self, name: str, value: Any) -> None:
        if vars(self).get(name, Module) is not value:
            attributes_set[0] += 1  # what was compiled from the old ones no longer holds
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        attributes_set[0] += 1
        super().__delattr__(name)

    def _entries(self) -> Iterator[tuple[str, Any]]:
        """(name, parameter or module) of the attributes."""
        for name, value in vars(self).items():
            if isinstance(value, (Parameter, Module)):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    if isinstance(item, (Parameter, Module)):
                        yield f"{name}.{i}", item

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules directly below, each as often as it is held."""
        return ((name, value) for name, value in self._entries() if isinstance(value, Module))

    def own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of this module's own attributes, without those of modules below."""
        return ((name, value) for name, value in self._entries() if isinstance(value, Parameter))

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """(path, module) of this module (path "") and all below it, each module once, parents first."""
        seen: set[int] = set()
        waiting: list[tuple[str, Module]] = [("", self)]
        while waiting:
            path, module = waiting.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            prefix = f"{path}." if path else ""
            waiting.extend(reversed([(prefix + name, child) for name, child in module.named_children()]))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), each parameter once: a tied one under the first of its paths."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, parameter in module.own_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{path}.{name}" if path else name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def train(self: M, mode: bool = True) -> M:
        """Training mode (dropout acts) for this module and all below it; returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Evaluation mode: dropout is the identity; returns the module."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forgets all gradients: `.grad` becomes None."""
        repeated(forget_gradients, list(self.parameters()), written=())

    def to(self: M, target: Any) -> M:
        """Moves all parameters to a dtype or device, in place, and forgets their gradients; returns the module.

        Parameters that were views of one flat buffer (FlatParameters) are so again. An optimiser built before holds the
        old storage: build it afterwards. Raises DtypeError, nothing moved, for a dtype other than float32 and float64,
        DeviceError for a device that cannot be had.
        """
        from .flat import FlatParameters  # which imports this module

        if not backend.is_float(Tensor(np.zeros(0, np.float32)).to(target).data):
            raise DtypeError(f"Module.to: parameters are float32 or float64, not {target}")
        flat = []
        for parameter in self.parameters():
            moved = parameter.detach().to(target).data
            if moved is not parameter.data:
                if parameter.gradient_buffer is not None:
                    flat.append(parameter)
                parameter.replace_(moved)
        FlatParameters(flat)
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters by path, as NumPy arrays; a tied one under the first of its paths."""
        return {name: np.array(parameter.detach().numpy(), order="C") for name, parameter in self.named_parameters()}

    def load_state_dict(self, arrays: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Names, shapes and dtypes must all fit; otherwise ValueError lists everything that does not, and
        nothing has changed.
        """
        parameters = dict(self.named_parameters())
        values = {
            name: backend.host(value.data if isinstance(value, Tensor) else value) for name, value in arrays.items()
        }
        faults = [f"{name} is missing" for name in parameters if name not in values]
        faults += [f"{name} is unexpected" for name in values if name not in parameters]
        for name in parameters.keys() & values.keys():
            parameter, value = parameters[name], values[name]
            if parameter.shape != value.shape:
                faults.append(f"{name} has shape {value.shape} but the model's is {parameter.shape}")
            if parameter.dtype != value.dtype.newbyteorder("="):
                faults.append(f"{name} is {value.dtype} but the model's is {parameter.dtype} (see Module.to)")
        if faults:
            raise ValueError(f"load_state_dict: {type(self).__name__} cannot take these: {'; '.join(sorted(faults))}")
        with no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(values[name])

    def pooled_by(self, following: Module) -> Any:
        """The windows of the next layer, where this one's `forward(x, windows)` stands for both and is faster.

        Asked only where `pools` is True.
        """
        return None

    def counts(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> Counts:
        """What one example costs, from shapes without the batch; nothing, unless the layer has weights."""
        return Counts()

    def extra_repr(self) -> str:
        """The arguments shown between the brackets of a layer's representation."""
        return ""

    def __repr__(self) -> str:
        children = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        inside = self.extra_repr() if not children else "\n" + "\n".join(children) + "\n"
        return f"{type(self).__name__}({inside})"


class Sequential(Module):
    """Layers one after another: `Sequential(a, b)` (named 0, 1) or `Sequential(conv1=a, fc=b)`.

    A layer may be replaced by setting its attribute. Raises TypeError for a layer that is no Module,
    ValueError for a name that a module already uses.
    """

    def __init__(self, *layers: Module, **named: Module) -> None:
        entries = {str(i): layer for i, layer in enumerate(layers)} | named
        for name, layer in entries.items():
            if not isinstance(layer, Module):
                raise TypeError(
                    f"Sequential: layer {name} is {layer!r}, not a Module; activations are layers too, as nn.Tanh()"
                )
            if hasattr(type(self), name):
                raise ValueError(f"Sequential: {name!r} is a name that modules use themselves; choose another")
            setattr(self, name, layer)
        self._order = tuple(entries)

    def forward(self, x: Any) -> Any:
        """x through all layers in turn."""
        attributes = vars(self)
        waiting = [attributes[name] for name in reversed(self._order)]
        while waiting:
            layer = waiting.pop()
            windows = layer.pooled_by(waiting[-1]) if layer.pools and waiting else None
            if windows is None:
                x = layer(x)
            else:
                x = layer(x, windows)
                waiting.pop()
        return x

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Module]:
        return (getattr(self, name) for name in self._order)

    def __getitem__(self, index: int) -> Module:
        layer: Module = getattr(self, self._order[index])
        return layer


def _annotate(error: Exception) -> None:
    """Adds the layer's path to an error's message, once, in the innermost layer."""
    if not hasattr(error, "layer_path") and error.args and isinstance(error.args[0], str):
        error.layer_path = layer_path()  # type: ignore[attr-defined]
        error.args = (f"{error.args[0]} (in {layer_path()})", *error.args[1:])
