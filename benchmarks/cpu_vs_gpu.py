"""Every kernel and the training steps on the CPU and on a GPU, against CuPy (cuBLAS) and PyTorch (cuBLAS, cuDNN) there.

Without a GPU: the CPU's column, and for named cards the least time that bytes over bandwidth and operations over rate
allow. On a GPU, times are between device events, after a warm-up, on inputs in turn that no cache holds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cards
import targets
from command import Benchmark, options, parser, say
from table import Row, number, save, summary
from tinygrad_nm import DeviceError, backend
from tinygrad_nm.cli.limits import Limits

GPU, PEERS = "ours_cuda", ("cupy", "torch_cuda")


class CpuVsGpu(Benchmark):
    """Rows of the CPU ("ours") beside those of the GPU ("ours_cuda") and its libraries."""

    on_gpu: bool = False
    card: dict[str, Limits]  # the measured ceiling of the GPU, by dtype

    def measured_limits(self) -> dict[str, Limits]:
        """The CPU's, and the GPU's where there is one."""
        if self.on_gpu:
            self.card = {dtype: cards.measured(dtype) for dtype in self.given.dtypes}
        return super().measured_limits()

    def tell(self, rows: list[Row]) -> None:
        """The table; the file and the picture where asked for."""
        for line in table(self.heads(), [self.cells(r) for r in rows]):
            print(line)
        print(summary(rows) if self.on_gpu else "no GPU was measured: no row can pass or fail")
        if self.given.json is not None:
            floors = {case.key: self.floors(case) for case, _ in self.rows}
            save(self.given.json, rows, self.about() | {"floors": floors, "cards": cards.CARDS})
            picture(self.given.json.with_suffix(".png"), rows, floors)

    def floors(self, case: Any) -> dict[str, float | None]:
        """The least time of a row on each named card, in its unit."""
        return {card: self.least(case, cards.limits(card, case.dtype)) for card in cards.CARDS}

    def heads(self) -> tuple[str, ...]:
        """Of the columns."""
        gpu = ("GPU", "CPU / GPU", "best library", "library / GPU", "of ceiling") if self.on_gpu else ()
        return ("row", "shape", "CPU", *gpu, *(f"least {card}" for card in cards.CARDS))

    def cells(self, r: Row) -> tuple[str, ...]:
        """A row's texts."""
        case = next(c for c, _ in self.rows if (c.name, c.shape, c.dtype) == (r.name, r.shape, r.dtype))
        least = ["-" if f is None else number(f) for f in self.floors(case).values()]
        own = "-" if r.ours is None else f"{number(r.ours)} {r.unit}"
        return (r.name, f"{r.shape} {r.dtype}", own, *(self.gpu_cells(case, r) if self.on_gpu else ()), *least)

    def gpu_cells(self, case: Any, r: Row) -> tuple[str, ...]:
        """The texts of the columns that a GPU adds."""
        gpu = r.peers.get(GPU)
        if gpu is None or r.ours is None:
            return (f"FAILED: {r.why}", "-", "-", "-", "-")
        libraries = {name: figure for name, figure in r.peers.items() if name != GPU}
        best = min(libraries, key=lambda name: libraries[name], default=None)
        least = self.least(case, self.card[case.dtype])
        return (
            f"{number(gpu)} {r.unit}",
            f"{r.ours / gpu:.1f}",
            "-" if best is None else f"{best} {number(libraries[best])}",
            "-" if best is None else f"{libraries[best] / gpu:.2f}",
            "-" if least is None else f"{100 * least / gpu:.0f} %",
        )


def table(heads: tuple[str, ...], body: list[tuple[str, ...]]) -> list[str]:
    """Plain columns, numbers to the right."""
    widths = [max(len(row[i]) for row in (heads, *body)) for i in range(len(heads))]
    sides: list[Callable[[str, int], str]] = [str.ljust, str.ljust, *[str.rjust] * (len(heads) - 2)]
    return [
        "  ".join(side(text, width) for side, text, width in zip(sides, row, widths, strict=True)).rstrip()
        for row in (heads, *body)
    ]


def picture(path: Path, rows: list[Row], floors: dict[str, dict[str, float | None]]) -> None:
    """A bar a row: the CPU's time over the GPU's, or over the least time of each card where no GPU was measured."""
    from matplotlib.figure import Figure

    bars: dict[str, list[float]] = {}
    for r in rows:
        key = f"{r.name} {r.shape} {r.dtype}"
        below = {"GPU": r.peers[GPU]} if GPU in r.peers else floors[key]
        for name, least in below.items():
            ratio = r.ours / least if r.ours is not None and least else float("nan")
            bars.setdefault(name, []).append(ratio)
    figure = Figure(figsize=(10, 2 + 0.3 * len(rows)), layout="constrained")
    axes, height = figure.subplots(), 0.8 / len(bars)
    for i, (name, ratios) in enumerate(bars.items()):
        label = "measured" if name == "GPU" else f"at most, {name}"
        axes.barh([y + i * height for y in range(len(ratios))], ratios, height, label=label)
    axes.set_yticks(range(len(rows)), [f"{r.name} {r.shape}" for r in rows])
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("time on the CPU over time on the GPU")
    axes.legend()
    figure.savefig(path, dpi=120)
    say(f"the picture: {path}")


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    made = parser(__doc__ or "", ())
    given = options(made.parse_args(arguments), made.error)
    run = CpuVsGpu("cpu_vs_gpu", targets.cpu_vs_gpu(given.dtypes), given)
    try:
        backend.device("cuda")
    except DeviceError as reason:
        say(f"no GPU is measured: {reason}")
    else:
        run.on_gpu, given.peers = True, [GPU, *PEERS]
    return run.run()


if __name__ == "__main__":
    sys.exit(main())
