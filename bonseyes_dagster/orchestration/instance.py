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
    "docker": {"module": "dagster_docker", "class": "DockerRunLauncher"},
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
    postgres: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of `dagster.yaml`.

    Runs and events are in SQLite below `home`, or in the database that `postgres` (dagster-postgres' config) names.
    """
    config: dict[str, Any] = {
        "storage": {"postgres": postgres} if postgres else {"custom": _sqlite(home)},
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
    draft.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    draft.replace(file)
    return file
