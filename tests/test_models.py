"""The course's models: every count of parameters, connections, multiply-adds and units, shapes, and summaries."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import nn
from tinygrad_nm.nn import models
from tinygrad_nm.nn.summary import Summary


@pytest.fixture(scope="module")
def alexnet() -> nn.AlexNet:
    nm.manual_seed(0)
    return nn.AlexNet()


@pytest.fixture
def unset(monkeypatch):
    """AlexNets whose weights stay zero: drawing 61 million numbers takes longer than the test."""
    monkeypatch.setattr(models, "_paper_normal", lambda weight, **options: weight)


def column(table: Summary, name: str) -> dict[str, object]:
    return {row.name: getattr(row, name) for row in table.rows if row.parameters}


def shapes(table: Summary) -> dict[str, tuple[int, ...]]:
    return {row.name: row.output_shape for row in table.rows}


def size(model: nn.Module) -> int:
    return sum(p.size for p in model.parameters())


def test_lenet_of_the_slide():
    table = nn.summary(nn.LeNet())
    assert column(table, "parameters") == {"conv1": 104, "conv2": 1212, "output": 1930}
    assert (table.parameters, table.multiply_adds) == (3246, 136_320)
    assert size(nn.LeNet()) == 3246
    assert nn.LeNet().conv2.bias.shape == (12,)  # not the slide's R^4
    assert shapes(table) == {
        "conv1": (4, 24, 24),
        "pool1": (4, 12, 12),
        "conv2": (12, 8, 8),
        "pool2": (12, 4, 4),
        "flatten": (192,),
        "output": (10,),
    }
    assert size(nn.LeNet(num_classes=3)) == 104 + 1212 + 3 * 193


def test_lenet_1989():
    table = nn.summary(nn.LeNet1989())
    assert column(table, "parameters") == {"h1": 104, "h2": 8, "h3": 512, "h4": 24, "output": 1930}
    assert column(table, "connections") == {
        "h1": 59_904,
        "h2": 2_880,
        "h3": 32_768,
        "h4": 960,
        "output": 1_930,
    }
    assert (table.parameters, table.connections, table.units) == (2578, 98_442, 4635)
    assert column(table, "units") == {"h1": 2304, "h2": 576, "h3": 768, "h4": 192, "output": 10}
    assert sum(column(table, "units").values()) == 3850 == 4635 - 784 - 1
    assert column(table, "output_shape") == {
        "h1": (4, 24, 24),
        "h2": (4, 12, 12),
        "h3": (12, 8, 8),
        "h4": (12, 4, 4),
        "output": (10,),
    }


def test_the_connection_table_of_1989():
    rows = ["XXX.XX......", ".XXXXX......", "......XXX.XX", ".......XXXXX"]
    table = np.array([[cell == "X" for cell in row] for row in rows])
    h3 = nn.LeNet1989().h3
    dense = h3.dense_weight().numpy()
    assert np.array_equal((dense != 0).all((2, 3)).T, table)
    assert np.array_equal((dense != 0).any((2, 3)).T, table)
    assert h3.weight.shape == (20, 5, 5)


def test_1989_squashes_after_every_layer_also_the_last():
    model = nn.LeNet1989()
    assert all(layer.activation == "scaled_tanh" for layer in model if not isinstance(layer, nn.Flatten))
    y = model(nm.tensor(np.full((2, 1, 28, 28), 50.0), dtype="float32"))
    assert np.abs(y.numpy()).max() < 1.7159
    assert nn.LeNet1989(output_activation=None).output.activation is None


def test_lenet5_as_taught_today():
    table = nn.summary(nn.LeNet5())
    assert column(table, "parameters") == {
        "conv1": 156,
        "conv2": 2_416,
        "conv3": 48_120,
        "fc1": 10_164,
        "output": 850,
    }
    assert (table.parameters, table.multiply_adds) == (61_706, 416_520)
    assert shapes(table)["conv3"] == (120, 1, 1) and shapes(table)["conv1"] == (6, 28, 28)


ALEXNET = {  # name: (parameters, multiply-adds, side of the output), FACTS of Krizhevsky et al. (2012)
    "conv1": (34_944, 105_415_200, 55),
    "conv2": (307_456, 223_948_800, 27),
    "conv3": (885_120, 149_520_384, 13),
    "conv4": (663_936, 112_140_288, 13),
    "conv5": (442_624, 74_760_192, 13),
    "fc6": (37_752_832, 37_748_736, None),
    "fc7": (16_781_312, 16_777_216, None),
    "output": (4_097_000, 4_096_000, None),
}


def test_alexnet_with_two_groups(alexnet):
    table = nn.summary(alexnet)
    assert column(table, "parameters") == {name: row[0] for name, row in ALEXNET.items()}
    assert column(table, "multiply_adds") == {name: row[1] for name, row in ALEXNET.items()}
    assert (table.parameters, table.multiply_adds) == (60_965_224, 724_406_816)
    assert sum(ALEXNET[name][1] for name in ("fc6", "fc7", "output")) == 58_621_952
    found = shapes(table)
    assert all(found[name][1] == side for name, (_, _, side) in ALEXNET.items() if side)
    assert (found["pool1"], found["pool2"]) == ((96, 27, 27), (256, 13, 13))
    assert (found["pool5"], found["flatten"]) == ((256, 6, 6), (9216,))


def test_alexnets_layers_are_the_papers(alexnet):
    for norm in (alexnet.norm1, alexnet.norm2):
        assert norm.options == {
            "size": 5,
            "alpha": 1e-4,
            "beta": 0.75,
            "k": 2.0,
            "divide_by_size": False,
            "groups": 2,
        }
    assert [type(layer).__name__ for layer in list(alexnet)[:3]] == ["Conv2d", "LocalResponseNorm", "MaxPool2d"]
    for pool in (alexnet.pool1, alexnet.pool2, alexnet.pool5):
        assert pool.options["kernel_size"] == (3, 3) and pool.options["stride"] == (2, 2)
    weighted = [layer for layer in alexnet if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert [layer.activation for layer in weighted] == ["relu"] * 7 + [None]
    assert alexnet.drop6.options == alexnet.drop7.options == {"p": 0.5}


def test_alexnet_starts_as_in_the_paper(alexnet):
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name in ALEXNET:
        layer = getattr(alexnet, name)
        w = layer.weight.numpy()
        assert abs(w.std(dtype="float64") / 0.01 - 1) < 4 / np.sqrt(2 * w.size), name
        assert abs(w.mean(dtype="float64")) < 4 * 0.01 / np.sqrt(w.size), name
        assert (layer.bias.numpy() == (1.0 if name in ones else 0.0)).all(), name


def test_alexnet_without_groups_and_with_224(unset):
    assert size(nn.AlexNet(groups=1)) == 62_378_344
    assert nn.AlexNet(10, groups=1, dtype="float64").norm1.options["groups"] == 1
    small = nn.AlexNet(num_classes=10, input_size=224, positive_bias=0.1, dropout=0.0)
    table = nn.summary(small)
    assert table.input_shape == (3, 224, 224) and shapes(table)["conv1"] == (96, 55, 55)
    assert table.parameters == 60_965_224 - 990 * 4097
    assert np.unique(small.fc6.bias.numpy()) == np.float32(0.1)
    assert small.conv1.geometry["padding"] == 2 and small.drop6.options["p"] == 0.0


def test_a_deep_network_is_the_courses():
    model = nn.DeepNetwork((2, 16, 8, 5), "sin")
    assert [name for name, _ in model.named_children()] == ["layer1", "layer2", "output"]
    assert [name for name, _ in model.named_parameters()] == [
        "layer1.weight",
        "layer1.bias",
        "layer2.weight",
        "layer2.bias",
        "output.weight",
    ]
    assert size(model) == 2 * 16 + 16 + 16 * 8 + 8 + 8 * 5
    x = np.random.default_rng(0).standard_normal((7, 2))
    twin = nn.DeepNetwork((2, 16, 8, 5), "sin", output_bias=True, dtype="float64")
    y = x
    for layer in (twin.layer1, twin.layer2):
        y = np.sin(y @ layer.weight.numpy().T + layer.bias.numpy())
    assert np.allclose(twin(nm.tensor(x)).numpy(), y @ twin.output.weight.numpy().T, atol=1e-14)
    assert twin.output.bias is not None
    assert len(nn.DeepNetwork((3, 2))) == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.DeepNetwork([3]), nm.ShapeError, r"DeepNetwork: widths \(3,\) must name at least"),
        (lambda: nn.DeepNetwork([3, 0, 2]), nm.ShapeError, "Linear: out_features is 0"),
        (lambda: nn.LeNet5(0), nm.ShapeError, "Linear: out_features is 0"),
        (lambda: nn.AlexNet(groups=3), ValueError, "AlexNet: groups is 3"),
        (lambda: nn.AlexNet(input_size=256), nm.ShapeError, "AlexNet: input_size is 256; use 227, or 224"),
    ],
)
def test_models_that_cannot_be_are_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


SMALL = (nn.LeNet, nn.LeNet1989, nn.LeNet5)


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_digit_networks_give_ten_scores_and_gradients_everywhere(model, dtype):
    network = model(dtype=dtype)
    y = network(nm.tensor(np.random.default_rng(0).uniform(-1, 1, (3, 1, 28, 28)), dtype=dtype))
    assert y.shape == (3, 10) and y.dtype == dtype
    nm.cross_entropy(y, np.array([1, 2, 3])).backward()
    assert all(p.grad is not None and p.grad.numpy().any() for p in network.parameters())


def test_a_summary_prints_a_table_and_gives_plain_numbers():
    table = nn.summary(nn.LeNet1989())
    lines = str(table).splitlines()
    assert lines[0] == "LeNet1989"
    titles = ["layer", "kind", "output", "shape", "parameters", "connections", "multiply-adds", "units"]
    assert lines[1].split() == titles
    assert lines[3].split() == ["input", "1", "x", "28", "x", "28"]
    assert lines[4].split() == ["h1", "Conv2d", "4", "x", "24", "x", "24", "104", "59,904", "57,600", "2,304"]
    assert lines[-2].split() == ["total", "2,578", "98,442", "91,520", "4,635"]
    assert len({len(line) for line in (lines[1], lines[4], lines[-2])}) == 1
    told = json.loads(json.dumps(table.to_dict()))
    assert told["totals"] == {
        "parameters": 2578,
        "connections": 98_442,
        "multiply_adds": 57_600 + 32_000 + 1_920,
        "units": 4635,
    }
    assert told["layers"][0]["output_shape"] == [4, 24, 24] and told["input_shape"] == [1, 28, 28]


def test_a_summary_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    model[0].eval()
    before = model.state_dict()
    nn.summary(model, (3,))
    assert not model[0].training and model[1].training and model.training
    assert "forward" not in vars(model[0])
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())
    with pytest.raises(nm.ShapeError, match=r"linear: .*\(in Sequential\.0\)"):
        nn.summary(model, (5,))
    assert "forward" not in vars(model[0])


def test_a_summary_counts_ties_once_and_layers_never_called():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    model.unused = nn.Linear(2, 2)
    table = nn.summary(model, (3,))
    assert [(row.name, row.parameters, row.multiply_adds) for row in table.rows] == [
        ("0", 12, 9),
        ("1", 0, 0),
        ("0", 0, 9),
        ("unused", 6, 0),
    ]
    assert table.parameters == size(model) == 18


def test_a_summary_of_rows_of_features_and_of_one_layer():
    table = nn.summary(nn.Linear(3, 4, dtype="float64"), (5, 3))
    assert [(row.name, row.output_shape, row.multiply_adds, row.units) for row in table.rows] == [
        ("model", (5, 4), 60, 20)
    ]
    with pytest.raises(nm.ShapeError, match="summary: the input shape of Linear is not known"):
        nn.summary(nn.Linear(3, 4))
