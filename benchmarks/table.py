"""The rows: what was measured, as JSON and as a table."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from targets import Target, passes
from workloads import Case


@dataclass
class Row:
    """One row, over all reruns: figures are in `unit`, lower is better; None where nothing could be measured.

    ratio: the best peer's figure over ours, above 1 = ours is faster. roofline_share: of the measured limit, 1 =
    reached. variant, variants: which way was the fastest of ours, of each peer. left_out: a line for each variant of a
    peer that answered wrongly. why: what went wrong, if anything did.
    """

    name: str
    shape: str
    dtype: str
    unit: str
    target: float
    target_kind: str
    target_share: float | None
    ours: float | None = None
    peers: dict[str, float] = field(default_factory=dict)
    variant: str = ""
    variants: dict[str, str] = field(default_factory=dict)
    best_peer: str | None = None
    ratio: float | None = None
    roofline_share: float | None = None
    passed: bool = False
    left_out: list[str] = field(default_factory=list)
    why: str | None = None


@dataclass
class Measured:
    """One rerun of one case: figures of ours and of each peer, whose fastest variant is named."""

    ours: float
    peers: dict[str, float]
    variants: dict[str, str]


def row(
    case: Case,
    target: Target,
    reruns: list[Measured],
    least: float | None,
    why: str | None,
    left_out: list[str] | None = None,
) -> Row:
    """The medians over the reruns; the ratio is the median of the reruns' ratios. `least`: the limit, in the unit."""
    result = Row(case.name, case.shape, case.dtype, case.unit, target.value, target.kind, target.share, why=why)
    result.left_out = left_out or []
    if why is not None or not reruns:
        result.why = why or "was not measured"
        return result
    result.ours = statistics.median(m.ours for m in reruns)
    result.variant = Counter(m.variants.get("ours", "") for m in reruns).most_common(1)[0][0]
    names = set.intersection(*(set(m.peers) for m in reruns))
    result.peers = {name: statistics.median(m.peers[name] for m in reruns) for name in sorted(names)}
    for name in result.peers:
        result.variants[name] = Counter(m.variants[name] for m in reruns).most_common(1)[0][0]
    if result.peers:
        result.best_peer = min(result.peers, key=lambda name: result.peers[name])
        result.ratio = statistics.median(min(m.peers[name] for name in names) / m.ours for m in reruns)
    elif target.kind == "ratio":
        result.why = "no peer was measured"
    result.roofline_share = None if least is None else least / result.ours
    result.passed = passes(target, result.ours, result.ratio, result.roofline_share)
    return result


def summary(rows: list[Row]) -> str:
    """How many rows pass, and how many could not be measured."""
    lost = sum(r.ours is None for r in rows)
    line = f"{sum(r.passed for r in rows)} of {len(rows)} rows pass"
    return f"{line}; {lost} could not be measured and count as failed" if lost else line


def save(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """All rows, with the command, the processor and the versions."""
    content = about | {"rows": [asdict(r) for r in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


HEADS = ("row", "shape", "ours", "best peer", "other peers", "ratio", "target", "of limit", "")
WIDTH = 170  # characters, where the terminal does not say


def cells(r: Row) -> tuple[str, ...]:
    """A row's texts, one for each head."""
    shape = f"{r.shape} {r.dtype}"
    if r.ours is None:
        return (r.name, shape, "-", "-", "", "-", _target(r), "-", f"FAILED: {str(r.why).splitlines()[0]:.100}")
    best, others = "-", ""
    if r.best_peer is not None:
        best = _peer(r, r.best_peer)
        others = ", ".join(_peer(r, name) for name in r.peers if name != r.best_peer)
    ratio = "-" if r.ratio is None else f"{r.ratio:.2f}"
    share = "-" if r.roofline_share is None else f"{100 * r.roofline_share:.0f} %"
    own = f"{number(r.ours)} {r.unit}{f' ({r.variant})' if r.variant else ''}"
    verdict = "passes" if r.passed else f"fails{': ' + r.why if r.why else ''}"
    return (r.name, shape, own, best, others, ratio, _target(r), share, verdict)


def number(value: float) -> str:
    """Three or four digits."""
    return f"{value:.4g}" if value < 1000 else f"{value:.0f}"


def _peer(r: Row, name: str) -> str:
    variant = r.variants.get(name, "")
    return f"{name} {number(r.peers[name])}{f' ({variant})' if variant else ''}"


def _target(r: Row) -> str:
    text = f"<= {r.target:g}" if r.target_kind == "at most" else f"{r.target:.3g}"
    return text if r.target_share is None else f"{text}, {100 * r.target_share:.0f} %"


def show(rows: Iterable[Row]) -> None:
    """The table: by rich where it is installed, else in plain columns."""
    body = [cells(r) for r in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        lines = [HEADS, *body]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
        for line in lines:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
        return
    table = Table()
    for head in HEADS:
        table.add_column(head, justify="right" if head in ("ours", "ratio", "of limit") else "left")
    for line in body:
        table.add_row(*line, style=None if line[-1] == "passes" else "yellow")
    console = Console()
    Console(width=console.width if console.is_terminal else WIDTH).print(table)
