"""The main job in Docker, from archives to a benchmarked model, and the commands around it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from bonseyes_dagster.client import Artifact
from tests.docker.running_project import PIPELINES, SERVICES, TOOLS, RunningProject

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

LAUNCH = """
mutation ($job: String!, $config: RunConfigData!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "definitions", repositoryName: "__repository__", jobName: $job},
    runConfigData: $config
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
CONFIG = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { runConfigYaml } } }"
JOB = "digits_cnn"


def _run(docker_project: RunningProject, digits: dict[str, Path], name: str) -> subprocess.CompletedProcess[str]:
    files = [word for parameter, path in digits.items() for word in ("-f", f"{parameter}={path}")]
    return docker_project.call("run", "digits-cnn", "--name", name, "--wait", "--timeout", "400", *files)


@pytest.fixture(scope="module")
def first(docker_project: RunningProject, digits: dict[str, Path]) -> Artifact:
    """A completed run, started by the command."""
    done = _run(docker_project, digits, "first")
    assert done.returncode == 0, done.stdout + done.stderr
    run: Artifact = docker_project.runs().artifact("first")
    return run


def test_all_services_are_healthy(docker_project: RunningProject) -> None:
    """`status` lists every service, except the one-shot services."""
    done = docker_project.call("status", "--json")
    assert done.returncode == 0, done.stdout
    record = json.loads(done.stdout)
    assert sorted(service["name"] for service in record["services"]) == sorted(SERVICES)
    assert {service["state"] for service in record["services"]} == {"healthy"}
    assert record["url"] == docker_project.url
    kinds = {service["name"]: service["kind"] for service in record["services"]}
    assert {kinds[name] for name in TOOLS} == {"tool"}
    assert {kinds[name] for name in PIPELINES} == {"pipeline"}


def test_run_ends_with_a_passed_report(docker_project: RunningProject, first: Artifact) -> None:
    """The model meets every criterion and constraint, on images that it was not trained on."""
    status = first.status()
    assert {step.phase for step in status.steps or ()} == {"completed"}
    report = json.loads(docker_project.client.container("benchmarking").artifact("first_benchmark").read("report.json"))
    assert report["passed"]
    assert report["metrics"]["accuracy"] >= 0.97
    assert {verdict["name"] for verdict in report["evaluation_criterias"]} == {"accurate", "fair"}
    assert {verdict["name"] for verdict in report["constraints"]} == {"small", "fast"}


def test_second_run_takes_over_all_results(
    docker_project: RunningProject, digits: dict[str, Path], first: Artifact
) -> None:
    """No step computes anything again."""
    done = _run(docker_project, digits, "second")
    assert done.returncode == 0, done.stdout + done.stderr
    steps = docker_project.runs().artifact("second").status().steps
    assert len(steps) == 9
    for step in steps:
        status = docker_project.client.container(step.container).artifact(step.artifact).status()
        assert (status.phase, bool(status.reused_from)) == ("completed", True), step


def test_link_to_dagster_works_from_outside(docker_project: RunningProject, first: Artifact) -> None:
    """A browser on this machine must be able to open it."""
    url = first.status().dagster_url
    assert url is not None
    assert url.startswith(f"{docker_project.url}/dagster/runs/")
    assert requests.get(url, timeout=30).status_code == 200


def test_metrics_of_a_run_are_in_tensorboard(docker_project: RunningProject, first: Artifact) -> None:
    """TensorBoard fetches the learning curves from the tool."""
    url = f"{docker_project.url}/containers/visualization/data/runs"
    assert any("first_train" in run for run in requests.get(url, timeout=60).json())


def test_run_launched_in_dagsters_ui_is_listed(docker_project: RunningProject, first: Artifact) -> None:
    """It gets a name and completes."""
    launched = _graphql(docker_project, LAUNCH, job=JOB, config=_config(docker_project, first))["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = _by_id(docker_project, launched["run"]["runId"])
    assert run.wait(300).phase == "completed"


def test_run_launched_by_dagsters_command_is_listed(docker_project: RunningProject, first: Artifact) -> None:
    """`dagster job launch` works in Dagster's containers."""
    before = set(docker_project.runs().names())
    config = _config(docker_project, first)
    where = ("-w", "/dagster/workspace.yaml", "-j", JOB)
    docker_project.inside("dagster-webserver", "dagster", "job", "launch", *where, "--config-json", json.dumps(config))
    (name,) = set(docker_project.runs().names()) - before
    assert docker_project.runs().artifact(name).wait(300).phase == "completed"


def _config(docker_project: RunningProject, run: Artifact) -> Any:
    import yaml

    found = _graphql(docker_project, CONFIG, id=run.status().run_id)
    return yaml.safe_load(found["runOrError"]["runConfigYaml"])


def _graphql(docker_project: RunningProject, query: str, **variables: Any) -> dict[str, Any]:
    answer = requests.post(
        f"{docker_project.url}/dagster/graphql", json={"query": query, "variables": variables}, timeout=60
    ).json()
    assert "errors" not in answer, answer
    found: dict[str, Any] = answer["data"]
    return found


def _by_id(docker_project: RunningProject, run_id: str) -> Artifact:
    for status in docker_project.runs().statuses():
        if status.run_id == run_id:
            found: Artifact = docker_project.runs().artifact(status.name)
            return found
    raise AssertionError(f"no run has the id {run_id}")


def test_logs_command_prints_the_logs_of_a_service(docker_project: RunningProject) -> None:
    """In a pipe, lines have no prefix and no terminal codes; an unknown service is an error."""
    done = docker_project.call("logs", "run-server")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "listening at /dagster/run_server/socket" in done.stdout
    done = docker_project.call("logs", "nobody")
    assert done.returncode == 3
    assert "training" in done.stderr


def test_embedded_project_does_not_start_beside_the_docker_project(docker_project: RunningProject) -> None:
    """One folder must not have two running projects."""
    done = docker_project.call("up", "--detach")
    assert done.returncode == 2
    assert "is up in Docker" in done.stderr


def test_missing_images_are_named_and_not_built(docker_project: RunningProject) -> None:
    """Without a terminal, the command cannot ask, so it starts nothing."""
    done = docker_project.call(
        "up", "--docker", BONSEYES_VERSION="none", COMPOSE_PROJECT_NAME=f"{docker_project.name}-none"
    )
    assert done.returncode == 2
    assert "bonseyes/training:none" in done.stderr
    assert "`bonseyes build`" in done.stderr


def test_unknown_profile_is_refused(docker_project: RunningProject) -> None:
    """Compose would ignore it, and start everything without it."""
    done = docker_project.call("up", "--docker", "--detach", "--profile", "gqu")
    assert done.returncode == 2
    assert "the profiles are: gpu, run-containers" in done.stderr


def test_open_port_without_a_token_is_refused(docker_project: RunningProject) -> None:
    """The check comes before anything is started."""
    name = f"{docker_project.name}-open"
    done = docker_project.call("up", "--docker", BONSEYES_HOST="0.0.0.0", COMPOSE_PROJECT_NAME=name)
    assert done.returncode == 2
    assert "BONSEYES_TOKEN" in done.stderr


def test_port_in_use_is_refused(docker_project: RunningProject) -> None:
    """The error names the process that uses it."""
    done = docker_project.call("up", "--docker", COMPOSE_PROJECT_NAME=f"{docker_project.name}-taken")
    assert done.returncode == 2
    assert str(docker_project.port) in done.stderr
