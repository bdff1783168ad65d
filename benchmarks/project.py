"""The whole project: how soon it is up beside `dagster dev`, and a pipeline's run beside one plain script."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests

from benchmarks.figure import Figure, compare
from benchmarks.service import free_port, scratch
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


def _bonseyes(project: Path, port: int, *words: str) -> str:
    environ = os.environ | {"BONSEYES_PORT": str(port)}
    done = subprocess.run([BIN / "bonseyes", *words], cwd=project, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bonseyes {' '.join(words)} ended with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure() -> list[Figure]:
    """Bring both up twice and keep the better time of each; then run the pipeline and the script in turn."""
    with scratch() as folder:
        project, port = _checkout(folder), free_port()
        archives = folder / "archives"
        subprocess.run([sys.executable, "demo/digits.py", archives], cwd=ROOT, check=True)
        files = {name: archives / archive for name, archive in NAMES.items()}
        options = [word for name, path in files.items() for word in ("-f", f"{name}={path}")]
        ups, devs, runs, scripts = [], [], [], []
        try:
            for index in range(2):
                ups.append(_timed(lambda: _bonseyes(project, port, "up", "--detach")))
                run = ["run", "digits-cnn", "--name", f"bench-{index}", "--wait", "--no-reuse", "--json", *options]
                runs.append(_timed(lambda run=run: json.loads(_bonseyes(project, port, *run))))  # type: ignore[misc]
                _bonseyes(project, port, "down")
                devs.append(_dagster_dev_s(project, folder))
                script = [
                    sys.executable,
                    "-m",
                    "benchmarks.digits_script",
                    folder / f"script-{index}",
                    "--archives",
                    archives,
                ]
                scripts.append(_timed(lambda script=script: subprocess.run(script, cwd=ROOT, check=True)))  # type: ignore[misc]
        finally:
            _bonseyes(project, port, "down")
    up, dev, run_s, script_s = min(ups), min(devs), min(runs), min(scripts)
    return [
        compare("bonseyes up until healthy (dagster dev)", up, dev, "s", "within 1.5 times", up <= 1.5 * dev),
        compare(
            "the digits pipeline (one plain script)", run_s, script_s, "s", "within 1.5 times", run_s <= 1.5 * script_s
        ),
    ]
