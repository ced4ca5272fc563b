"""The command line that all benchmarks share, and the run: prepare, compare, time, tell."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tinygrad_nm as nm
from compare import TOLERANCES, difference
from engines import PEERS, Unsupported
from table import Measured, Row, row, save, show, summary
from targets import Target
from timing import QUICK, NotAsleep, Plan, interleaved
from tinygrad_nm import _cpu
from tinygrad_nm.cli.limits import Limits, measure, threads_set
from tinygrad_nm.cli.roofline import step_seconds
from workers import Failed, Variant, Worker, prepared, started
from workloads import Case

MODELS = {"lenet": nm.nn.LeNet, "lenet5": nm.nn.LeNet5, "alexnet": nm.nn.AlexNet}


@dataclass
class Options:
    """What was asked for."""

    peers: list[str]
    threads: int
    dtypes: tuple[str, ...]
    json: Path | None
    only: str
    quick: bool
    avx2: bool
    reruns: int
    data: Path | None

    @property
    def plan(self) -> Plan:
        """How long to measure."""
        return QUICK if self.quick else Plan()


def say(line: str) -> None:
    """A line on the standard error: the standard output carries the table alone."""
    print(line, file=sys.stderr, flush=True)


def parser(question: str, peers: Iterable[str], dtypes: str = "float32") -> argparse.ArgumentParser:
    """The options; `question` is what the script answers, `peers` those that have an answer."""
    result = argparse.ArgumentParser(description=question)
    result.add_argument(
        "--peers", default=",".join(peers), help=f"of {','.join(PEERS)}; empty: none (default: %(default)s)"
    )
    result.add_argument("--threads", type=int, default=2, help="of every engine (default: %(default)s)")
    result.add_argument("--dtype", default=dtypes, help="float32, float64 or both (default: %(default)s)")
    result.add_argument("--json", type=Path, help="also write the rows to this file")
    result.add_argument("--only", default="", help="rows whose name, shape and dtype contain this text")
    result.add_argument("--quick", action="store_true", help="one short rerun: to see that it works, not for figures")
    result.add_argument("--avx2", action="store_true", help="keep every engine from instructions beyond AVX2")
    result.add_argument("--reruns", type=int, help="a row is the median of so many (default: 3; 1 if --quick)")
    return result


def options(parsed: argparse.Namespace, fail: Callable[[str], Any]) -> Options:
    """The options, checked; `fail` ends the program with a sentence."""
    peers = [name for name in parsed.peers.split(",") if name]
    dtypes = tuple(name for name in parsed.dtype.split(",") if name)
    for name in peers:
        if name not in PEERS:
            fail(f"--peers: {name!r} is not known; use {', '.join(PEERS)}")
    for name in dtypes:
        if name not in ("float32", "float64"):
            fail(f"--dtype: {name!r} is not known; use float32, float64 or both")
    reruns = (1 if parsed.quick else 3) if parsed.reruns is None else parsed.reruns
    if reruns < 1 or parsed.threads < 1 or not dtypes:
        fail("--reruns and --threads must be 1 or more, and --dtype must name one")
    data = getattr(parsed, "data", None)
    return Options(peers, parsed.threads, dtypes, parsed.json, parsed.only, parsed.quick, parsed.avx2, reruns, data)


def asked(question: str, peers: Iterable[str], arguments: list[str] | None, dtypes: str = "float32") -> Options:
    """The options of a script that has none of its own."""
    made = parser(question, peers, dtypes)
    return options(made.parse_args(arguments), made.error)


class Benchmark:
    """A run of the rows of one script.

    measure_case: times a case on the variants that run it and gives what was measured. It may be replaced, as by
    memory.py, which asks for something else than time.
    """

    def __init__(self, name: str, rows: Iterable[tuple[Case, Target]], given: Options) -> None:
        self.name, self.given = name, given
        self.rows = [(case, target) for case, target in rows if given.only in case.key]
        self.reruns: dict[str, list[Measured]] = {case.key: [] for case, _ in self.rows}
        self.faults: dict[str, str] = {}
        self.chosen: dict[str, dict[str, str]] = {}  # case -> the fastest variant of each engine
        self.limits: dict[str, Limits] = {}
        self.versions: dict[str, str] = {}
        self.left_out: dict[str, list[str]] = {}  # case -> a line for each variant that answered wrongly

    def run(self) -> int:
        """Measures, shows and saves; the exit status: 1 if an answer was wrong or a row could not be measured."""
        if not self.rows:
            say(f"{self.name}: no row contains {self.given.only!r}")
            return 2
        if self.given.avx2 and _cpu.isa() == "avx512":  # as in the workers
            _cpu.set_isa("avx2")
        self.limits = self.measured_limits()
        self.measure_all()
        again = (
            self.measured_limits()
        )  # on a busy machine a limit comes out too low, and rows would pass by their share
        self.limits = {dtype: limits.or_higher(again[dtype]) for dtype, limits in self.limits.items()}
        rows = self.finished()
        self.tell(rows)
        return int(bool(self.faults))

    def tell(self, rows: list[Row]) -> None:
        """The table, and the file if one was asked for."""
        show(rows)
        print(summary(rows))
        if self.given.json is not None:
            save(self.given.json, rows, self.about())

    def measured_limits(self) -> dict[str, Limits]:
        """This machine's limits now, for each dtype."""
        found = {}
        for dtype in self.given.dtypes:
            found[dtype] = measure(dtype, self.given.threads, 0.02 if self.given.quick else 0.1)
            say(str(found[dtype]))
        return found

    def measure_all(self) -> None:
        """All reruns, in the same worker processes."""
        workers = started(["ours", *self.given.peers], self.given.threads, self.given.avx2, say)
        self.versions = {name: worker.version for name, worker in workers.items()}
        say("; ".join(self.versions.values()))
        try:
            for rerun in range(self.given.reruns):
                for position, (case, _) in enumerate(self.rows, 1):
                    if case.key in self.faults:
                        continue
                    say(f"rerun {rerun + 1}/{self.given.reruns}, row {position}/{len(self.rows)}: {case.key}")
                    self.measure_case(case, workers, first=rerun == 0)
        finally:
            for worker in workers.values():
                worker.close()

    def measure_case(self, case: Case, workers: dict[str, Worker], first: bool) -> None:
        """One rerun of one row. What goes wrong is told and noted: the row then counts as failed."""
        try:
            variants = self.variants(case, workers, first)
            if first:
                variants = self.agreeing(case, variants)
            times = interleaved({v.key: v for v in variants}, self.given.plan, lambda key: key.split(":")[0])
        except (Failed, Unsupported, NotAsleep, Differs) as error:
            self.faults[case.key] = str(error)
            say(f"{case.key}: FAILED: {error}")
            return
        figures: dict[str, float] = {}
        chosen = self.chosen.setdefault(case.key, {})
        for variant in variants:
            engine, seconds = variant.worker.engine, times[variant.key]
            if engine not in figures or seconds < figures[engine]:
                figures[engine], chosen[engine] = seconds, variant.name
        ours = case.figure(figures.pop("ours"))
        peers = {name: case.figure(seconds) for name, seconds in figures.items()}
        self.reruns[case.key].append(Measured(ours, peers, dict(chosen)))

    def variants(self, case: Case, workers: dict[str, Worker], first: bool) -> list[Variant]:
        """What runs the case: all variants of each engine at first, then the fastest of each."""
        found = []
        for name, worker in workers.items():
            if not first and name not in self.chosen[case.key]:
                continue  # it has no such work, or answers wrongly
            try:
                chosen = None if first else self.chosen[case.key][name]
                made = prepared(worker, replace(case, variant=chosen), say if first else _silent)
            except Unsupported as reason:
                if name == "ours":
                    raise
                if first:
                    say(f"{case.key}: without {name}: {reason}")
                continue
            if not first:
                made = [v for v in made if v.name == chosen]
                worker.ask("keep", [v.name for v in made])
            found += made
        return found

    def agreeing(self, case: Case, variants: list[Variant]) -> list[Variant]:
        """The variants that answer as ours does; for each that does not, a line that says so, kept for the JSON.

        Raises Differs if no peer agrees with ours.
        """
        reasons = check_answers(case, variants)
        wrong = [f"without {key}: it answers otherwise: {reason}" for key, reason in reasons.items()]
        remaining = [v for v in variants if v.key not in reasons]
        for engine in sorted({v.worker.engine for v in variants} - {v.worker.engine for v in remaining}):
            wrong.append(f"without {engine}: none of its variants answers as ours does")
        for line in wrong:
            say(f"{case.key}: {line}")
        if wrong:
            self.left_out[case.key] = wrong
        return remaining

    def least(self, case: Case, limits: Limits) -> float | None:
        """The row's figure at these limits, in its unit; None where operations and bytes say nothing."""
        if case.kind in ("train", "infer"):
            with threads_set(1):
                model = MODELS[case.options["model"]](dtype=case.dtype)
                return case.figure(step_seconds(model, case.options["batch"], limits, case.kind == "train"))
        if case.moved == 0:
            return None
        return case.figure(limits.seconds(case.flops, case.moved, case.in_place))

    def finished(self) -> list[Row]:
        """All rows, also those that could not be measured."""
        return [
            row(
                case,
                target,
                self.reruns[case.key],
                self.least(case, self.limits[case.dtype]),
                self.faults.get(case.key),
                self.left_out.get(case.key),
            )
            for case, target in self.rows
        ]

    def about(self) -> dict[str, Any]:
        """Command, processor, versions, limits."""
        return {
            "benchmark": self.name,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "processor": processor(),
            "processors": len(os.sched_getaffinity(0)),
            "threads": self.given.threads,
            "reruns": self.given.reruns,
            "python": platform.python_version(),
            "versions": self.versions,
            "limits": {dtype: limits.to_dict() for dtype, limits in self.limits.items()},
        }


class Differs(Exception):
    """No peer's answer is ours: then ours counts as the wrong one."""


def check_answers(case: Case, variants: list[Variant]) -> dict[str, str]:
    """For each variant that answers otherwise than ours, within TOLERANCES, where it does.

    Raises Differs if there are peers and none of their variants agrees with ours: nothing then speaks for our answer;
    or if our own variants do not give the same bits.
    """
    tolerance = TOLERANCES[case.kind][case.dtype]
    answers = {v.key: v.worker.ask("answer", v.name) for v in variants}
    ours = [answers.pop(v.key) for v in variants if v.worker.engine == "ours"]
    own = ours[0]
    for answer in ours[1:]:
        if reason := difference(own, answer, 0.0):
            raise Differs(f"our own variants answer otherwise: {reason}")
    reasons = {key: difference(own, answer, tolerance) for key, answer in answers.items()}
    wrong = {key: reason for key, reason in reasons.items() if reason is not None}
    if wrong and len(wrong) == len(answers):
        raise Differs("; ".join(f"{key} answers otherwise: {reason}" for key, reason in wrong.items()))
    return wrong


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _silent(line: str) -> None:
    pass
