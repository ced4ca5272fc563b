"""The limits of the machine, what layers cost, and the command that puts one over the other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tinygrad_nm as nm
from tinygrad_nm.cli import limits, roofline
from tinygrad_nm.cli.app import app

LIMITS = limits.Limits(
    dtype="float32",
    threads=1,
    isa="any",
    arithmetic=100.0,
    copy=8.0,
    triad=10.0,
    read=12.0,
    update=16.0,
    bandwidths=((1000, 40.0), (2000, 20.0), (4000, 10.0)),
    updates=((1000, 50.0), (4000, 16.0)),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of a few megabytes instead of gigabytes."""
    monkeypatch.setattr(limits, "FOOTPRINTS", (2**16, 2**18))
    monkeypatch.setattr(limits, "far_footprint", lambda: 2**20)


def test_the_roof() -> None:
    assert LIMITS.memory == 10.0
    assert [LIMITS.bandwidth(n) for n in (1, 1000, 1999, 2000, 9999)] == [40.0, 40.0, 40.0, 20.0, 10.0]
    assert [LIMITS.bandwidth(n, in_place=True) for n in (1, 3000, 4000)] == [50.0, 50.0, 16.0]
    assert LIMITS.seconds(1000.0, 40.0) == 10.0
    assert LIMITS.seconds(10.0, 4000.0) == 400.0
    assert (LIMITS.bound(1000.0, 40.0), LIMITS.bound(10.0, 4000.0)) == ("arithmetic", "memory")


def test_of_two_measurements_the_higher_figures_count() -> None:
    other = dataclasses.replace(
        LIMITS,
        arithmetic=90.0,
        update=18.0,
        bandwidths=((1000, 30.0), (2000, 25.0), (4000, 10.0)),
        updates=((1000, 60.0), (4000, 1.0)),
    )
    both = LIMITS.or_higher(other)
    assert both == other.or_higher(LIMITS)
    assert (both.arithmetic, both.copy, both.update) == (100.0, 8.0, 18.0)
    assert both.bandwidths == ((1000, 40.0), (2000, 25.0), (4000, 10.0))
    assert both.updates == ((1000, 60.0), (4000, 16.0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_limits_are_measured(dtype: str, small: None) -> None:
    before = nm.get_num_threads()
    found = limits.measure(dtype, 1, 0.001)
    assert nm.get_num_threads() == before
    assert (found.dtype, found.threads, found.isa) == (dtype, 1, nm._cpu.isa())
    for rate in (found.arithmetic, found.copy, found.triad, found.read, found.update):
        assert 1e7 < rate < 1e14
    assert [size for size, _ in found.bandwidths] == [2**16, 2**18, 2**20]
    assert f"{found.arithmetic / 1e9:.1f} GFLOP/s" in str(found)
    assert found.to_dict()["memory"] == found.memory


def test_far_is_beyond_the_last_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 2**22, "SC_PAGE_SIZE": 4096}.__getitem__)  # 16 GiB
    size = tmp_path / "size"
    monkeypatch.setattr(limits, "LAST_CACHE", size)
    assert limits.far_footprint() == 2**29  # unknown
    for text, expected in (("32768K", 2**29), ("256M", 2**30), ("2G", 2**32), ("nonsense", 2**29)):
        size.write_text(text + "\n")
        assert limits.far_footprint() == expected


def test_what_layers_cost() -> None:
    """LeNet-5 on 2 examples, counted by hand."""
    found = {piece.name.split("+")[0]: piece for piece in roofline.pieces(nm.nn.LeNet5(), 2)}
    assert list(found) == ["conv1", "conv2", "conv3", "fc1", "output"]
    products = 2.0 * 2 * 120 * 84
    x, y, w = 2 * 120, 2 * 84, 120 * 84 + 84
    assert found["fc1"].forward == roofline.Cost(products + y, 4.0 * (x + w + y))
    assert found["fc1"].backward == roofline.Cost(2 * products + y, 4.0 * (2 * x + 2 * y + 2 * w))
    conv = 2.0 * 2 * 6 * 28 * 28 * 25
    first = found["conv1"]
    assert (first.name, first.first, first.output_shape) == ("conv1+pool1", True, (6, 14, 14))
    assert first.forward.flops == conv + 2 * 6 * (28 * 28 + 14 * 14)
    assert first.forward.moved == 4 * (2 * 784 + 156 + 2 * 6 * 14 * 14)  # what lies between is not moved
    assert first.backward.flops == first.forward.flops  # dw alone
    assert not found["conv2"].first


def test_step_is_the_sum_of_its_parts() -> None:
    model = nm.nn.LeNet()
    inference = roofline.step_seconds(model, 4, LIMITS, training=False)
    assert inference == sum(piece.forward.seconds(LIMITS) for piece in roofline.pieces(model, 4))
    parts = sum(piece.backward.seconds(LIMITS) for piece in roofline.pieces(model, 4))
    forward, backward = roofline.loss_costs(4, 10, 4)
    update = roofline.update_cost(3246, 4)
    assert (forward.moved, backward.moved, update.moved, update.in_place) == (176.0, 336.0, 64920.0, True)
    parts += sum(cost.seconds(LIMITS) for cost in (forward, backward, update))
    assert roofline.step_seconds(model, 4, LIMITS) == pytest.approx(inference + parts)


@pytest.mark.parametrize("model", ["lenet", "lenet1989", "lenet5", "deep"])
def test_the_command(model: str, small: None, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "r.json"), "--picture", str(tmp_path / "r.png")]
    result = CliRunner().invoke(
        app, ["roofline", model, "--batch", "2", "--seconds", "0.001", "--threads", "1", *files]
    )
    assert result.exit_code == 0, result.output
    for head in ("layer", "pass", "ms", "GFLOP/s", "GB/s", "FLOP/byte", "share of limit", "bound by", "whole step"):
        assert head in result.output
    content = json.loads((tmp_path / "r.json").read_text())
    assert (content["model"], content["batch"], content["limits"]["threads"]) == (model, 2, 1)
    sweeps = {(p["layer"], p["sweep"]) for p in content["points"]}
    assert {("loss", "forward"), ("loss", "backward"), ("update", "SGD"), ("whole step", "")} <= sweeps
    for p in content["points"]:
        assert min(p[name] for name in ("seconds", "flops", "moved", "share", "gflops", "gbs", "intensity")) > 0
        assert p["intensity"] == pytest.approx(p["flops"] / p["moved"])
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "roofline: unknown model 'nonsense'"),
        (["lenet", "--batch", "0"], "roofline: --batch is 0; use 1 or more"),
        (["lenet", "--dtype", "int8"], "roofline: unknown dtype 'int8'"),
        (["lenet", "--depth", "3"], "lenet: has a fixed shape"),
    ],
)
def test_errors_are_told(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["roofline", *arguments])
    assert result.exit_code == 1
    assert words in result.output
