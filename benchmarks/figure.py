"""The measured figures, each beside its rival. The module prints, draws, writes and reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, beside its rival.

    Attributes:
        figure: The name.
        ours: Our value, in `unit`.
        rival: The rival's value, in `unit`, from the same run. None if this machine does not have the rival.
        ratio: Ours / rival, or None without a rival.
        target: The promise, in words.
        ok: True if the target is met. None if there is no target, or the rival that it needs is missing.
        error: The half width of the ratio's 95 % interval, as a share of the ratio.
        suite: The suite. This field and the next two are set at the end of the suite.
        measured: The time at the end of the suite.
        load: The load average of the last minute of the suite.
    """

    figure: str
    ours: float
    rival: float | None
    unit: str
    ratio: float | None
    target: str
    ok: bool | None
    error: float | None = None
    suite: str = ""
    measured: str = ""
    load: float | None = None


def compare(
    figure: str,
    ours: float,
    rival: float | None,
    unit: str,
    target: str,
    ok: bool | None,
    *,
    ratio: float | None = None,
    error: float | None = None,
) -> Figure:
    """Return a figure. Without `ratio`, compute it from the two values."""
    if ratio is None and rival:
        ratio = ours / rival
    return Figure(figure, ours, rival, unit, ratio, target, ok, error)


def stamped(figures: Sequence[Figure], suite: str) -> list[Figure]:
    """Return the figures with the suite's name, the time and the load of now."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return [replace(f, suite=suite, measured=now, load=round(os.getloadavg()[0], 1)) for f in figures]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def print_table(figures: Sequence[Figure]) -> None:
    """Print one line for each figure."""
    table = Table(title="ours beside the rival, in the same run")
    for heading in ("figure", "ours", "rival", "unit", "ratio", "target", "met"):
        table.add_column(heading, justify="right" if heading in {"ours", "rival", "ratio"} else "left")
    for f in figures:
        met = {True: "[green]yes", False: "[red]no", None: "–"}[f.ok]
        table.add_row(f.figure, _number(f.ours), _number(f.rival), f.unit, _ratio(f), f.target, met)
    Console(width=160).print(table)


def as_markdown(figures: Sequence[Figure]) -> str:
    """Return a table for each suite, as in docs/performance.md."""
    lines: list[str] = []
    for suite in dict.fromkeys(f.suite for f in figures):
        chosen = [f for f in figures if f.suite == suite]
        lines += [f"`python -m benchmarks {suite}`, {chosen[0].measured}, load {chosen[0].load}:", ""]
        lines += ["| figure | ours | rival | unit | ratio | target | met |", "|---|---:|---:|---|---:|---|---|"]
        for f in chosen:
            met = {True: "yes", False: "**no**", None: "–"}[f.ok]
            cells = (f.figure, _number(f.ours), _number(f.rival), f.unit, _ratio(f), f.target, met)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _ratio(figure: Figure) -> str:
    error = "" if figure.error is None else f" ± {(figure.ratio or 0) * figure.error:.2f}"
    return _number(figure.ratio) + error


def read_json(path: Path) -> list[Figure]:
    """Return the last figures, or an empty list if the file is missing or has another format."""
    try:
        return [Figure(**entry) for entry in json.loads(path.read_text())]
    except (FileNotFoundError, TypeError, ValueError):
        return []


def write_json(figures: Sequence[Figure], path: Path) -> None:
    """Write `latest.json`, a list of figures. Keep the old figures of all other suites."""
    suites = {f.suite for f in figures}
    kept = [f for f in read_json(path) if f.suite and f.suite not in suites]
    path.write_text(json.dumps([asdict(f) for f in [*kept, *figures]], indent=2) + "\n")


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Draw the ratios on a logarithmic axis. A bar to the left of 1 means less than the rival."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rated = [f for f in figures if f.ratio]
    if not rated:
        return
    fig, ax = plt.subplots(figsize=(10, 0.6 + 0.42 * len(rated)), layout="constrained")
    colours = ["#2f7d4f" if f.ok else "#b3402e" if f.ok is False else "#777777" for f in rated]
    ax.barh(range(len(rated)), [f.ratio or 1 for f in rated], left=0, color=colours, height=0.6)
    ax.set_xscale("log")
    ax.axvline(1, color="black", linewidth=1)
    ax.set_yticks(range(len(rated)), [f.figure for f in rated])
    ax.invert_yaxis()
    for index, f in enumerate(rated):
        ax.text(f.ratio or 1, index, f"  {_number(f.ours)} : {_number(f.rival)} {f.unit}", va="center", fontsize=8)
    ax.margins(x=0.35)
    ax.set_xlabel("ours / rival")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("Each figure beside its rival in the same run (green: target met)")
    fig.savefig(path, dpi=120)
    plt.close(fig)
