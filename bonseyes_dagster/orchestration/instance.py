"""A project's Dagster instance: `dagster.yaml` and the workspace, written where DAGSTER_HOME points."""

import os
from pathlib import Path
from typing import Any, Literal

import yaml

__all__ = ["Launcher", "create_storage", "instance_config", "write_instance", "write_workspace"]

Launcher = Literal["warm", "stock", "docker"]
WORKSPACE = "workspace.yaml"
LOCATION = "definitions"

_COORDINATOR = {"module": "bonseyes_dagster.orchestration.coordinator", "class": "NamingRunCoordinator"}
_LAUNCHERS: dict[str, dict[str, Any]] = {
    "warm": {"module": "bonseyes_dagster.orchestration.launcher", "class": "WarmRunLauncher"},
    "docker": {"module": "bonseyes_dagster.orchestration.container_launcher", "class": "ContainerRunLauncher"},
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
) -> dict[str, Any]:
    """Return the content of `dagster.yaml`.

    Runs and events are in SQLite below `home`, or in the database with the URL `postgres`, whose tables are there.
    """
    config: dict[str, Any] = {
        "storage": {"custom": _postgres(postgres) if postgres else _sqlite(home)},
        "compute_logs": {
            "module": "bonseyes_dagster.orchestration.compute_logs",
            "class": "StepComputeLogManager",
            "config": {"base_dir": str(home / "compute_logs")},
        },
        "run_coordinator": dict(_COORDINATOR),
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
    return config


def _monitoring(launcher: Launcher) -> dict[str, Any]:
    if launcher == "stock":
        return {"enabled": False}
    return {**_MONITORING, "max_resume_run_attempts": _MOST_RESUMES[launcher]}


def _sqlite(home: Path) -> dict[str, Any]:
    module = "bonseyes_dagster.orchestration.sqlite_storage"
    return {"module": module, "class": "KeptOpenSqliteStorage", "config": {"base_dir": str(home / "storage")}}


def _postgres(url: str) -> dict[str, Any]:
    module = "bonseyes_dagster.orchestration.postgres_storage"
    # Looking for the tables at each start costs time, and a process that starts while the database is away its life.
    config = {"postgres_url": url, "should_autocreate_tables": False}
    return {"module": module, "class": "PooledPostgresStorage", "config": config}


def write_instance(home: Path, **options: Any) -> Path:
    """Write `dagster.yaml` into `home`, which is made if need be, and return it; see `instance_config`."""
    home.mkdir(parents=True, exist_ok=True)
    return _write(home / "dagster.yaml", instance_config(home, **options))


def write_workspace(home: Path, *, host: str = "127.0.0.1", port: int, location: str = LOCATION) -> Path:
    """Write the workspace file that points at a code server, and return it."""
    server = {"grpc_server": {"host": host, "port": port, "location_name": location}}
    return _write(home / WORKSPACE, {"load_from": [server]})


def create_storage(home: Path) -> None:
    """Make the storage of a new instance: processes that do so at the same time spoil it for each other."""
    from dagster import DagsterInstance  # takes a second, which writing the files above need not

    with DagsterInstance.from_config(str(home)) as instance:
        instance.get_run_ids(limit=1)
        instance.all_asset_keys()
        instance.all_instigator_state()


def _write(file: Path, content: dict[str, Any]) -> Path:
    """Replace the file whole: others may be reading it."""
    draft = file.with_suffix(f".{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    # It may hold the database's password.
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as new:
        yaml.safe_dump(content, new, sort_keys=False)
    draft.replace(file)
    return file
