"""Containers are killed during runs, one after the other: the runs complete, and nothing hangs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from bonseyes_dagster.client import Artifact
from bonseyes_dagster.docker.engine import docker
from bonseyes_dagster.errors import BonseyesError
from tests.docker.running_project import DAGSTER, SERVICES, TOOLS, RunningProject
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

STEPS = {
    "import": ("import_train", "import_test"),
    "processing": ("process_train", "process_test"),
    "export": ("export_train", "export_test"),
    "training-set": ("split",),
    "training": ("train",),
    "benchmarking": ("benchmark",),
}
# The containers that a run needs first come first.
TURNS = (*TOOLS[:-1], *DAGSTER, *(name for name in SERVICES if name not in (*TOOLS, *DAGSTER)), "benchmarking")
_PAUSE_S = 2.0
_RUN_S = 300.0


class Campaign:
    """Runs one after the other, until every container has been killed."""

    def __init__(self, docker_project: RunningProject, digits: dict[str, Path], prefix: str) -> None:
        self._project = docker_project
        self._digits = digits
        self._prefix = prefix
        self.names: list[str] = []

    def run(self) -> Artifact:
        """Return the latest run; create a new one if it has ended."""
        name = f"{self._prefix}{len(self.names)}"
        if self.names:
            latest: Artifact = self._project.runs().artifact(self.names[-1])
            with suppress(BonseyesError):
                if not latest.status().is_final:
                    return latest
        until(lambda: self._is_created(name))
        self.names.append(name)
        made: Artifact = self._project.runs().artifact(name)
        return made

    def _is_created(self, name: str) -> bool:
        with suppress(BonseyesError):
            self._project.runs().create(name, {"epochs": 12}, self._digits, reuse=False, idempotency_key=name)
            return True
        return False

    def kill(self, services: Iterable[str]) -> None:
        """Kill each container in turn, and start it again, because the engine does not after `docker kill`."""
        for container in map(self._project.container, services):
            self.run()
            docker("kill", container)
            time.sleep(_PAUSE_S)
            docker("start", container)
            time.sleep(_PAUSE_S)
        self._project.up()

    def check(self) -> None:
        """Check that every run is completed, each artifact exists once, and nothing is running or queued."""
        for name in self.names:
            run = self._project.runs().artifact(name)
            until(lambda run=run: _is_final(run), _RUN_S)
            status = run.status()
            assert status.phase == "completed", (status, b"".join(run.iter_log()).decode()[-4000:])
        for tool, steps in STEPS.items():
            container = self._project.client.container(tool)
            there = {each.name: each for each in container.statuses() if each.name.startswith(self._prefix)}
            assert there.keys() == {f"{name}_{step}" for name in self.names for step in steps}
            assert {each.phase for each in there.values()} == {"completed"}
            assert {each.reused_from for each in there.values()} == {None}
        listing = "ls /dagster/run_server | grep -c json || true"
        until(lambda: self._project.inside("run-server", "bash", "-c", listing).strip() == "0")


def _is_final(run: Artifact) -> bool:
    with suppress(BonseyesError):
        return run.status().is_final
    return False


def test_runs_survive_docker_kill(docker_project: RunningProject, digits: dict[str, Path]) -> None:
    """Each container is killed once: the unfinished run completes, and nothing is made twice or left over."""
    campaign = Campaign(docker_project, digits, "killed")
    campaign.kill(TURNS)
    campaign.check()


def test_runs_survive_crashes(docker_project: RunningProject, digits: dict[str, Path]) -> None:
    """The main process of each container is killed, as by a lack of memory; the engine restarts the container."""
    campaign = Campaign(docker_project, digits, "crashed")
    for service in TURNS:
        campaign.run()
        before = docker_project.inspect(service)["State"]["StartedAt"]
        # The first process is the engine's init, which cannot be killed from inside. It ends with its child.
        script = (
            "for p in /proc/[0-9]*; do p=${p#/proc/}; [[ $(awk '{print $4}' /proc/$p/stat) == 1 ]] && echo $p; done; :"
        )
        children = map(int, docker_project.inside(service, "bash", "-c", script).split())
        # `--detach`: a command in the container ends with it, perhaps before it can report success.
        docker("exec", "--detach", docker_project.container(service), "bash", "-c", f"kill -9 {min(children)}")
        until(lambda s=service, b=before: docker_project.inspect(s)["State"]["StartedAt"] != b)
        time.sleep(_PAUSE_S)
    campaign.check()
    docker_project.up()
