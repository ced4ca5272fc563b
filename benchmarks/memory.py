"""Peak memory of a process that trains AlexNet at batch 128: one process for each engine and variant."""

from __future__ import annotations

import sys
from dataclasses import replace

import targets
from command import Benchmark, Differs, asked, say
from engines import Unsupported
from table import Measured
from tinygrad_nm.cli.limits import Limits
from workers import Failed, Worker, missing, prepared
from workloads import Case

PEERS = ("torch",)
STEPS = 3  # of training; the first ones allocate all there is


class Memory(Benchmark):
    """Rows whose figure is VmHWM of the whole process: interpreter, libraries, weights, activations."""

    def measure_all(self) -> None:
        """All reruns; nothing is timed, so one process after another, each with the memory to itself."""
        engines = ["ours", *(name for name in self.given.peers if self._there(name))]
        for rerun in range(self.given.reruns):
            for case, _ in self.rows:
                if case.key in self.faults:
                    continue
                say(f"rerun {rerun + 1}/{self.given.reruns}: {case.key}")
                try:
                    self.reruns[case.key].append(self._measured(case, engines, compared=rerun == 0))
                except (Failed, Unsupported, Differs) as error:
                    self.faults[case.key] = str(error)
                    say(f"{case.key}: FAILED: {error}")

    def _there(self, engine: str) -> bool:
        line = missing(engine)
        if line is not None:
            say(line)
        return line is None

    def _measured(self, case: Case, engines: list[str], compared: bool) -> Measured:
        if compared:
            self._compare(case, engines)
        figures: dict[str, float] = {}
        chosen: dict[str, str] = {}
        for engine, name in self.known:
            figure = case.figure(self._peak(case, engine, name))
            if engine not in figures or figure < figures[engine]:
                figures[engine], chosen[engine] = figure, name
        return Measured(figures.pop("ours"), figures, chosen)

    def _compare(self, case: Case, engines: list[str]) -> None:
        """Answers of all variants, in processes that are not measured."""
        workers = [Worker(engine, self.given.threads, self.given.avx2) for engine in engines]
        try:
            self.versions = {worker.engine: worker.version for worker in workers}
            made = [variant for worker in workers for variant in prepared(worker, case, say)]
            self.known = [(v.worker.engine, v.name) for v in self.agreeing(case, made)]
        finally:
            for worker in workers:
                worker.close()

    def _peak(self, case: Case, engine: str, name: str) -> float:
        """Bytes of a fresh process that prepares this variant alone and trains some steps."""
        worker = Worker(engine, self.given.threads, self.given.avx2)
        try:
            variant = next(v for v in prepared(worker, replace(case, variant=name), say) if v.name == name)
            variant.time(STEPS)
            return float(worker.ask("peak_memory"))
        finally:
            worker.close()

    def least(self, case: Case, limits: Limits) -> float | None:
        """Memory has no roofline."""
        return None


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    given = asked(__doc__ or "", PEERS, arguments)
    return Memory("memory", targets.memory(given.dtypes), given).run()


if __name__ == "__main__":
    sys.exit(main())
