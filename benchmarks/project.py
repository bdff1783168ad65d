"""The whole project: how soon it is up beside `dagster dev`, and a pipeline's run beside one plain script."""

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
from benchmarks.service import free_port, scratch
from benchmarks.timing import Timing, in_turn, timed
from benchmarks.up import Up
from demo.digits import NAMES

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PATIENCE_S = 120


def _checkout(folder: Path) -> Path:
    """Copy the project, so that the measured one has no state and disturbs none."""
    copy = folder / "project"
    copy.mkdir()
    for name in ("definitions.py", "workspace.yaml", "containers", "components"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    return copy


def _seconds_until(is_up: Callable[[], bool]) -> float:
    start = time.perf_counter()
    while not is_up():
        if time.perf_counter() - start > PATIENCE_S:
            raise TimeoutError(f"not up after {PATIENCE_S} s")
        time.sleep(0.05)
    return time.perf_counter() - start


def _dagster_dev_s(project: Path, folder: Path) -> float:
    """Return the seconds until `dagster dev` has loaded the same definitions and serves them."""
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
    """Bring both up in turn; run the pipeline and the script in turn while the project is up."""
    with scratch() as folder:
        project = _checkout(folder)
        started = in_turn(partial(_up_s, project), partial(_dagster_dev_s, project, folder), rounds=3, most_rounds=5)
        archives = folder / "archives"
        subprocess.run([sys.executable, "demo/digits.py", archives], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with Up(project) as up:
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
    """Return the figure of a duration that may be 1.5 times the rival's."""
    ratio = 1 / timing.ratio
    target = "within 1.5 times"
    return compare(figure, timing.ours, timing.rival, "s", target, ratio <= 1.5, ratio=ratio, error=timing.error)


def _up_s(project: Path) -> float:
    """Return the seconds that `bonseyes up --detach` takes, which ends when everything is healthy."""
    begun = time.perf_counter()
    with Up(project):
        return time.perf_counter() - begun


def _pipeline_s(up: Up, archives: Path, numbers: Iterator[int]) -> float:
    """Return the seconds that `bonseyes run --wait` takes."""
    options = [word for name, archive in NAMES.items() for word in ("-f", f"{name}={archives / archive}")]
    name = f"bench-{next(numbers)}"
    return timed(lambda: up.call("run", "digits-cnn", "--name", name, "--wait", "--no-reuse", "--json", *options))


def _script_s(archives: Path, folder: Path, numbers: Iterator[int]) -> float:
    """Return the seconds that the script takes."""
    out = folder / f"script-{next(numbers)}"
    command = [sys.executable, "-m", "benchmarks.digits_script", out, "--archives", archives]
    return timed(lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL))
