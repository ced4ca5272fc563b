"""The benchmarks: every row is there, answers are compared, others sleep, and what is missing is said."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_nm import _cpu
from tinygrad_nm.cli.limits import Limits

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
if not FOLDER.exists():
    pytest.skip("the tests are not in a source tree", allow_module_level=True)
sys.path.insert(0, str(FOLDER))

import command  # noqa: E402
import compare  # noqa: E402
import table  # noqa: E402
import targets  # noqa: E402
import worker  # noqa: E402
import workers  # noqa: E402
from engines import PEERS, Unsupported  # noqa: E402
from networks import NETWORKS  # noqa: E402
from workloads import Case  # noqa: E402

LIMITS = Limits(
    dtype="float32",
    threads=1,
    isa="any",
    arithmetic=1e11,
    copy=1e10,
    triad=1e10,
    read=1e10,
    update=1e10,
    bandwidths=((2**20, 1e10),),
    updates=((2**20, 1e10),),
)
SCRIPTS = ("gemm", "conv2d", "pool_activation", "train", "infer", "overhead", "memory", "epoch")


@pytest.fixture(autouse=True)
def known_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring them takes seconds and gigabytes; tests/test_cli_roofline.py does it."""
    monkeypatch.setattr(command, "measure", lambda *_: LIMITS)


# ---- the rows ---------------------------------------------------------------------------------------------------


def rows(name: str, *more: Any) -> dict[str, targets.Target]:
    listed = list(getattr(targets, name)(("float32",), *more))
    found = {case.key: target for case, target in listed}
    assert len(found) == len(listed), "two rows share their name, shape and dtype"
    return found


def values(found: dict[str, targets.Target]) -> list[float]:
    return [target.value for target in found.values()]


def test_gemm_has_every_row_of_the_table() -> None:
    found = rows("gemm")
    for n in (64, 96, 128, 192, 256, 512, 1024, 2048):
        target = found[f"gemm square {n}x{n} {n}x{n} float32"]
        assert target == targets.Target(1.2 if n <= 192 else 1.0, 0.9 if n >= 1024 else None)
    layers = {"lenet5.fc1": (120, 84), "lenet5.output": (84, 10)}
    layers |= {"alexnet.fc6": (9216, 4096), "alexnet.fc7": (4096, 4096), "alexnet.output": (4096, 1000)}
    for layer, (i, o) in layers.items():
        for n in (32, 128):
            products = {"forward": (n, i, o), "backward_input": (n, o, i), "backward_weight": (o, n, i)}
            for sweep, (a, b, c) in products.items():
                assert found[f"gemm {layer} {sweep} {a}x{b} {b}x{c} float32"] == targets.Target(1.0)
    assert len(found) == 8 + 5 * 2 * 3
    assert len(list(targets.gemm(("float32", "float64")))) == 2 * len(found)


def test_conv2d_has_every_row_of_the_table() -> None:
    found = {key.split(" float32")[0]: t.value for key, t in rows("conv2d").items()}
    named = {" ".join(key.split()[:3]): value for key, value in found.items()}
    expected = {
        f"conv2d alexnet.conv{i} {sweep}": 1.3 if i <= 2 else 1.6
        for i in range(1, 6)
        for sweep in ("forward", "backward_input", "backward_weight")
    }
    expected |= {"conv2d lenet5.conv1 forward": 3.0, "conv2d lenet5.conv1 backward": 5.0}
    expected |= {"conv2d lenet5.conv2 forward": 1.7, "conv2d lenet5.conv2 backward": 2.0}
    assert named == expected
    assert "conv2d alexnet.conv2 forward 32x96x27x27 256x48x5x5" in found
    assert "conv2d lenet5.conv1 forward 256x1x28x28 6x1x5x5" in found


def test_pool_activation_has_every_row_of_the_table() -> None:
    found: dict[str, set[Any]] = {}
    for key, target in rows("pool_activation").items():
        found.setdefault(" ".join(key.split()[1:3]), set()).add((target.value, target.share))
    assert found.pop("sgd_update 60965224") == {(1.0, 0.8)}
    expected = {"relu": (1.0, 0.8), "local_response_norm": (4.0, None)}
    expected |= dict.fromkeys(("tanh", "sigmoid", "max_pool2d", "avg_pool2d", "cross_entropy"), (1.5, None))
    assert found == {f"{name} {sweep}": {t} for name, t in expected.items() for sweep in ("forward", "backward")}


def test_networks_have_every_row_of_the_table() -> None:
    lenet = {(model, batch): 7.0 for model in ("lenet", "lenet5") for batch in (1, 16)}
    lenet |= {(model, batch): v for model, v in (("lenet", 6.0), ("lenet5", 4.0)) for batch in (64, 256, 1024)}
    train = lenet | {("alexnet", 32): 2.3, ("alexnet", 128): 2.8}
    assert rows("train") == {f"train {m} batch {b} float32": targets.Target(v) for (m, b), v in train.items()}
    infer = {("lenet", 1): 1.0, ("lenet", 16): 3.0, ("lenet", 256): 3.0, ("alexnet", 32): 1.5}
    infer |= {("lenet5", 1): 1.0, ("lenet5", 16): 2.3, ("lenet5", 256): 2.3}
    assert rows("infer") == {f"infer {m} batch {b} float32": targets.Target(v) for (m, b), v in infer.items()}


def test_the_other_rows_of_the_table() -> None:
    found = rows("overhead")
    assert [key.split(" chain")[0] for key in found] == ["overhead t * c", "overhead t + t", "overhead tanh"]
    assert [(t.value, t.kind) for t in found.values()] == [(3.0, "at most"), (3.0, "at most"), (4.0, "at most")]
    assert values(rows("memory")) == [1 / 0.65]
    assert rows("epoch", 4000, "x.npz") == {"epoch lenet5 4000 digits, batch 64 float32": targets.Target(5.0)}


def test_every_script_is_there_and_answers_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in SCRIPTS:
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(name).main(["--help"])
        assert ended.value.code == 0
        told = capsys.readouterr().out
        for option in ("--peers", "--threads", "--dtype", "--json", "--only", "--quick", "--avx2", "--reruns"):
            assert option in told, name


def test_arithmetic_and_bytes_of_rows() -> None:
    case = next(c for c, _ in targets.conv2d(("float32",)) if c.name == "conv2d alexnet.conv4 forward")
    assert case.flops == 2 * 32 * 384 * 13 * 13 * 192 * 9  # two groups
    assert case.moved == 4 * (2 * 32 * 384 * 13 * 13 + 384 * 192 * 9)
    case = next(c for c, _ in targets.gemm(("float64",)) if c.shape == "32x120 120x84")
    assert (case.flops, case.moved) == (2 * 32 * 120 * 84, 8 * (32 * 120 + 120 * 84 + 32 * 84))


def test_networks_are_those_of_the_engine() -> None:
    for name, build in command.MODELS.items():
        model = build()
        assert {k: v.shape for k, v in model.state_dict().items()} == NETWORKS[name].shapes()
        assert model.input_shape == NETWORKS[name].input_shape


@pytest.mark.parametrize(
    ("target", "ours", "ratio", "share", "expected"),
    [
        (targets.Target(2.0), 1.0, 1.94, None, True),
        (targets.Target(2.0), 1.0, 1.93, None, False),
        (targets.Target(2.0), 1.0, 1.0, 0.85, True),  # at the roofline
        (targets.Target(2.0), 1.0, 1.0, 0.84, False),
        (targets.Target(2.0), 1.0, None, None, False),  # no peer
        (targets.Target(2.0), None, None, None, False),  # not measured
        (targets.Target(1.0, 0.9), 1.0, 1.0, 0.88, True),
        (targets.Target(1.0, 0.9), 1.0, 3.0, 0.87, False),
        (targets.Target(1.0, 0.9), 1.0, 3.0, None, False),
        (targets.Target(3.0, kind="at most"), 3.09, None, None, True),
        (targets.Target(3.0, kind="at most"), 3.1, 9.0, None, False),
    ],
)
def test_which_rows_pass(target: Any, ours: Any, ratio: Any, share: Any, expected: bool) -> None:
    assert targets.passes(target, ours, ratio, share) is expected


# ---- answers ----------------------------------------------------------------------------------------------------


def answer(**arrays: Any) -> compare.Answer:
    return {name: worker.digest(np.asarray(array)) for name, array in arrays.items()}


def test_answers_that_differ() -> None:
    x = np.linspace(-1, 2, 10_000)
    assert compare.difference(answer(y=x), answer(y=x + 1e-6), 1e-6) is None
    assert "y differs by 1e-05" in str(compare.difference(answer(y=x), answer(y=x + 1e-5), 1e-6))
    assert "y differs by nan" in str(compare.difference(answer(y=x), answer(y=x * np.nan), 1e-6))
    assert "has shape (100, 100)" in str(compare.difference(answer(y=x), answer(y=x.reshape(100, 100)), 1e-6))
    assert "['z'] instead of ['y']" in str(compare.difference(answer(y=x), answer(z=x), 1e-6))
    assert set(compare.TOLERANCES) == set(importlib.import_module("workloads").INPUTS)


def test_inputs_follow_from_the_case_alone() -> None:
    case = next(iter(targets.gemm(("float64",))))[0]
    first, second = case.inputs(), case.inputs()
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array, second[name])


def test_a_wrong_answer_fails_its_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(compare.TOLERANCES, "gemm", {"float32": -1.0})
    status, content = run(tmp_path, "gemm", "--peers", "numpy", "--only", "square 64x64 64x64 float32")
    assert status == 1
    assert content["rows"][0]["passed"] is False
    assert content["rows"][0]["ours"] is None
    assert "answers otherwise: c differs by" in content["rows"][0]["why"]
    assert "0 of 1 rows pass; 1 could not be measured" in capsys.readouterr().out


# ---- whole runs -------------------------------------------------------------------------------------------------


def run(folder: Path, name: str, *arguments: str) -> tuple[int, Any]:
    """A script's exit status and what it wrote."""
    file = folder / f"{name}.json"
    given = ["--quick", "--threads", "1", "--json", str(file), *arguments]
    status = importlib.import_module(name).main(given)
    return status, json.loads(file.read_text()) if file.exists() else None


ROW_KEYS = {"name", "shape", "ours", "peers", "best_peer", "ratio", "target", "roofline_share", "unit"}


def test_json_of_a_run_against_numpy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, content = run(tmp_path, "gemm", "--peers", "numpy", "--only", "lenet5.fc1", "--dtype", "float64")
    assert status == 0
    assert len(content["rows"]) == 6
    for row in content["rows"]:
        assert row.keys() >= ROW_KEYS
        assert row["name"].startswith("gemm lenet5.fc1 ")
        assert row["best_peer"] == "numpy"
        assert row["ratio"] == pytest.approx(row["peers"]["numpy"] / row["ours"])
        assert row["roofline_share"] > 0
        assert (row["unit"], row["target"], row["dtype"]) == ("us", 1.0, "float64")
    assert content["benchmark"] == "gemm"
    assert content["versions"].keys() == {"ours", "numpy"}
    assert content["limits"]["float64"]["arithmetic"] == 1e11
    assert "of 6 rows pass" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "only", "rows"),
    [
        ("conv2d", "lenet5.conv1", 2),
        ("pool_activation", "256x10", 2),
        ("pool_activation", "256x6x28x28", 6),
        ("train", "lenet batch 1 ", 1),
        ("infer", "lenet5 batch 1 ", 1),
        ("overhead", "t + t", 1),
    ],
)
def test_our_own_figures_without_a_peer(name: str, only: str, rows: int, tmp_path: Path) -> None:
    status, content = run(tmp_path, name, "--peers", "", "--only", only)
    assert status == 0
    assert len(content["rows"]) == rows
    for row in content["rows"]:
        assert row["ours"] > 0
        assert row["peers"] == {}
        assert (row["best_peer"], row["ratio"]) == (None, None)
        assert (row["why"] is None) == (row["target_kind"] == "at most")


def test_memory_and_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("memory lenet", "batch 4", "train", {"model": "lenet", "batch": 4}, unit="MiB")
    monkeypatch.setattr(targets, "memory", lambda _: [(case, targets.Target(1 / 0.65))])
    status, content = run(tmp_path, "memory", "--peers", "")
    assert status == 0
    assert 10 < content["rows"][0]["ours"] < 1000
    epoch = importlib.import_module("epoch")
    rng = np.random.default_rng(0)
    split = (rng.random((130, 1, 28, 28), np.float32), np.arange(130) % 10)
    digits = epoch.data.DataSet(epoch.data.Split(*split), epoch.data.Split(*split), "130 invented digits")
    monkeypatch.setattr(epoch.data, "digits", lambda: digits)
    status, content = run(tmp_path, "epoch", "--peers", "")
    assert status == 0
    assert content["rows"][0]["shape"] == "130 digits, batch 64"
    assert content["rows"][0]["ours"] > 0


def test_epoch_without_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("epoch").main(["--data", str(tmp_path)])
    assert ended.value.code == 2
    assert "mnist: neither" in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    there = workers.find_spec
    monkeypatch.setattr(workers, "find_spec", lambda name: None if name in ("torch", "jax") else there(name))
    status, content = run(tmp_path, "overhead", "--only", "tanh", "--peers", "torch,jax")
    assert status == 0
    assert content["rows"][0]["peers"] == {}
    told = capsys.readouterr().err
    for name in ("torch", "jax"):
        assert f"{name} is not installed and not compared: pip install 'tinygrad-nm[bench]'" in told


def test_a_peer_without_such_work_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "overhead", "--only", "tanh", "--peers", "numpy")
    assert "without numpy: numpy has no such function" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--peers", "tensorflow"], "'tensorflow' is not known; use torch, jax, numpy, onnxruntime"),
        (["--dtype", "float16"], "'float16' is not known; use float32, float64"),
        (["--reruns", "0"], "must be 1 or more"),
    ],
)
def test_wrong_options(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("gemm").main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_only_of_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module("gemm").main(["--only", "nothing"]) == 2
    assert "no row contains 'nothing'" in capsys.readouterr().err


# ---- workers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def numpy_worker() -> Iterator[Any]:
    made = workers.Worker("numpy", 1)
    yield made
    made.close()


def test_a_worker_answers_and_its_errors_come_back(numpy_worker: Any) -> None:
    case = next(iter(targets.gemm(("float32",))))[0]
    assert numpy_worker.version.startswith("numpy ")
    assert numpy_worker.ask("prepare", case) == {"": None}
    assert numpy_worker.ask("answer", "")["c"]["shape"] == (64, 64)
    assert numpy_worker.ask("time", "", 3) > 0
    assert numpy_worker.ask("peak_memory") > 2**20
    with pytest.raises(workers.Failed, match="numpy: KeyError"):
        numpy_worker.ask("time", "no such variant", 1)
    with pytest.raises(Unsupported):
        numpy_worker.ask("prepare", next(iter(targets.train(("float32",))))[0])


def test_avx2_keeps_our_engine_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    if not any(name == "avx2" and available for name, available, _ in _cpu.isas()):
        pytest.skip("the processor lacks AVX2")
    made = workers.started(["ours"], 1, True, print)
    version = made["ours"].version
    made["ours"].close()
    assert version.endswith("(avx2)")


def test_a_worker_that_ends_or_cannot_start(numpy_worker: Any) -> None:
    numpy_worker.process.kill()
    with pytest.raises(workers.Failed, match="the worker ended with status -9"):
        numpy_worker.ask("peak_memory")
    with pytest.raises(workers.Failed, match=r"No module named 'engines\.nothing'"):
        workers.Worker("nothing", 1)
    assert PEERS == ("torch", "jax", "numpy", "onnxruntime")


# ---- the table --------------------------------------------------------------------------------------------------


def made_rows() -> list[table.Row]:
    case = Case("train lenet", "batch 1", "train", {})
    measured = [table.Measured(2.0, {"torch": t, "jax": 9.0}, {"torch": "compile", "jax": ""}) for t in (5.0, 3.0, 4.0)]
    good = table.row(case, targets.Target(2.0), measured, 1.0, None)
    lost = table.row(case, targets.Target(2.0), [], 1.0, None)
    return [good, lost]


def test_medians_over_reruns() -> None:
    good, lost = made_rows()
    assert (good.ours, good.peers, good.best_peer) == (2.0, {"torch": 4.0, "jax": 9.0}, "torch")
    assert (good.ratio, good.roofline_share, good.passed) == (2.0, 0.5, True)
    assert (lost.passed, lost.why) == (False, "was not measured")
    assert table.summary([good, lost]) == "1 of 2 rows pass; 1 could not be measured and count as failed"


@pytest.mark.parametrize("rich", [True, False])
def test_the_table_shows_every_figure(
    rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    table.show(made_rows())
    shown = capsys.readouterr().out
    for text in ("train lenet", "batch 1", "2 us", "torch 4 (compile)", "jax 9", "2.00", "50 %", "passes", "FAILED"):
        assert text in shown
