"""Which variants of a peer are compared: those that answer as ours does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from test_benchmarks import LIMITS, answer, command, known_limits, run

__all__ = ["known_limits"]  # a fixture, used by all


class Planted:
    """A worker that answers at once and sleeps: each variant with the number planted for it."""

    def __init__(self, engine: str, answers: dict[str, float]) -> None:
        self.engine, self.answers, self.version = engine, answers, engine

    def ask(self, method: str, *arguments: Any) -> Any:
        if method == "prepare":
            return dict.fromkeys(self.answers)
        if method == "answer":
            return answer(loss=[self.answers[arguments[0]]])
        assert method in ("time", "keep", "peak_memory")
        return 1e-3 * arguments[1] if method == "time" else 2**20

    def cpu_seconds(self) -> float:
        return 0.0

    def close(self) -> None:
        pass


def planted(monkeypatch: pytest.MonkeyPatch, folder: Path, **engines: dict[str, float]) -> tuple[int, Any]:
    """A run of one row on planted workers, in two reruns."""
    made = {name: Planted(name, answers) for name, answers in engines.items()}
    monkeypatch.setattr(command, "started", lambda *_: made)
    only = ["--only", "lenet5 batch 64 ", "--peers", ",".join(e for e in engines if e != "ours"), "--reruns", "2"]
    status, content = run(folder, "train", *only)
    return status, content["rows"][0]


def test_a_wrong_variant_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch = {"contiguous": 2.0, "compile": 1.5e35}
    status, found = planted(monkeypatch, tmp_path, ours={"": 2.0}, torch=torch)
    told = capsys.readouterr().err
    assert status == 0 and found["why"] is None
    assert found["variants"] == {"torch": "contiguous"} and found["ratio"] == pytest.approx(1.0)
    assert len(found["left_out"]) == 1
    assert found["left_out"][0].startswith("without torch: compile: it answers otherwise: loss differs by 1.5e+35")
    assert told.count(found["left_out"][0]) == 1


def test_our_own_variants_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = {"contiguous": 2.0}
    status, found = planted(monkeypatch, tmp_path, ours={"tape": 2.0, "compile": 2.0}, torch=torch)
    assert status == 0 and found["variant"] in ("tape", "compile") and found["why"] is None
    status, found = planted(monkeypatch, tmp_path, ours={"tape": 2.0, "compile": 2.0001}, torch=torch)
    assert status == 1 and "our own variants answer otherwise: loss differs by 0.0001" in found["why"]


def test_a_limit_measured_on_a_busy_machine_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    busy, quiet = (dataclasses.replace(LIMITS, arithmetic=LIMITS.arithmetic * factor) for factor in (0.1, 1.0))
    shares = []
    for measured in ([quiet, quiet], [busy, quiet], [quiet, busy]):
        waiting = list(measured)
        monkeypatch.setattr(command, "measure", lambda *_, waiting=waiting: waiting.pop(0))
        shares.append(planted(monkeypatch, tmp_path, ours={"": 2.0}, torch={"": 2.0})[1]["roofline_share"])
    assert shares[0] == shares[1] == shares[2]


def test_a_peer_whose_variants_are_all_wrong_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrong = {"contiguous": float("nan"), "compile": 3.0}
    status, found = planted(monkeypatch, tmp_path, ours={"": 2.0}, torch=wrong, jax={"": 2.0})
    assert status == 0 and found["best_peer"] == "jax" and found["peers"].keys() == {"jax"}
    assert found["left_out"][-1] == "without torch: none of its variants answers as ours does"
    assert len(found["left_out"]) == 3
    assert "without torch: none of its variants" in capsys.readouterr().err


def test_our_own_wrong_answer_fails_the_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    peers: dict[str, Any] = {"torch": {"contiguous": 2.0, "compile": 7.0}, "jax": {"": 2.0}}
    status, found = planted(monkeypatch, tmp_path, ours={"": 2.5}, **peers)
    assert status == 1 and not found["passed"] and found["ours"] is None
    assert "torch: contiguous answers otherwise" in found["why"] and "jax answers otherwise" in found["why"]
