"""What the container of a run is: the launcher makes it like this, and the socket proxy lets nothing else through.

Free of Dagster: the proxy needs this and nothing more.
"""

import re
from collections.abc import Mapping
from typing import Any

from bonseyes_dagster.settings import Settings

__all__ = ["COMMAND", "LABEL", "RUN_ID_LABEL", "command", "launcher_config", "volume"]

# Where the socket proxy listens, and the version of the engine's API that both speak.
ENGINE_URL = "tcp://socket-proxy:2375"
API_VERSION = "1.41"
# Every container of a run bears it, with the project's name: by this the proxy tells its own from all others.
LABEL = "com.bonseyes.run-of"
RUN_ID_LABEL = "dagster/run_id"
JOB_LABEL = "dagster/job_name"
# Compose sees such a container as a one-off of this service: `down` ends it, and `up` leaves it alone.
SERVICE = "run-server"
HOME = "/dagster"
PROJECT = "/project"
USER = "10001:10001"
# From SIGTERM to SIGKILL.
GRACE_S = 10
MEMORY_BYTES = 2**30
CPUS = 2
PIDS = 512

_MODULE = "bonseyes_dagster.orchestration.run_worker"
COMMAND = re.compile(rf"python -m {re.escape(_MODULE)} --run-id [0-9a-f-]{{36}}( --resume)?")
# What a run's process takes from its environment.
_VARIABLES = ("BONSEYES_ADDRESSES", "BONSEYES_LOG_LEVEL", "BONSEYES_OUTBOUND", "BONSEYES_URL")


def command(run_id: str, *, is_resumed: bool) -> list[str]:
    """Return what such a container executes."""
    return ["python", "-m", _MODULE, "--run-id", run_id, *(["--resume"] if is_resumed else [])]


def networks(project: str) -> list[str]:
    """Return the networks of a run: that of the tools, and that of Dagster's database."""
    return [f"{project}_tools", f"{project}_dagster"]


def volume(project: str) -> str:
    """Return the volume of a run: DAGSTER_HOME, with the uploads of the pipelines."""
    return f"{project}_dagster-home"


def launcher_config(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the configuration of the launcher; `environ` is what the run server's would be."""
    project = settings.compose_project
    kept = [f"{name}={environ[name]}" for name in _VARIABLES if environ.get(name)]
    return {
        "engine_url": ENGINE_URL,
        "image": settings.run_image,
        "networks": networks(project),
        "env_vars": [f"DAGSTER_HOME={HOME}", f"BONSEYES_PROJECT={PROJECT}", *kept],
        "container_kwargs": {
            "user": USER,
            "working_dir": PROJECT,
            "volumes": [f"{volume(project)}:{HOME}:rw"],
            "labels": labels(project),
            "read_only": True,
            "tmpfs": {"/tmp": "size=268435456,mode=1777"},  # noqa: S108 - the container's own
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "init": True,
            "mem_limit": MEMORY_BYTES,
            "nano_cpus": CPUS * 10**9,
            "pids_limit": PIDS,
            "stop_timeout": GRACE_S,
        },
    }


def labels(project: str) -> dict[str, str]:
    """Return the labels that all containers of runs of a project bear."""
    return {
        LABEL: project,
        "com.docker.compose.project": project,
        "com.docker.compose.service": SERVICE,
        "com.docker.compose.oneoff": "True",
    }
