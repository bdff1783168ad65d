"""A fake `docker` command: it answers for one project, and records its calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCRIPT = """#!/bin/sh
printf '%s\\n' "$*" >>"$0.calls"
case "$*" in
  "compose version"*) echo 2.26.1 ;;
  *"config --profiles") echo extra ;;
  *"config --format json") cat "$0.config" ;;
  "volume ls --filter"*) [ ! -e "$0.projects" ] || cat "$0.projects" ;;
  "ps --all --filter"*) [ ! -e "$0.folders" ] || cat "$0.folders" ;;
  "volume ls"*) cat "$0.volumes" ;;
  *"--entrypoint=postgres"*) echo "postgres (PostgreSQL) 15.4 (Debian 15.4-1)" ;;
  "ps --all --quiet --no-trunc"*) [ ! -e "$0.containers" ] || echo abc ;;
  inspect*) cat "$0.containers" ;;
  compose*" up "*) mv "$0.started" "$0.containers"; [ ! -e "$0.fails" ] || { cat "$0.fails"; exit 1; } ;;
  compose*" down "*) rm -f "$0.containers" ;;
  compose*" logs "*) printf '\\033[2Kprepare-1  | the disk is full\\n' ;;
esac
"""


class FakeDocker:
    """The command in `folder`, with an `environ` that has it on the path; `up` turns `started` into the containers."""

    def __init__(self, folder: Path) -> None:
        self.environ = {"PATH": f"{folder}:/usr/bin:/bin"}
        self._command = folder / "docker"
        self._command.write_text(SCRIPT)
        self._command.chmod(0o755)
        self.write("config", json.dumps({"services": {}, "volumes": {}}))
        self.write("volumes", "")

    def write(self, name: str, text: str) -> None:
        """Write one of its answers."""
        Path(f"{self._command}.{name}").write_text(text)

    def calls(self) -> list[str]:
        """Return the arguments of each call."""
        file = Path(f"{self._command}.calls")
        return file.read_text().splitlines() if file.exists() else []


def container(project: str, folder: Path, service: str, **state: Any) -> dict[str, Any]:
    """Return the engine's description of a container."""
    labels = {"project": project, "project.working_dir": str(folder), "service": service}
    return {
        "Id": service,
        "Config": {"Labels": {f"com.docker.compose.{name}": text for name, text in labels.items()}, "Cmd": None},
        "HostConfig": {"RestartPolicy": {"Name": "no"}, "PortBindings": {}},
        "NetworkSettings": {"Ports": {}},
        "State": {"Status": "running", "ExitCode": 0, "Error": "", "StartedAt": "2026-01-01T00:00:00Z"} | state,
        "RestartCount": 0,
    }
