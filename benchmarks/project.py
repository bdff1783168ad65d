"""Measures the whole project: its start beside `dagster dev`, and a pipeline's run beside a plain script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import requests

from benchmarks.figure import Figure, compare
from benchmarks.running_project import RunningProject
from benchmarks.service import free_port, scratch
from benchmarks.timing import Timing, in_turn, timed
from demo.digits import NAMES

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
UP_TIMEOUT_S = 120


def _checkout(folder: Path) -> Path:
    """Copy the project. The copy has no state, and the measurement does not disturb the original."""
    copy = folder / "project"
    copy.mkdir()
    for name in ("definitions.py", "workspace.yaml", "containers", "components"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    return copy


def _seconds_until(is_up: Callable[[], bool]) -> float:
    start = time.perf_counter()
    while not is_up():
        if time.perf_counter() - start > UP_TIMEOUT_S:
            raise TimeoutError(f"The service is not up after {UP_TIMEOUT_S} s.")
        time.sleep(0.05)
    return time.perf_counter() - start


def _dagster_dev_s(project: Path, folder: Path) -> float:
    """Return the seconds until `dagster dev` has loaded the same definitions."""
    port = free_port()
    home = folder / "dagster-home"
    home.mkdir(exist_ok=True)
    environ = os.environ | {"DAGSTER_HOME": str(home)}
    command = [BIN / "dagster", "dev", "-f", "definitions.py", "-p", str(port)]
    query = {"query": "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"}

    def is_up() -> bool:
        try:
            answer = requests.post(f"http://127.0.0.1:{port}/graphql", json=query, timeout=5).json()
        except (requests.RequestException, ValueError):
            return False
        return [entry["loadStatus"] for entry in answer["data"]["workspaceOrError"]["locationEntries"]] == ["LOADED"]

    with (folder / "dagster-dev.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=project, env=environ, stdout=log, stderr=log)
        try:
            return _seconds_until(is_up)
        finally:
            process.terminate()
            process.wait(60)


def measure() -> list[Figure]:
    """Start the project and `dagster dev` in turn. Then run the pipeline and the script in turn."""
    with scratch() as folder:
        project = _checkout(folder)
        started = in_turn(partial(_up_s, project), partial(_dagster_dev_s, project, folder), rounds=3, most_rounds=5)
        archives = folder / "archives"
        subprocess.run([sys.executable, "demo/digits.py", archives], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with RunningProject(project) as up:
            made = in_turn(
                partial(_pipeline_s, up, archives, count()),
                partial(_script_s, archives, folder, count()),
                rounds=3,
                most_rounds=5,
            )
    return [
        _figure("bonseyes up until healthy (dagster dev)", started),
        _figure("the digits pipeline (one plain script)", made),
    ]


def _figure(figure: str, timing: Timing) -> Figure:
    """Return the figure of a duration. The target is at most 1.5 times the rival's duration."""
    ratio = 1 / timing.ratio
    target = "within 1.5 times"
    return compare(figure, timing.ours, timing.rival, "s", target, ratio <= 1.5, ratio=ratio, error=timing.error)


def _up_s(project: Path) -> float:
    """Return the seconds of `bonseyes up --detach`. The command ends when all services are healthy."""
    begun = time.perf_counter()
    with RunningProject(project):
        return time.perf_counter() - begun


def _pipeline_s(up: RunningProject, archives: Path, numbers: Iterator[int]) -> float:
    """Return the seconds of `bonseyes run --wait`."""
    options = [word for name, archive in NAMES.items() for word in ("-f", f"{name}={archives / archive}")]
    name = f"bench-{next(numbers)}"
    return timed(lambda: up.call("run", "digits-cnn", "--name", name, "--wait", "--no-reuse", "--json", *options))


def _script_s(archives: Path, folder: Path, numbers: Iterator[int]) -> float:
    """Return the seconds of the script."""
    out = folder / f"script-{next(numbers)}"
    command = [sys.executable, "-m", "benchmarks.digits_script", out, "--archives", archives]
    return timed(lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL))
