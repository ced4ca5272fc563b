"""Modules: what is found in them, their weights as dictionaries, copies, dtypes, errors with a layer's path."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import nn
from tinygrad_nm.modes import thread


class Tied(nn.Module):
    """Two layers of one weight, and a list of layers."""

    def __init__(self) -> None:
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.rest = [nn.Linear(3, 2), nn.Tanh()]
        self.scale = nn.Parameter([2.0])

    def forward(self, x):
        x = self.second(self.first(x))
        for layer in self.rest:
            x = layer(x)
        return x * self.scale


TIED_NAMES = ["scale", "first.weight", "first.bias", "second.bias", "rest.0.weight", "rest.0.bias"]


def test_parameters_are_found_once_in_attributes_and_lists():
    model = Tied()
    assert [name for name, _ in model.named_parameters()] == TIED_NAMES
    assert sum(p.size for p in model.parameters()) == 1 + 9 + 3 + 3 + 6 + 2
    assert [name for name, _ in model.named_modules()] == ["", "first", "second", "rest.0", "rest.1"]
    assert [name for name, _ in model.named_children()] == ["first", "second", "rest.0", "rest.1"]


def test_one_layer_held_twice_is_one_module_and_called_twice():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    assert [name for name, _ in model.named_modules()] == ["", "0", "1"]
    x = nm.tensor(np.ones((2, 3)), dtype="float32")
    assert np.array_equal(model(x).numpy(), layer(nm.tanh(layer(x))).numpy())


def test_a_cycle_of_modules_is_walked_once():
    parent = nn.Sequential(nn.Linear(2, 2))
    parent[0].owner = parent
    assert len(list(parent.modules())) == 2
    assert len(list(parent.parameters())) == 2


def test_train_and_eval_reach_every_module():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    assert model.eval() is model and not any(m.training for m in model.modules())
    x = nm.ones((4, 5))
    assert np.array_equal(model(x).numpy(), x.numpy())
    assert model.train() is model and all(m.training for m in model.modules())
    assert set(np.unique(model(x).numpy())) <= {0.0, 4.0}


def test_sequential_by_name_is_indexed_iterated_and_replaced():
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    model = nn.Sequential(first=first, second=second)
    assert len(model) == 2 and list(model) == [first, second] and model[-1] is second
    model.second = nn.Linear(4, 7)
    assert model(nm.ones((1, 3))).shape == (1, 7)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Sequential(nm.tanh), TypeError, r"Sequential: layer 0 is .*not a Module.*nn\.Tanh"),
        (lambda: nn.Sequential(forward=nn.Tanh()), ValueError, "'forward' is a name that modules use themselves"),
        (lambda: nn.Module()(1), NotImplementedError, r"Module: forward is not defined.*\(in Module\)"),
        (lambda: nn.Parameter(np.arange(3)), nm.DtypeError, "only floats carry gradients"),
    ],
)
def test_misuse_is_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_error_names_the_layer_once_and_leaves_the_stack_clean():
    model = nn.Sequential(body=nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2)), head=nn.Tanh())
    with pytest.raises(nm.ShapeError, match=r"^linear: .*\(in Sequential\.body\.1\)$") as caught:
        model(nm.ones((2, 3)))
    assert str(caught.value).count("(in ") == 1
    assert caught.value.layer_path == "Sequential.body.1"
    assert thread.modes.layers == []
    with pytest.raises(nm.ShapeError, match=r"\(in LeNet5\.conv1\)"):
        nn.LeNet5()(nm.ones((1, 3, 28, 28)))


def test_a_layer_inside_a_list_has_its_path_in_errors():
    model = Tied()
    model.rest[0] = nn.Linear(4, 2)
    with pytest.raises(nm.ShapeError, match=r"\(in Tied\.rest\.0\)"):
        model(nm.ones((2, 3)))


def test_repr_shows_layers_and_arguments():
    model = nn.Sequential(
        conv=nn.Conv2d(4, 8, 3, stride=2, padding=((0, 1), (2, 3)), groups=2, bias=False, activation="relu"),
        inner=nn.Sequential(nn.LeakyReLU(0.2), nn.TrainableAvgPool2d(8, 2, activation=("elu", 0.5))),
        table=nn.Conv2d(2, 2, 3, connections=np.eye(2, dtype=bool)),
        pool=nn.MaxPool2d(3, 2),
    )
    assert repr(model).splitlines() == [
        "Sequential(",
        "  (conv): Conv2d(4, 8, kernel_size=(3, 3), stride=(2, 2), padding=((0, 1), (2, 3)), groups=2, bias=False, "
        "activation='relu')",
        "  (inner): Sequential(",
        "    (0): LeakyReLU(negative_slope=0.2)",
        "    (1): TrainableAvgPool2d(8, kernel_size=(2, 2), stride=(2, 2), activation=('elu', 0.5))",
        "  )",
        "  (table): Conv2d(2, 2, kernel_size=(3, 3), connections=2 of 4)",
        "  (pool): MaxPool2d(kernel_size=(3, 3), stride=(2, 2), padding=0, dilation=(1, 1), ceil_mode=False)",
        ")",
    ]
    assert repr(nn.Parameter([1.0])) == "Parameter(tensor([1.], requires_grad=True))"
    assert repr(nn.Linear(3, 2, bias=False, activation="sin")) == "Linear(3, 2, bias=False, activation='sin')"
    assert repr(nn.Module()) == "Module()"


def test_a_parameter_copies_what_it_is_made_of():
    source = nm.tensor([1.0, 2.0], dtype="float64")
    p = nn.Parameter(source)
    assert p.dtype == np.float64 and p.requires_grad and not np.shares_memory(p.data, source.data)
    assert nn.Parameter([1, 2]).dtype == np.float32


def test_zero_grad_forgets_gradients():
    model = Tied()
    model(nm.ones((2, 3))).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_deepcopy_keeps_ties_and_shares_nothing():
    model = Tied()
    x = nm.ones((2, 3))
    model(x).sum().backward()
    twin = copy.deepcopy(model)
    assert twin.first.weight is twin.second.weight
    assert isinstance(twin.scale, nn.Parameter) and twin.scale.is_leaf and twin.scale.requires_grad
    assert all(p.grad is None for p in twin.parameters())
    before = model(x).numpy()
    assert np.array_equal(twin(x).numpy(), before)
    with nm.no_grad():
        for p in twin.parameters():
            p.fill_(0.0)
    assert np.array_equal(model(x).numpy(), before)


def test_to_changes_dtype_in_place_and_back():
    model = Tied()
    old = model.state_dict()
    weight = model.first.weight
    model(nm.ones((1, 3))).sum().backward()
    assert model.to("float64") is model
    assert model.first.weight is weight and weight is model.second.weight and weight.grad is None
    assert {p.dtype for p in model.parameters()} == {np.dtype("float64")}
    assert model(nm.tensor(np.ones((1, 3)))).dtype == np.float64
    model.to(np.float32).to("cpu")
    assert all(np.array_equal(old[name], array) for name, array in model.state_dict().items())
    with pytest.raises(ValueError, match="device 'tpu' is not available"):
        model.to("tpu")


def test_to_the_same_dtype_changes_nothing():
    model = nn.Linear(2, 2)
    data = model.weight.data
    model(nm.ones((1, 2))).sum().backward()
    model.to("float32")
    assert model.weight.data is data and model.weight.grad is not None


def test_to_between_forward_and_backward_is_refused():
    model = nn.Linear(2, 2)
    y = model(nm.tensor(np.ones((1, 2)), dtype="float32", requires_grad=True)).sum()
    model.to("float64")
    with pytest.raises(nm.GradientError, match=r"linear.*changed in place"):
        y.backward()


def test_state_dict_holds_copies_under_first_names_only():
    model = Tied()
    saved = model.state_dict()
    assert sorted(saved) == sorted(TIED_NAMES)
    assert all(type(a) is np.ndarray and a.flags.c_contiguous and a.flags.writeable for a in saved.values())
    before = saved["scale"].copy()
    with nm.no_grad():
        model.scale.fill_(9.0)
    assert np.array_equal(saved["scale"], before)


def test_load_state_dict_takes_arrays_tensors_and_foreign_byte_order():
    source, target = Tied(), Tied()
    arrays = source.state_dict()
    given = {name: array.astype(">f4") for name, array in arrays.items()}
    given["scale"] = source.scale
    target.load_state_dict(given)
    assert all(np.array_equal(arrays[name], array) for name, array in target.state_dict().items())
    assert target.second.weight is target.first.weight


def test_load_state_dict_lists_every_fault_and_changes_nothing():
    model = Tied()
    before = model.state_dict()
    bad = model.state_dict()
    del bad["scale"]
    bad["second.weight"] = np.zeros((3, 3), np.float32)  # a second name of a tied parameter
    bad["first.bias"] = np.zeros(4, np.float32)
    bad["second.bias"] = np.zeros(3)
    bad["rest.0.weight"] = bad["rest.0.weight"] + 1
    with pytest.raises(ValueError, match=r"^load_state_dict: Tied cannot take these: ") as caught:
        model.load_state_dict(bad)
    for fault in (
        "scale is missing",
        "second.weight is unexpected",
        "first.bias has shape (4,) but the model's is (3,)",
        "second.bias is float64 but the model's is float32 (see Module.to)",
    ):
        assert fault in str(caught.value)
    assert str(caught.value).count(";") == 3
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


def test_loading_between_forward_and_backward_is_refused():
    model = nn.Linear(2, 2)
    y = model(nm.tensor(np.ones((1, 2)), dtype="float32", requires_grad=True)).sum()
    model.load_state_dict(model.state_dict())
    with pytest.raises(nm.GradientError, match="changed in place"):
        y.backward()


def test_modules_are_freed_without_the_collector():
    gc.disable()
    try:
        model = nn.LeNet()
        gone = weakref.ref(model.conv1.weight)
        nn.summary(model)
        del model
        assert gone() is None
    finally:
        gc.enable()
