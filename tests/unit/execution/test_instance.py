"""The files of a Dagster instance, as Dagster loads them."""

from pathlib import Path

import yaml
from dagster import DagsterInstance

from bonseyes_dagster.execution.launching.coordinator import NamingRunCoordinator
from bonseyes_dagster.execution.launching.launcher import WarmRunLauncher
from bonseyes_dagster.execution.storage.instance import write_instance, write_workspace
from bonseyes_dagster.execution.storage.migration import bring_up_to_date
from bonseyes_dagster.execution.threads.compute_logs import StepComputeLogManager


def test_dagster_loads_the_written_instance(tmp_path: Path) -> None:
    """Launcher, coordinator and log manager are ours, telemetry is off, and all files are below the home."""
    home = tmp_path / "home"
    write_instance(home)
    bring_up_to_date(home)
    with DagsterInstance.from_config(str(home)) as instance:
        assert isinstance(instance.run_launcher, WarmRunLauncher)
        assert isinstance(instance.run_coordinator, NamingRunCoordinator)
        assert isinstance(instance.compute_log_manager, StepComputeLogManager)
        assert instance.telemetry_enabled is False
        assert instance.run_monitoring_enabled and instance.run_monitoring_max_resume_run_attempts > 100
    assert (home / "storage" / "history" / "runs.db").is_file()


def test_stock_launcher_can_be_configured(tmp_path: Path) -> None:
    """Then Dagster's run monitoring is off as well."""
    write_instance(tmp_path, launcher="stock")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher).__name__ == "DefaultRunLauncher"
        assert not instance.run_monitoring_enabled


def test_docker_and_postgres_are_configured(tmp_path: Path) -> None:
    """Only the owner may read the file, because it has the password."""
    url = "postgresql://dagster:secret@postgres/dagster"
    file = write_instance(tmp_path, launcher="docker", launcher_config={"image": "project"}, postgres=url)
    config = yaml.safe_load(file.read_text())
    assert config["storage"]["custom"]["class"] == "PooledPostgresStorage"
    assert config["storage"]["custom"]["config"]["postgres_url"] == url
    assert config["run_launcher"]["class"] == "ContainerRunLauncher"
    assert config["run_launcher"]["config"] == {"image": "project"}
    assert config["run_monitoring"]["enabled"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_workspace_points_at_the_code_server(tmp_path: Path) -> None:
    """A second write replaces the whole file."""
    write_workspace(tmp_path, port=1)
    at_socket = yaml.safe_load(write_workspace(tmp_path, socket=tmp_path / "code.sock").read_text())["load_from"]
    assert at_socket == [{"grpc_server": {"socket": f"{tmp_path}/code.sock", "location_name": "definitions"}}]
    (entry,) = yaml.safe_load(write_workspace(tmp_path, port=4000).read_text())["load_from"]
    assert entry["grpc_server"] == {"host": "127.0.0.1", "port": 4000, "location_name": "definitions"}
    assert [path.name for path in tmp_path.iterdir()] == ["workspace.yaml"]
