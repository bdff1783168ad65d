"""`python -m demo`: runs the project's main job, from raw archives to a benchmarked model. The project stays up.

The demo starts the project if it is not up. Through the HTTP API, it runs the pipeline `digits-cnn` on scikit-learn's
digits and prints the benchmark. A second demo reuses the artifacts of the first, because nothing has changed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bonseyes_dagster.client import Artifact, Container, Project
from bonseyes_dagster.embedded import background
from bonseyes_dagster.errors import BonseyesError, NotFoundError
from bonseyes_dagster.model import Status, Step
from bonseyes_dagster.project import display
from bonseyes_dagster.project import folder as project_folder
from bonseyes_dagster.project.environment import read_env_file
from bonseyes_dagster.project.state import ProjectState, read_project_state
from bonseyes_dagster.settings import Settings
from demo.digits import NAMES, digits, write_archives

PIPELINE = "digits-cnn"
BENCHMARK = "benchmark"
MODEL = "train"
WAIT_S = 1800.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Return 1 if the run or the benchmark failed, 2 if the demo could not run the pipeline."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--port", type=int, help="the gateway's port (BONSEYES_PORT, 8000)")
    parser.add_argument("--epochs", type=int, default=30, help="most epochs of the training (%(default)s)")
    parser.add_argument("--pipeline", default=PIPELINE, help="the pipeline to run (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        return _demonstrate(options.pipeline, options.epochs, options.port)
    except BonseyesError as error:
        _print_line(f"The demo could not run: {error.message}")
        for name, why in (error.detail or {}).items() if isinstance(error.detail, dict) else ():
            _print_line(f"  {name}: {why}")
        return 2
    except KeyboardInterrupt:
        _print_line("\nInterrupted. Started processes go on; `bonseyes down` ends them.")
        return 130


def _demonstrate(pipeline: str, epochs: int, port: int | None) -> int:
    here = project_folder.find_project(Path(__file__).parent)
    read_env_file(here.folder)
    settings = Settings.from_environ()
    settings = replace(settings, port=port, url="") if port else settings
    archives = _archives(here.state_folder / "demo")
    url = _start(here, settings).url
    project = Project(url, settings.token or None)
    container = project.container(pipeline, "runs")
    run = container.create(_free_name(container), {"epochs": epochs}, dict(archives), reuse=True)
    _print_line(f"\nRun {run.name} of {pipeline}:")
    begun_s = time.monotonic()
    status = run.wait(WAIT_S, _StepPrinter(project))
    _print_line(f"Run {run.name}: {status.phase} after {time.monotonic() - begun_s:.1f} s.")
    if status.phase != "completed":
        _print_line(f"Why: {status.reason}\nThe log: bonseyes runs log {pipeline}/{run.name}")
        return 1
    passed = _report(project, status)
    _print_links(url, here, status, pipeline)
    return 0 if passed else 1


def _archives(folder: Path) -> dict[str, Path]:
    """Return the four archives by parameter. The first demo writes them."""
    files = {parameter: folder / name for parameter, name in NAMES.items()}
    if not all(file.exists() for file in files.values()):
        _print_line(f"Writing the digits archives to {folder}.")
        draft = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        write_archives(draft, digits())
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    return files


def _start(here: project_folder.Project, settings: Settings) -> ProjectState:
    running = read_project_state(here)
    _print_line(f"The project is {'already up' if running else 'starting'}.")
    supervisor = None if running else background.start_supervisor(here, settings)
    with display.show() as shown:
        project_state = background.wait_healthy(
            here, (lambda _: None) if running else shown.update, supervisor=supervisor
        )
    if project_state is None:
        raise NotFoundError(
            "Some services did not get healthy; `bonseyes status` and `bonseyes logs` show the details."
        )
    return project_state


def _free_name(container: Container) -> str:
    taken = set(container.names())
    number = 1
    while f"demo-{number}" in taken:
        number += 1
    return f"demo-{number}"


class _StepPrinter:
    """Prints a line when a step begins and when it ends. The line names the artifact that the step reuses."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._seen: dict[str, str] = {}

    def __call__(self, status: Status) -> None:
        for step in status.steps or ():
            if self._seen.get(step.name) != step.phase:
                self._seen[step.name] = step.phase
                self._print_step(step)

    def _print_step(self, step: Step) -> None:
        if step.phase == "queued":
            return
        detail = ""
        if step.phase == "completed":
            origin = self._project.container(step.container).artifact(step.artifact).status().reused_from
            detail = f"unchanged, reused from {origin}" if origin else _progress(step)
        _print_line(f"  {step.name:<14} {step.phase:<10} {detail}".rstrip())


def _progress(step: Step) -> str:
    progress = step.progress
    parts = [f"{progress.done:g} {progress.unit or ''}".strip()] if progress.done is not None else []
    return ", ".join([*parts, *([progress.message] if progress.message else [])])


def _report(project: Project, status: Status) -> bool:
    report: dict[str, Any] = json.loads(_artifact_of(project, status, BENCHMARK).read("report.json"))
    _print_line(
        f"\nBenchmark, on images that were not in the training:\n  accuracy {report['metrics']['accuracy']:.2%}"
    )
    for kind, key in (("criterion", "evaluation_criterias"), ("constraint", "constraints")):
        for verdict in report[key]:
            mark = "passed" if verdict["passed"] else "FAILED"
            _print_line(f"  {kind:<10} {verdict['name']:<10} {mark}: {verdict['reason']}")
    return bool(report["passed"])


def _print_links(url: str, here: project_folder.Project, status: Status, pipeline: str) -> None:
    step = _step(status, MODEL)
    _print_line(f"\nThe model:    {url}/containers/{step.container}/artifacts/{step.artifact}/data/model.onnx")
    _print_line(f"  to a folder bonseyes artifact data {step.container}/{step.artifact} -o model")
    _print_line(f"\nThe run:      {url}/")
    _print_line(f"  as data     {url}/containers/{pipeline}/runs/{status.name}")
    _print_line(f"  in Dagster  {url}/dagster/runs/{status.run_id}")
    _print_line(f"  its curves  {url}/containers/visualization/")
    _print_line(f"\nThe project stays up, its state is in {here.state_folder}; `bonseyes down` ends it.")


def _step(status: Status, name: str) -> Step:
    for step in status.steps or ():
        if step.name == name:
            return step
    raise NotFoundError(f"The run has no step {name!r}.")


def _artifact_of(project: Project, status: Status, name: str) -> Artifact:
    step = _step(status, name)
    return project.container(step.container).artifact(step.artifact)


def _print_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
