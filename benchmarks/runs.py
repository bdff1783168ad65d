"""Measures the overhead of a run: with our executor and launcher, and with Dagster's own, on one instance each.

`python -m benchmarks.runs [--json] [--repeat N] [--postgres URL]` only prints the figures. `python -m benchmarks runs`
also writes them to latest.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from dagster import DagsterRunStatus

from benchmarks.figure import Figure, compare, print_table
from benchmarks.timing import cpu_s_of
from tests.launching_project import LaunchingProject, code_server, launching_project, wait_until

JOBS = Path(__file__).with_name("run_jobs.py")
REPEAT = 5


class MeasuredProject:
    """A project, with the processes whose processor time counts for its runs."""

    def __init__(self, project: LaunchingProject, processes: list[int]) -> None:
        self.project = project
        self._processes = [psutil.Process(pid) for pid in [os.getpid(), *processes]]

    def cpu_s(self) -> float:
        """Return the processor time of these processes and of all their children, also ended ones."""
        tree = [p for process in self._processes for p in [process, *process.children(recursive=True)]]
        return sum(cpu_s_of(process) for process in tree)

    def run(self, *jobs: str) -> tuple[float, float]:
        """Launch runs one after another and wait for all of them. Return seconds and processor seconds."""
        cpu, started = self.cpu_s(), time.monotonic()
        run_ids = [self.project.launch(job) for job in jobs]
        statuses = [self.project.wait(run_id, timeout_s=300) for run_id in run_ids]
        wall = time.monotonic() - started
        if set(statuses) != {DagsterRunStatus.SUCCESS}:
            raise SystemExit(f"A run did not succeed: {statuses}.")
        time.sleep(2.0)  # processes are still ending
        return wall, self.cpu_s() - cpu

    def median(self, *jobs: str, repeat: int) -> tuple[float, float]:
        """Run the jobs `repeat` times. Return the medians."""
        results = [self.run(*jobs) for _ in range(repeat)]
        return statistics.median(r[0] for r in results), statistics.median(r[1] for r in results)


@contextmanager
def projects() -> Iterator[tuple[MeasuredProject, MeasuredProject]]:
    """Yield our project and a project with Dagster's own launcher. Both use the same code server."""
    with tempfile.TemporaryDirectory() as folder, code_server(JOBS) as port:
        own = psutil.Process()
        [code] = [child.pid for child in own.children() if "grpc" in child.cmdline()]
        ours, stock = Path(folder) / "ours", Path(folder) / "stock"
        for path in (ours, stock):
            path.mkdir()
        with (
            launching_project(ours, port, jobs=JOBS) as warm_project,
            launching_project(stock, port, jobs=JOBS, launcher="stock") as stock_project,
        ):
            server = warm_project.serve_runs().process.pid
            yield MeasuredProject(warm_project, [server, code]), MeasuredProject(stock_project, [code])


def _launched_pss_mb(ours: MeasuredProject) -> float:
    """Return the memory of a waiting run: its proportional set size."""
    project = ours.project
    run_ids = [project.launch("patient") for _ in range(5)]
    server = project.servers[0]
    wait_until(lambda: all(project.run(run_id).status == DagsterRunStatus.STARTED for run_id in run_ids))
    time.sleep(1)
    pids = [server.ping()["runs"][run_id] for run_id in run_ids]
    sizes = [_pss_mb(pid) for pid in pids]
    for run_id in run_ids:
        project.instance.run_launcher.terminate(run_id)
    for run_id in run_ids:
        project.wait(run_id)
    return statistics.median(sizes)


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _held_connections(ours: MeasuredProject) -> int:
    """Return the number of database connections of twenty waiting runs."""
    project = ours.project
    database: Any = project.instance.run_storage
    others = _open_connections(database)
    run_ids = [project.launch("patient") for _ in range(20)]
    wait_until(lambda: all(project.run(run_id).status == DagsterRunStatus.STARTED for run_id in run_ids))
    time.sleep(5.0)
    held = _open_connections(database) - others
    for run_id in run_ids:
        project.instance.run_launcher.terminate(run_id)
    for run_id in run_ids:
        project.wait(run_id)
    return held


def _open_connections(database: Any) -> int:
    with database.connect() as connection:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        return int(connection.exec_driver_sql(statement).scalar_one())


def _cancel_s(ours: MeasuredProject) -> float:
    project = ours.project
    run_id = project.launch("patient")
    wait_until(lambda: any(e.step_key for e in project.instance.all_logs(run_id)))
    started = time.monotonic()
    project.instance.run_launcher.terminate(run_id)
    wait_until(lambda: project.run(run_id).is_finished, every_s=0.005)
    return time.monotonic() - started


def measure(repeat: int = REPEAT) -> list[Figure]:
    """Measure ours, then Dagster's own. One run before that warms up ours."""
    with projects() as (ours, stock):
        ours.run("chain")
        wall, cpu = ours.median("chain", repeat=repeat)
        naps, _ = ours.median("naps", repeat=max(1, repeat // 2))
        many, _ = ours.median(*["single"] * 20, repeat=max(1, repeat // 2))
        pss = _launched_pss_mb(ours)
        cancel = statistics.median(_cancel_s(ours) for _ in range(repeat))
        stock_wall, stock_cpu = stock.run("chain_stock")
    at_least: Callable[[float, float], bool] = lambda own, rival: rival >= 30 * own  # noqa: E731 - two words long
    return [
        compare("7 empty ops in a chain, wall", wall, stock_wall, "s", "1/30", at_least(wall, stock_wall)),
        compare("7 empty ops in a chain, processor", cpu, stock_cpu, "s", "1/30", at_least(cpu, stock_cpu)),
        compare("20 ops of 0.5 s at once, wall", naps, None, "s", "under 1.5 s", naps < 1.5),
        compare("20 runs at once, wall", many, None, "s", "under 4 s", many < 4),
        compare("memory of a waiting run (PSS)", pss, None, "MB", "under 50 MB", pss < 50),
        compare("terminate to CANCELED", cancel, None, "s", "under 0.5 s", cancel < 0.5),
    ]


def measure_postgres(url: str, repeat: int = REPEAT) -> list[Figure]:
    """Measure ours with the runs in the database at `url`. It must be empty."""
    with (
        tempfile.TemporaryDirectory() as folder,
        code_server(JOBS) as port,
        launching_project(Path(folder), port, jobs=JOBS, postgres=url) as project,
    ):
        ours = MeasuredProject(project, [project.serve_runs().process.pid])
        ours.run("chain")
        wall, cpu = ours.median("chain", repeat=repeat)
        many, _ = ours.median(*["single"] * 20, repeat=max(1, repeat // 2))
        held = _held_connections(ours)
    return [
        compare("7 empty ops in a chain on Postgres, wall", wall, None, "s", "", None),
        compare("7 empty ops in a chain on Postgres, processor without the database's", cpu, None, "s", "", None),
        compare("20 runs at once on Postgres, wall", many, None, "s", "", None),
        compare("connections that 20 waiting runs hold", held, None, "", "none", held <= 0),
    ]


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runs", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--repeat", type=int, default=REPEAT)
    parser.add_argument("--postgres", metavar="URL", help="measure with the runs in this empty database")
    arguments = parser.parse_args()
    url, repeat = arguments.postgres, arguments.repeat
    figures = measure_postgres(url, repeat) if url else measure(repeat)
    if arguments.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    else:
        print_table(figures)


if __name__ == "__main__":
    main()
