"""A docker project with `BONSEYES_RUN_LAUNCHER=docker`: each run has its own container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster.docker.engine import docker
from tests.docker.running_project import TOOLS, RunningProject
from tests.docker.test_kills import TURNS, Campaign
from tests.waiting import is_at_work, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

PROXY = "socket-proxy"
LAUNCHING = ("digits-cnn", "digits-mlp", "dagster-webserver", "dagster-daemon", "run-server")
_CONNECT = "timeout 3 bash -c 'exec 3<>/dev/tcp/{}/2375' && echo reached || echo refused"


@pytest.fixture(scope="module")
def project(built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProject]:
    """A project with this launcher."""
    with RunningProject(tmp_path_factory.mktemp("launched") / "project", BONSEYES_RUN_LAUNCHER="docker") as project:
        project.up()
        yield project


def _run_containers(project: RunningProject) -> list[str]:
    labels = (f"com.docker.compose.project={project.name}", "com.docker.compose.oneoff=True")
    return docker("ps", "--all", "--quiet", *(f"--filter=label={label}" for label in labels)).split()


def test_run_has_a_container_that_is_removed_at_its_end(project: RunningProject, digits: dict[str, Path]) -> None:
    """If the container is killed, another one resumes the run."""
    run = project.runs().create("launched", {"epochs": 12}, digits, reuse=False)
    until(lambda: is_at_work(project.client, "training", "launched_train"))
    [container] = _run_containers(project)
    docker("kill", container)
    status = run.wait(300)
    assert status.phase == "completed", (status, b"".join(run.iter_log()).decode()[-4000:])
    assert {step.phase for step in status.steps or ()} == {"completed"}
    until(lambda: not _run_containers(project))


def test_only_launching_services_reach_the_socket_proxy(project: RunningProject) -> None:
    """The proxy is on its own network; other services reach it neither by name nor by address."""
    address = project.inspect(PROXY)["NetworkSettings"]["Networks"][f"{project.name}_engine"]["IPAddress"]
    asking = {*TOOLS, *LAUNCHING, "code-server", "visualization", "dashboard", "access", "gateway", "postgres"}
    for service in sorted(asking):
        for host in (PROXY, address):
            answer = project.inside(service, "bash", "-c", _CONNECT.format(host))
            assert answer == ("reached\n" if service in LAUNCHING else "refused\n"), (service, host)


def test_runs_survive_docker_kill(project: RunningProject, digits: dict[str, Path]) -> None:
    """The test kills every container in turn, also the socket proxy, and starts it again."""
    campaign = Campaign(project, digits, "killed")
    campaign.kill((*TURNS, PROXY))
    campaign.check()
    until(lambda: not _run_containers(project))


def test_run_is_resumed_after_down_and_up(project: RunningProject, digits: dict[str, Path]) -> None:
    """`bonseyes down` also removes the run's container."""
    run = project.runs().create("interrupted", {"epochs": 30}, digits, reuse=False)
    until(lambda: is_at_work(project.client, "training", "interrupted_train"))
    done = project.call("down")
    assert done.returncode == 0, done.stderr
    assert _run_containers(project) == []
    project.up()
    status = run.wait(300)
    assert status.phase == "completed", (status, b"".join(run.iter_log()).decode()[-4000:])
    until(lambda: not _run_containers(project))
