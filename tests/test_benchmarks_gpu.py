"""benchmarks/cpu_vs_gpu.py without a GPU: what it prints, and that the work for a device is the CPU's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_nm import DeviceError, backend
from tinygrad_nm.cli.limits import Limits

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
if not FOLDER.exists():
    pytest.skip("the tests are not in a source tree", allow_module_level=True)
sys.path.insert(0, str(FOLDER))

import cards  # noqa: E402
import command  # noqa: E402
import compare  # noqa: E402
import cpu_vs_gpu  # noqa: E402
import worker  # noqa: E402
from engines import Work, ours, rotated  # noqa: E402
from workloads import Case, gemm_case  # noqa: E402

LADDER = ((2**20, 1e10),)
LIMITS = Limits("float32", 1, "any", 1e11, 1e10, 1e10, 1e10, 1e10, LADDER, LADDER)
IMAGE = (2, 5, 7, 7)
CASES = [
    gemm_case("gemm", 9, 12, 7, "float32", "b"),
    *(
        Case("conv2d", s, "conv2d", {"batch": 2, "size": 6, "layer": ("conv1", 4, 6, 3, 1, 1, 2), "sweep": s})
        for s in ("forward", "backward_input", "backward_weight", "backward")
    ),
    *(
        case
        for s in ("forward", "backward")
        for case in (
            Case("tanh", s, "activation", {"shape": IMAGE, "function": "tanh", "sweep": s}),
            Case("max", s, "pool", {"shape": IMAGE, "function": "max", "kernel": 3, "stride": 2, "sweep": s}),
            Case("avg", s, "pool", {"shape": IMAGE, "function": "avg", "kernel": 2, "stride": 2, "sweep": s}),
            Case("loss", s, "cross_entropy", {"rows": 5, "classes": 9, "sweep": s}),
            Case("lrn", s, "lrn", {"shape": IMAGE, "sweep": s}),
        )
    ),
    Case("sgd", "", "sgd", {"n": 37}),
    Case("train", "", "train", {"model": "lenet", "batch": 3}),
]


def has_gpu() -> bool:
    try:
        backend.device("cuda")
    except DeviceError:
        return False
    return True


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c.name}-{c.shape}") for c in CASES])
def test_the_work_for_a_device_is_that_of_the_cpu(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for device in ("cpu", "cuda-emulated"):
        monkeypatch.setattr(ours, "DEVICE", device)
        work = next(iter(ours.prepare(case, case.inputs()).values()))
        assert isinstance(work, Work)
        answers.append({name: worker.digest(array) for name, array in work.answer().items()})
    assert compare.difference(*answers, compare.TOLERANCES[case.kind][case.dtype]) is None


def test_inputs_take_turns_beyond_the_cache() -> None:
    made: list[Any] = []

    def prepare(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
        number = len(made)
        made.append(number)
        return {"": Work(lambda: number, dict), "other": "a reason"}

    case = Case("x", "", "gemm", moved=100e6)
    works = rotated(prepare, case, {})
    assert isinstance(works[""], Work) and works["other"] == "a reason"
    assert [works[""].run() for _ in range(5)] == [0, 1, 0, 1, 0]  # 256 MB hold two


def test_floors_of_named_cards() -> None:
    limits = cards.limits("A100", "float64")
    assert limits.seconds(9.7e12, 0) == 1.0
    assert limits.seconds(0, 2039e9) == 1.0
    assert all(cards.limits(card, "float32").arithmetic > 1e12 for card in cards.CARDS)


def test_without_a_gpu_it_says_so_and_shows_the_cpu_and_the_floors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if has_gpu():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(command, "measure", lambda *_: LIMITS)
    file = tmp_path / "new" / "rows.json"
    only = "cross_entropy forward 256x10"
    assert cpu_vs_gpu.main(["--quick", "--threads", "1", "--only", only, "--json", str(file)]) == 0
    shown = capsys.readouterr()
    assert "no GPU is measured: device 'cuda' is not available" in shown.err
    head, row, last = shown.out.splitlines()
    assert head.split()[:3] == ["row", "shape", "CPU"]
    assert "least H100" in head and "GPU" not in head
    assert row.startswith("pool_activation cross_entropy forward")
    assert last == "no GPU was measured: no row can pass or fail"
    content = json.loads(file.read_text())
    (floors,) = content["floors"].values()
    assert floors["T4"] == pytest.approx(1e6 * 4 * (256 * 10 + 256) / 320e9)  # microseconds; bytes decide
    assert file.with_suffix(".png").stat().st_size > 1000
