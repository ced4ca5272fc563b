"""The one timer: warm-up, rounds in which contestants take turns, medians, and a watch over those that should sleep.

A contestant is anything with `time(calls) -> seconds` and `cpu_seconds() -> float`, the processor time that its process
has used so far. While one is timed the others must be asleep: on few processors a thread that spins (OpenMP's wait for
more work for a while) takes a share of the processor that is being measured, and both numbers are then wrong.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

QUIET = 0.02  # of the measured time: what the others together may use of the processor meanwhile
GRAIN = 0.0005  # seconds of processor time that a sleeping process may still use: it answers, and a clock ticks


class Contestant(Protocol):
    """What can be timed."""

    def time(self, calls: int) -> float:
        """Seconds that `calls` calls take."""
        ...

    def cpu_seconds(self) -> float:
        """Processor time that the contestant's process has used so far."""
        ...


class NotAsleep(Exception):
    """An engine kept using the processor while another was timed: no number taken then means anything."""


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    rounds: turns of every contestant. seconds: a turn lasts at least so long. budget: of one contestant in all rounds;
    a slow one gets fewer rounds, but at least `least`. patience: how long to wait for the others to fall asleep.
    """

    rounds: int = 9
    seconds: float = 0.03
    budget: float = 4.0
    least: int = 2
    patience: float = 5.0

    def rounds_for(self, turn: float) -> int:
        """How many rounds, if the slowest contestant's turn lasts so long."""
        return max(self.least, min(self.rounds, int(self.budget / max(turn, 1e-9))))


QUICK = Plan(rounds=3, seconds=0.003, budget=1.0, least=1)


def wait_until_asleep(others: Mapping[Any, Contestant], patience: float, nap: float = 0.004) -> None:
    """Returns once none of the others uses the processor. NotAsleep names the one that does after `patience` s."""
    end = time.perf_counter() + patience
    while True:
        before = {key: other.cpu_seconds() for key, other in others.items()}
        time.sleep(nap)
        awake = [key for key, other in others.items() if other.cpu_seconds() - before[key] > GRAIN]
        if not awake:
            return
        if time.perf_counter() > end:
            raise NotAsleep(f"{', '.join(map(str, awake))} still used the processor after {patience:g} s of waiting")


def watched(contestant: Contestant, calls: int, others: Mapping[Any, Contestant], plan: Plan) -> float:
    """Seconds of `calls` calls, measured while the others slept; measured again (up to four times) if one woke up."""
    used: dict[Any, float] = {}
    for _ in range(5):
        wait_until_asleep(others, plan.patience)
        before = {key: other.cpu_seconds() for key, other in others.items()}
        seconds = contestant.time(calls)
        used = {key: other.cpu_seconds() - before[key] for key, other in others.items()}
        if sum(used.values()) <= GRAIN + QUIET * seconds:
            return seconds
    worst = max(used, key=lambda key: used[key])
    raise NotAsleep(f"{worst} used {1e3 * used[worst]:.1f} ms of the processor while another was timed")


def calls_for(contestant: Contestant, seconds: float) -> int:
    """How many calls last about `seconds`, after a warm-up; at least one."""
    contestant.time(1)
    calls = 1
    while True:
        taken = contestant.time(calls)
        if taken >= seconds / 2:
            return max(1, round(calls * seconds / taken)) if taken < seconds else calls
        calls = min(calls * 10, max(calls + 1, int(calls * seconds / max(taken, 1e-9))))


def interleaved(contestants: Mapping[str, Contestant], plan: Plan, process: Callable[[str], Any]) -> dict[str, float]:
    """The median time of a call of each contestant, from rounds in which they take turns, each beginning once.

    process: tells which process a contestant lives in; those of the same process need not sleep for one another, for
    only one of them runs.
    """
    calls = {key: calls_for(contestant, plan.seconds) for key, contestant in contestants.items()}
    others = {
        key: {process(other): c for other, c in contestants.items() if process(other) != process(key)}
        for key in contestants
    }
    keys = list(contestants)
    times: dict[str, list[float]] = {key: [] for key in keys}
    rounds, turn = 1, 0
    while turn < rounds:
        for key in keys[turn % len(keys) :] + keys[: turn % len(keys)]:
            seconds = watched(contestants[key], calls[key], others[key], plan)
            while seconds < plan.seconds / 2:  # it was slower when the calls were counted
                calls[key] = max(calls[key] + 1, round(calls[key] * plan.seconds / max(seconds, 1e-9)))
                seconds = watched(contestants[key], calls[key], others[key], plan)
            times[key].append(seconds / calls[key])
        if turn == 0:
            rounds = plan.rounds_for(max(times[key][0] * calls[key] for key in keys))
        turn += 1
    return {key: statistics.median(values) for key, values in times.items()}
