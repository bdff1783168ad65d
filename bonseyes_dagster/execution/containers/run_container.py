"""The description of a run's container. The launcher creates it so, and the socket proxy refuses every other container.

This module does not import Dagster, because the proxy needs only this module.
"""

import re
from collections.abc import Mapping
from typing import Any

from bonseyes_dagster.settings import Settings

__all__ = ["check_creation", "command", "labels", "launcher_config", "networks"]

# The address of the socket proxy, and the version of the engine's API for launcher and proxy.
ENGINE_URL = "tcp://socket-proxy:2375"
API_VERSION = "1.41"
# Every container of a run has this label, with the project's name. By it the proxy recognises its own containers.
LABEL = "com.bonseyes.run-of"
RUN_ID_LABEL = "dagster/run_id"
JOB_LABEL = "dagster/job_name"
# Compose takes such a container for a one-off of this service. `up` leaves it alone, `bonseyes down` ends it.
SERVICE = "run-server"
HOME = "/dagster"
PROJECT = "/project"
USER = "10001:10001"
MEMORY_BYTES = 2**30
# In microseconds for each period of 100000 us: two processors. A quota may exceed the machine, `--cpus` may not.
CPU_QUOTA = 200_000
PIDS = 512

_MODULE = "bonseyes_dagster.execution.processes.run_worker"
_TMPFS = {"/tmp": "size=268435456,mode=1777"}  # noqa: S108 - the container's own
_DNS, _DNS_OPTIONS = ["127.0.0.1"], ["ndots:1", "timeout:1", "attempts:1"]
_LOG = {"max-size": "10m", "max-file": "3"}
# The environment variables that a run's process gets.
_VARIABLES = (
    *("BONSEYES_ADDRESSES", "BONSEYES_FILES", "BONSEYES_INBOX", "BONSEYES_LOG_LEVEL", "BONSEYES_OUTBOUND"),
    "BONSEYES_URL",
)
_VARIABLE = re.compile(
    rf"DAGSTER_HOME={HOME}|BONSEYES_PROJECT={PROJECT}|DAGSTER_RUN_JOB_NAME=\w+|(?:{'|'.join(_VARIABLES)})=[ -~]*"
)
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def command(run_id: str, *, is_resumed: bool) -> list[str]:
    """Return the command of a run's container."""
    return ["python", "-m", _MODULE, "--run-id", run_id, *(["--resume"] if is_resumed else [])]


def networks(project: str) -> list[str]:
    """Return the networks of a run: one reaches the tools, one reaches Dagster's database."""
    return [f"{project}_tools", f"{project}_dagster"]


def volume(project: str) -> str:
    """Return the volume of a run, which is DAGSTER_HOME with the uploads of the pipelines."""
    return f"{project}_dagster-home"


def launcher_config(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the configuration of the launcher; `environ` is the environment that a run server would have."""
    project = settings.compose_project
    kept = [f"{name}={environ[name]}" for name in _VARIABLES if environ.get(name)]
    return {
        "engine_url": ENGINE_URL,
        "image": settings.run_image,
        "networks": networks(project),
        "env_vars": [f"DAGSTER_HOME={HOME}", f"BONSEYES_PROJECT={PROJECT}", *kept],
        "container_kwargs": {
            "user": USER,
            "log_config": {"type": "json-file", "config": _LOG},
            "working_dir": PROJECT,
            "volumes": [f"{volume(project)}:{HOME}:rw"],
            "labels": labels(project),
            "read_only": True,
            "tmpfs": _TMPFS,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "init": True,
            "dns": _DNS,
            "dns_opt": _DNS_OPTIONS,
            # The image has the health check of a service.
            "healthcheck": {"test": ["NONE"]},
            "mem_limit": MEMORY_BYTES,
            "cpu_quota": CPU_QUOTA,
            "pids_limit": PIDS,
        },
    }


def labels(project: str) -> dict[str, str]:
    """Return the labels of all containers of a project's runs."""
    return {
        LABEL: project,
        "com.docker.compose.project": project,
        "com.docker.compose.service": SERVICE,
        "com.docker.compose.oneoff": "True",
    }


def check_creation(body: Any, settings: Settings) -> dict[str, Any]:
    """Return the body of the request to the engine that creates a container; raise ValueError that names a wrong key.

    Only the run, its job and the environment variables of runs may vary.
    """
    given = _without_empty_values(body)
    if not isinstance(given, dict):
        raise ValueError("The body must be an object.")
    variable = {name: given.pop(name, None) for name in ("Cmd", "Env", "Labels")}
    _compare("", given, _body(settings))
    run_id = _run_of(variable["Cmd"])
    environ = variable["Env"] if isinstance(variable["Env"], list) else [None]
    for each in environ:
        if not isinstance(each, str) or not _VARIABLE.fullmatch(each):
            raise ValueError(f"Env: {each!r} must be one of the environment variables of runs.")
    found = variable["Labels"] if isinstance(variable["Labels"], dict) else {}
    job = found.get(JOB_LABEL)
    if not isinstance(job, str) or not re.fullmatch(r"\w+", job):
        raise ValueError(f"Labels: {JOB_LABEL} must be the name of a job.")
    _compare("Labels", found, {**labels(settings.compose_project), RUN_ID_LABEL: run_id, JOB_LABEL: job})
    return {**given, **variable}


def _body(settings: Settings) -> dict[str, Any]:
    """Return `launcher_config` as a request body of the engine's API, without empty values."""
    project = settings.compose_project
    return {
        "Image": settings.run_image,
        "User": USER,
        "WorkingDir": PROJECT,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": networks(project)[0],
            "Binds": [f"{volume(project)}:{HOME}:rw"],
            "ReadonlyRootfs": True,
            "Tmpfs": _TMPFS,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Init": True,
            "Dns": _DNS,
            "DnsOptions": _DNS_OPTIONS,
            "LogConfig": {"Type": "json-file", "Config": _LOG},
            "Memory": MEMORY_BYTES,
            "CpuQuota": CPU_QUOTA,
            "PidsLimit": PIDS,
        },
    }


def _run_of(argv: Any) -> str:
    if isinstance(argv, list):
        for run_id in (each for each in argv if isinstance(each, str) and _RUN_ID.fullmatch(each)):
            if argv in (command(run_id, is_resumed=False), command(run_id, is_resumed=True)):
                return run_id
    raise ValueError("Cmd must be the command of a run.")


def _without_empty_values(value: Any) -> Any:
    """Return a JSON value without the keys that have an empty value, such as anonymous volumes."""
    if not isinstance(value, dict):
        return value
    kept = {key: _without_empty_values(each) for key, each in value.items()}
    return {key: each for key, each in kept.items() if each}


def _compare(where: str, given: Any, wanted: Any) -> None:
    if isinstance(given, dict) and isinstance(wanted, dict):
        for key in sorted({*given, *wanted}, key=str):
            _compare(f"{where}.{key}".lstrip("."), given.get(key), wanted.get(key))
    elif given != wanted or type(given) is not type(wanted):
        raise ValueError(
            f"{where} must be {wanted!r}, not {given!r}." if wanted is not None else f"{where} must be left out."
        )
