"""One definition, two ways to run it: the embedded and the docker project make the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docker.running_project import TOOLS, RunningProject

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

STEPS = 9
MEASURED = ("latency_ms", "latency_p95_ms", "throughput_per_s")


def test_docker_project_makes_the_report_of_the_embedded_project(
    docker_project: RunningProject, digits: dict[str, Path], tmp_path: Path
) -> None:
    """All artifacts have the same content; only the times in the benchmark may differ."""
    in_docker = _made(docker_project, digits)
    with RunningProject(tmp_path / "embedded") as embedded:
        done = embedded.call("up", "--detach")
        assert done.returncode == 0, done.stderr
        try:
            assert _made(embedded, digits) == in_docker
        finally:
            assert embedded.call("down").returncode == 0


def _made(project: RunningProject, digits: dict[str, Path]) -> tuple[dict[str, str], Any]:
    """Return the digests of a run's artifacts, and the facts about the model in its report."""
    run = project.runs().create("same", {}, digits, reuse=False)
    assert run.wait(300).phase == "completed"
    made = [
        each for tool in TOOLS for each in project.client.container(tool).statuses() if each.name.startswith("same_")
    ]
    assert len(made) == STEPS
    report = json.loads(project.client.container("benchmarking").artifact("same_benchmark").read("report.json"))
    timeless = {name: value for name, value in report["metrics"].items() if name not in MEASURED}
    assert timeless["accuracy"] > 0.9
    verdicts = [(each["name"], each["passed"]) for each in report["evaluation_criterias"] + report["constraints"]]
    return {each.name: each.digest for each in made if each.name != "same_benchmark"}, (timeless, verdicts)
