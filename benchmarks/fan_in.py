"""Measures a step with many inputs: wired from as many ops, or collected from a dynamic output.

`python -m benchmarks.fan_in [--counts 10,100,300,1000] [--multiprocess 10]` measures this project's executor and IO
manager, then Dagster's in-process executor. Each run has a new process and a new home. Dagster's multiprocess executor
takes seconds for each op. So `--multiprocess` limits the count for it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.figure import Figure, compare, print_table

COUNTS = (10, 100, 300, 1000)
SHAPES = ("wired", "mapped")


def measure(counts: tuple[int, ...] = COUNTS, multiprocess_up_to: int = 0) -> list[Figure]:
    """Measure each count of each shape, first ours, then Dagster's."""
    return [figure for shape in SHAPES for figure in _measure_shape(shape, counts, multiprocess_up_to)]


def _measure_shape(shape: str, counts: tuple[int, ...], multiprocess_up_to: int) -> list[Figure]:
    figures, per_input_s = [], {}
    for count in counts:
        ours, stock = _seconds(shape, "ours", count), _seconds(shape, "in_process", count)
        per_input_s[count] = ours / count
        figures.append(
            compare(f"{count} inputs, {shape}, beside in-process", ours, stock, "s", "at most 2 x", ours <= 2 * stock)
        )
        if count <= multiprocess_up_to:
            stock = _seconds(shape, "multiprocess", count)
            figures.append(
                compare(f"{count} inputs, {shape}, beside multiprocess", ours, stock, "s", "less", ours < stock)
            )
    least, most = min(counts), max(counts)
    growth = per_input_s[most] / per_input_s[least]
    # The fixed cost of a run makes each input of the smallest run more expensive. So linear growth gives less than 1.
    name = f"time for each input, {shape}, {most} by {least}"
    return [*figures, compare(name, growth, None, "", "at most 1.5", growth <= 1.5)]


def _seconds(shape: str, kind: str, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.fan_in_run", shape, kind, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> int:
    """Measure the counts of the command line and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fan_in", description=__doc__)
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="numbers of inputs (%(default)s)")
    parser.add_argument(
        "--multiprocess", type=int, default=0, metavar="COUNT", help="most inputs for Dagster's multiprocess executor"
    )
    arguments = parser.parse_args()
    figures = measure(tuple(int(count) for count in arguments.counts.split(",")), arguments.multiprocess)
    print_table(figures)
    return 0 if all(figure.ok is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
