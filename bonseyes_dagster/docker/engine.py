"""Calls of the Docker engine through the `docker` command; all other modules use these functions."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import UnavailableError

__all__ = ["EngineRefusedCommandError", "check_engine", "compose_argv", "docker", "docker_json"]

ASKING_S = 60.0


class EngineRefusedCommandError(UnavailableError):
    """The engine or Compose refused a command; the message has its error output."""


def compose_argv(
    *arguments: str, files: Iterable[Path | str] = (), profiles: Iterable[str] = (), project: str | None = None
) -> list[str]:
    """Return a command line of `docker compose`; it reads the file `-` from standard input."""
    of_files = [word for file in files for word in ("--file", str(file))]
    of_profiles = [word for profile in profiles for word in ("--profile", profile)]
    of_project = ["--project-name", project] if project else []
    return ["docker", "compose", *of_project, *of_files, *of_profiles, *arguments]


def docker(
    *arguments: str,
    name: str | None = None,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    timeout_s: float = ASKING_S,
) -> str:
    """Return the output of `docker ARGUMENTS`; error messages call the command `name`.

    Raises EngineRefusedCommandError when it fails, UnavailableError when it cannot start or does not end.
    """
    name = name or " ".join(("docker", *arguments[:2]))
    try:
        done = subprocess.run(
            ["docker", *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise UnavailableError("There is no `docker` command on this machine.") from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"`{name}` did not end within {timeout_s:.0f} s.") from None
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip() or f"it exited with {done.returncode}"
        raise EngineRefusedCommandError(f"`{name}` failed: {output}")
    return done.stdout


def docker_json(*arguments: str) -> list[Any]:
    """Return the JSON documents that `docker ARGUMENTS --format '{{json .}}'` prints, one on each line."""
    return [json.loads(line) for line in docker(*arguments, "--format", "{{json .}}").splitlines()]


def check_engine() -> None:
    """Raise UnavailableError without a `docker` command, an engine or Compose; the message says what to do."""
    if shutil.which("docker") is None:
        raise UnavailableError(
            "There is no `docker` command: install Docker, or run the project embedded, with `bonseyes up`."
        )
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except UnavailableError as error:
        raise UnavailableError(f"The Docker engine does not answer; is it running? {error.message}") from None
    try:
        version = docker("compose", "version", "--short")
    except UnavailableError:
        raise UnavailableError("Docker has no `compose` command: install its compose plugin, version 2.") from None
    if version.lstrip("v").startswith("1."):
        raise UnavailableError(f"Docker's compose plugin has version {version.strip()}; install 2.20 or newer.")
