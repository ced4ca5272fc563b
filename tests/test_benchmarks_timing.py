"""The timer of the benchmarks: contestants take turns, medians count, and those that should sleep are watched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
if not FOLDER.exists():
    pytest.skip("the tests are not in a source tree", allow_module_level=True)
sys.path.insert(0, str(FOLDER))

import timing  # noqa: E402
import workers  # noqa: E402


class Fake:
    """A contestant whose calls take `seconds` each, and whose process uses `busy` seconds whenever it is looked at."""

    def __init__(self, log: list[str], name: str, seconds: float, busy: float = 0.0) -> None:
        self.log, self.name, self.seconds, self.busy, self.used = log, name, seconds, busy, 0.0

    def time(self, calls: int) -> float:
        self.log.append(self.name)
        return calls * self.seconds

    def cpu_seconds(self) -> float:
        self.used += self.busy
        return self.used


def test_contestants_take_turns_and_each_begins() -> None:
    log: list[str] = []
    fakes = {name: Fake(log, name, seconds) for name, seconds in (("a", 0.01), ("b", 0.02), ("c", 0.03))}
    plan = timing.Plan(rounds=3, seconds=0.01, budget=9.0)
    times = timing.interleaved(fakes, plan, lambda key: key)
    assert times == pytest.approx({"a": 0.01, "b": 0.02, "c": 0.03})
    assert "".join(log[-9:]) == "abcbcacab"


def test_median_and_fewer_rounds_for_the_slow() -> None:
    fake = Fake([], "a", 1.0)
    answers = iter([1.0, 1.0, 5.0, 1.0, 2.0])
    fake.time = lambda calls: next(answers)  # type: ignore[method-assign]
    plan = timing.Plan(rounds=3, seconds=0.01, budget=1e9)
    assert timing.interleaved({"a": fake}, plan, lambda key: key) == {"a": 2.0}
    assert [timing.Plan(budget=4.0).rounds_for(s) for s in (0.01, 1.0, 100.0)] == [9, 4, 2]


def test_a_turn_that_became_short_is_made_longer() -> None:
    fake = Fake([], "a", 0.001)
    slow = iter([0.05, 0.05])  # while it is counted
    fake.time = lambda calls: next(slow, calls * 1e-4)  # type: ignore[method-assign]
    assert timing.interleaved({"a": fake}, timing.Plan(rounds=2), lambda key: key) == {"a": pytest.approx(1e-4)}


def test_calls_fill_a_turn() -> None:
    for seconds in (1e-6, 1e-3, 0.5):
        calls = timing.calls_for(Fake([], "a", seconds), 0.03)
        assert calls == max(1, round(0.03 / seconds))


def test_a_contestant_that_does_not_sleep_stops_the_run() -> None:
    fakes = {"a": Fake([], "a", 0.01), "b": Fake([], "b", 0.01, busy=0.01)}
    plan = timing.Plan(rounds=1, patience=0.02)
    with pytest.raises(timing.NotAsleep, match="b still used the processor after"):
        timing.interleaved(fakes, plan, lambda key: key)


def test_a_contestant_that_wakes_up_in_another_s_turn_is_noticed() -> None:
    sleeper = Fake([], "b", 0.01)

    class Waker(Fake):
        def time(self, calls: int) -> float:
            sleeper.used += 0.005
            return 0.01

    with pytest.raises(timing.NotAsleep, match=r"b used 5\.0 ms of the processor while another was timed"):
        timing.watched(Waker([], "a", 0.01), 1, {"b": sleeper}, timing.Plan(patience=1.0))


def test_a_worker_s_processor_time_is_seen() -> None:
    own = workers.Worker.__new__(workers.Worker)
    own.clock = (~os.getpid() << 3) | 2
    before = own.cpu_seconds()
    sum(range(1_000_000))
    assert 0.001 < own.cpu_seconds() - before < 10
    own.clock = (~(2**22 - 3) << 3) | 2  # no such process
    assert own.cpu_seconds() == 0.0
