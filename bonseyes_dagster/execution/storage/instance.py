"""Writes the files of a project's Dagster instance: `dagster.yaml` and the workspace, in DAGSTER_HOME."""

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
# A file in DAGSTER_HOME. Its modification time is the time of the code server's last load of the definitions.
LOADED_FILE = "definitions-loaded"

logger = logging.getLogger(__name__)

_COORDINATOR = {"module": "bonseyes_dagster.execution.launching.coordinator", "class": "NamingRunCoordinator"}
_LAUNCHERS: dict[str, dict[str, Any]] = {
    "warm": {"module": "bonseyes_dagster.execution.launching.launcher", "class": "WarmRunLauncher"},
    "docker": {"module": "bonseyes_dagster.execution.containers.container_launcher", "class": "ContainerRunLauncher"},
}
# Dagster checks every run at this interval, and resumes a run whose process is gone.
_MONITORING = {
    "enabled": True,
    "start_timeout_seconds": 60,
    "cancel_timeout_seconds": 60,
    "poll_interval_seconds": 5,
}
# The limit for the whole life of a run. run_recovery.py itself ends a run that makes no progress.
_MAX_RESUMES: dict[Launcher, int] = {"warm": 1000, "docker": 3}
# A waiting run takes 34 MB. Half of the memory is for everything else, mainly the tools.
_RUN_BYTES = 40 << 20
_MIN_RUNS, _MAX_RUNS = 20, 1000
# The interval at which Dagster's daemon looks for queued runs that may be launched.
_DEQUEUE_S = 1
_HEADER = """\
# Each start of the project writes this file. Put settings into dagster.yaml beside definitions.py: it overrides this
# file, and docs/operations.md lists its settings. If you edit this file, the next start renames it to {aside}.
# sha256 of what follows: {digest}
"""
_ASIDE = "dagster.yaml.edited"
# Old ticks are removed, runs are not.
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

    Runs and events are in SQLite below `home`, or in the database with the URL `postgres`, which must have the tables.
    At most `max_runs` runs are live at once, further runs are queued; the default depends on the memory of the machine.
    Settings in `dagster.yaml` of the folder `project` override all of this. Raises SettingsError if that file is wrong.
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
            "config": {"max_concurrent_runs": max_runs or _max_runs(), "dequeue_interval_seconds": _DEQUEUE_S},
        },
        "retention": _RETENTION,
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
    }
    if launcher != "stock":
        config["run_launcher"] = dict(_LAUNCHERS[launcher])
        if launcher_config:
            config["run_launcher"]["config"] = launcher_config
    # Dagster's own launcher cannot tell whether a run's process is alive, and cannot resume a run.
    config["run_monitoring"] = _monitoring(launcher)
    return merge_settings(config, read_settings(project)) if project else config


def _max_runs() -> int:
    """Return how many runs fit into the memory of the machine, or of this process's control group."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max"
        memory_bytes = min(memory_bytes, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(max(memory_bytes // 2 // _RUN_BYTES, _MIN_RUNS), _MAX_RUNS)


def _monitoring(launcher: Launcher) -> dict[str, Any]:
    if launcher == "stock":
        return {"enabled": False}
    return {**_MONITORING, "max_resume_run_attempts": _MAX_RESUMES[launcher]}


def _sqlite(home: Path) -> dict[str, Any]:
    module = "bonseyes_dagster.execution.storage.sqlite_storage"
    return {"module": module, "class": "KeptOpenSqliteStorage", "config": {"base_dir": str(home / "storage")}}


def _postgres(url: str) -> dict[str, Any]:
    module = "bonseyes_dagster.execution.storage.postgres_storage"
    # A check for the tables at each start takes time. It also fails a process that starts while the database is away.
    config = {"postgres_url": url, "should_autocreate_tables": False}
    return {"module": module, "class": "PooledPostgresStorage", "config": config}


def write_instance(home: Path, **options: Any) -> Path:
    """Write `dagster.yaml` into the folder `home`, with the options of `instance_config`, and return its path.

    A file that was changed by hand is kept beside it, with a warning in the log.
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
    """Tell whether a file was edited after this module wrote it; files of earlier versions have no digest."""
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
    """Write the workspace file for a code server at a port or a unix socket, and return its path."""
    address = {"socket": str(socket)} if socket else {"host": host, "port": port}
    server = {"grpc_server": {**address, "location_name": location}}
    return _write(home / WORKSPACE, yaml.safe_dump({"load_from": [server]}, sort_keys=False))


def _write(file: Path, content: str) -> Path:
    """Replace the file in one step, because other processes may read it."""
    # It may hold the database's password.
    replace_file(file, content.encode(), mode=0o600)
    return file
