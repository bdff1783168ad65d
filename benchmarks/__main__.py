"""`python -m benchmarks [SUITE ...]`: runs the suites, prints a table, writes latest.json and latest.png."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.figure import HERE, Figure, as_markdown, draw, print_table, read_json, stamped, write_json

SUITES = ("artifacts", "data", "lists", "held", "gateway", "runs", "fan_in", "pipelines", "project")


def main() -> int:
    """Run the suites on the command line, or all suites."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suite", nargs="*", help=f"any of {', '.join(SUITES)}; the default is all")
    parser.add_argument("--markdown", action="store_true", help="only print the last figures as Markdown")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(as_markdown(read_json(HERE / "latest.json")))
        return 0
    chosen = arguments.suite or SUITES
    unknown = set(chosen) - set(SUITES)
    if unknown:
        parser.error(f"There is no suite {', '.join(sorted(unknown))}; the suites are {', '.join(SUITES)}.")
    figures: list[Figure] = []
    for suite in chosen:
        print(f"measuring {suite} …", file=sys.stderr, flush=True)
        figures += stamped(importlib.import_module(f"benchmarks.{suite}").measure(), suite)
        # Write them now: a failure of a later suite must not lose them.
        write_json(figures, HERE / "latest.json")
    print_table(figures)
    draw(figures, HERE / "latest.png")
    return 0 if all(f.ok is not False for f in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
