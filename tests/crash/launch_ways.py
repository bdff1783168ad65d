"""The ways to launch a run: `/runs`, Dagster's UI, `dagster job launch` and `execute`, a schedule and a sensor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import requests

from bonseyes_dagster.client import Project
from bonseyes_dagster.errors import BonseyesError
from tests.crash.graphql import launch
from tests.crash.victims import PIPELINE
from tests.system.embedded import Embedded
from tests.waiting import until

__all__ = ["EXECUTE", "RUNS", "WAYS", "LaunchWays"]

RUNS, UI, LAUNCH, EXECUTE, SCHEDULE, SENSOR = "/runs", "UI", "job launch", "job execute", "schedule", "sensor"
# In the order in which runs take them; a schedule has one tick a minute.
WAYS = (EXECUTE, UI, SENSOR, LAUNCH, RUNS, SCHEDULE)
_CREATED_WITHIN_S = 300.0


class LaunchWays:
    """All ways to launch a run of one project."""

    def __init__(self, project: Embedded) -> None:
        self._project = project
        self.executing: subprocess.Popen[bytes] | None = None
        """The `dagster job execute` that was begun last."""
        self._commands: list[subprocess.Popen[bytes]] = []

    def launch(self, way: str, name: str, parameters: Mapping[str, Any]) -> None:
        """Launch a run with that name; return as soon as `/runs` lists it."""
        if way == RUNS:
            until(lambda: self._create(name, parameters), _CREATED_WITHIN_S)
            return
        # These ways cannot repeat an interrupted launch.
        until(self._is_healthy, _CREATED_WITHIN_S)
        if way == EXECUTE:
            self._execute(name, parameters)
        elif way in (SCHEDULE, SENSOR):
            self._request(way, name, parameters)
        else:
            act = self._launch_in_ui if way == UI else self._launch_by_command
            # Do not launch a second run once the name is known.
            until(lambda: self.is_known(name) or act(name, parameters), _CREATED_WITHIN_S)
        until(lambda: self.is_known(name), _CREATED_WITHIN_S)

    def is_known(self, name: str) -> bool:
        """Tell whether `/runs` has a run of that name."""
        with suppress(BonseyesError):
            Project(self._project.url).container(PIPELINE, "runs").artifact(name).status()
            return True
        return False

    def end(self) -> None:
        """Kill the commands that still run."""
        for command in self._commands:
            command.kill()
            command.wait()

    def _is_healthy(self) -> bool:
        with suppress(ValueError):
            return {service["state"] for service in self._project.status()["services"]} == {"healthy"}
        return False

    def _create(self, name: str, parameters: Mapping[str, Any]) -> bool:
        with suppress(BonseyesError):
            runs = Project(self._project.url).container(PIPELINE, "runs")
            runs.create(name, dict(parameters), idempotency_key=name)
            return True
        return False

    def _launch_in_ui(self, name: str, parameters: Mapping[str, Any]) -> bool:
        with suppress(AssertionError, ValueError, requests.RequestException):
            launch(self._project, name, parameters)
            return True
        return False

    def _launch_by_command(self, name: str, parameters: Mapping[str, Any]) -> bool:
        """Return when the run has begun; the command itself may take longer than the run."""
        workspace = self._project.project.dagster_home / "workspace.yaml"
        words = ("-w", str(workspace), "--config-json", json.dumps(parameters))
        command = self._start(self._command("launch", name, *words), name)
        until(lambda: command.poll() is not None or self._has_begun(name), _CREATED_WITHIN_S)
        return self._has_begun(name)

    def _has_begun(self, name: str) -> bool:
        with suppress(BonseyesError):
            runs = Project(self._project.url).container(PIPELINE, "runs")
            return runs.artifact(name).status().phase != "queued"
        return False

    def _execute(self, name: str, parameters: Mapping[str, Any]) -> None:
        config = self._project.folder.parent / f"{name}.yaml"
        config.write_text(json.dumps(parameters))
        words = ("-f", str(self._project.folder / "definitions.py"), "-c", str(config))
        self.executing = self._start(self._command("execute", name, *words), name)

    def _start(self, argv: list[str], name: str) -> subprocess.Popen[bytes]:
        with (self._project.folder.parent / f"{name}.log").open("ab") as log:
            command = subprocess.Popen(argv, env=self._environ(), cwd=self._project.folder, stdout=log, stderr=log)
        self._commands.append(command)
        return command

    def _command(self, verb: str, name: str, *words: str) -> list[str]:
        tags = json.dumps({"bonseyes/run": name})
        return [sys.executable, "-m", "dagster", "job", verb, "-j", PIPELINE, "--tags", tags, *words]

    def _environ(self) -> dict[str, str]:
        """Return the environment of a person who works in the project's home."""
        project = self._project.project
        return {
            **os.environ,
            "DAGSTER_HOME": str(project.dagster_home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "BONSEYES_ADDRESSES": str(project.addresses),
            "BONSEYES_PROJECT": str(project.folder),
            "BONSEYES_FILES": str(project.folder.parent),
        }

    def _request(self, way: str, name: str, parameters: Mapping[str, Any]) -> None:
        folder = self._project.folder / way
        folder.mkdir(exist_ok=True)
        draft = folder / f"{name}.new"
        draft.write_text(json.dumps(parameters))
        draft.rename(folder / f"{name}.json")
