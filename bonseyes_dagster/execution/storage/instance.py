"""A project's Dagster instance: `dagster.yaml` and the workspace, written where DAGSTER_HOME points."""

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import Any, Literal

import yaml

from bonseyes_dagster.execution.storage.instance_settings import SETTINGS_FILE, merge_settings, read_settings
from bonseyes_dagster.system.replacing import replace_file

__all__ = ["Launcher", "instance_config", "write_instance", "write_workspace"]

Launcher = Literal["warm", "stock", "docker"]
WORKSPACE = "workspace.yaml"
LOCATION = "definitions"
# In DAGSTER_HOME; its time says when the code server last loaded the definitions anew.
LOADED_FILE = "definitions-loaded"

logger = logging.getLogger(__name__)

_COORDINATOR = {"module": "bonseyes_dagster.execution.launching.coordinator", "class": "NamingRunCoordinator"}
_LAUNCHERS: dict[str, dict[str, Any]] = {
    "warm": {"module": "bonseyes_dagster.execution.launching.launcher", "class": "WarmRunLauncher"},
    "docker": {"module": "bonseyes_dagster.execution.containers.container_launcher", "class": "ContainerRunLauncher"},
}
# Dagster checks on every run this often, and takes one up again whose process is gone.
_MONITORING = {
    "enabled": True,
    "start_timeout_seconds": 60,
    "cancel_timeout_seconds": 60,
    "poll_interval_seconds": 5,
}
# So often in a run's whole life. Our launcher itself ends a run that gets no further (run_recovery.py).
_MOST_RESUMES: dict[Launcher, int] = {"warm": 1000, "docker": 3}
# A waiting run takes 34 MB. Half of the memory is left to all else, tools above all.
_RUN_BYTES = 40 << 20
_FEWEST_RUNS, _MOST_RUNS = 20, 1000
# How often Dagster's daemon looks for queued runs that may be launched.
_DEQUEUE_S = 1
_HEADER = """\
# Written at each start of the project. Put settings into dagster.yaml beside definitions.py, which is laid over this;
# docs/operations.md tells which. What is changed here is set aside as {aside} at the next start.
# sha256 of what follows: {digest}
"""
_ASIDE = "dagster.yaml.edited"
# What nobody reads again after a while: ticks, not runs.
_RETENTION = {
    "schedule": {"purge_after_days": 90},
    "sensor": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 90}},
}


def instance_config(
    home: Path,
    *,
    launcher: Launcher = "warm",
    launcher_config: dict[str, Any] | None = None,
    postgres: str | None = None,
    max_runs: int | None = None,
    project: Path | None = None,
) -> dict[str, Any]:
    """Return the content of `dagster.yaml`.

    Runs and events are in SQLite below `home`, or in the database with the URL `postgres`, whose tables are there. So
    many runs as `max_runs` are live at once, by default as many as the machine has memory for; more are queued. What
    `dagster.yaml` of the folder `project` sets goes before all that. Raises SettingsError if that file is wrong.
    """
    config: dict[str, Any] = {
        "storage": {"custom": _postgres(postgres) if postgres else _sqlite(home)},
        "compute_logs": {
            "module": "bonseyes_dagster.execution.threads.compute_logs",
            "class": "StepComputeLogManager",
            "config": {"base_dir": str(home / "compute_logs")},
        },
        "run_coordinator": {
            **_COORDINATOR,
            "config": {"max_concurrent_runs": max_runs or _most_runs(), "dequeue_interval_seconds": _DEQUEUE_S},
        },
        "retention": _RETENTION,
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
    }
    if launcher != "stock":
        config["run_launcher"] = dict(_LAUNCHERS[launcher])
        if launcher_config:
            config["run_launcher"]["config"] = launcher_config
    # Dagster's own launcher cannot tell whether a run's process lives, and cannot resume one.
    config["run_monitoring"] = _monitoring(launcher)
    return merge_settings(config, read_settings(project)) if project else config


def _most_runs() -> int:
    """Return how many runs the machine has memory for, or the control group that this process is in."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max"
        memory_bytes = min(memory_bytes, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(max(memory_bytes // 2 // _RUN_BYTES, _FEWEST_RUNS), _MOST_RUNS)


def _monitoring(launcher: Launcher) -> dict[str, Any]:
    if launcher == "stock":
        return {"enabled": False}
    return {**_MONITORING, "max_resume_run_attempts": _MOST_RESUMES[launcher]}


def _sqlite(home: Path) -> dict[str, Any]:
    module = "bonseyes_dagster.execution.storage.sqlite_storage"
    return {"module": module, "class": "KeptOpenSqliteStorage", "config": {"base_dir": str(home / "storage")}}


def _postgres(url: str) -> dict[str, Any]:
    module = "bonseyes_dagster.execution.storage.postgres_storage"
    # Looking for the tables at each start costs time, and a process that starts while the database is away its life.
    config = {"postgres_url": url, "should_autocreate_tables": False}
    return {"module": module, "class": "PooledPostgresStorage", "config": config}


def write_instance(home: Path, **options: Any) -> Path:
    """Write `dagster.yaml` into `home`, which is made if need be, and return it; see `instance_config`.

    A file there that somebody has changed by hand is kept beside it, and a warning says so.
    """
    config = yaml.safe_dump(instance_config(home, **options), sort_keys=False)
    home.mkdir(parents=True, exist_ok=True)
    file = home / SETTINGS_FILE
    if _is_edited(file):
        file.replace(home / _ASIDE)
        logger.warning(
            "%s was changed by hand; it is now %s. Put settings into dagster.yaml beside definitions.py.", file, _ASIDE
        )
    header = _HEADER.format(aside=_ASIDE, digest=hashlib.sha256(config.encode()).hexdigest())
    return _write(file, header + config)


def _is_edited(file: Path) -> bool:
    """Tell whether a file that this module has written is not as it was written; earlier versions left no digest."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    _, separator, rest = text.partition("# sha256 of what follows: ")
    digest, _, config = rest.partition("\n")
    return bool(separator) and hashlib.sha256(config.encode()).hexdigest() != digest


def write_workspace(
    home: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    socket: Path | None = None,
    location: str = LOCATION,
) -> Path:
    """Write the workspace file that points at a code server, at a port or a unix socket, and return it."""
    address = {"socket": str(socket)} if socket else {"host": host, "port": port}
    server = {"grpc_server": {**address, "location_name": location}}
    return _write(home / WORKSPACE, yaml.safe_dump({"load_from": [server]}, sort_keys=False))


def _write(file: Path, content: str) -> Path:
    """Replace the file whole: others may be reading it."""
    # It may hold the database's password.
    replace_file(file, content.encode(), mode=0o600)
    return file
