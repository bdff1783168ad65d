"""A project's own dagster.yaml overrides ours. An error in it is refused with file and key."""

import logging
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.execution.launching.coordinator import NamingRunCoordinator
from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.storage.instance_settings import check_values, read_settings

EVERYTHING = """
concurrency:
  runs:
    max_concurrent_runs: 5
    tag_concurrency_limits: [{key: team, value: {applyLimitPerUniqueValue: true}, limit: 2}]
  pools: {default_limit: 3}
run_queue: {dequeue_interval_seconds: 7}
run_retries: {enabled: true, max_retries: 2}
run_monitoring: {max_runtime_seconds: 3600}
retention: {sensor: {purge_after_days: {success: 7}}}
sensors: {use_threads: true, num_workers: 2}
python_logs: {python_log_level: INFO}
telemetry: {enabled: false}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def test_project_settings_override_the_written_instance(project: Path, tmp_path: Path) -> None:
    """Settings that the file does not name keep our values."""
    (project / "dagster.yaml").write_text(EVERYTHING)
    check_values(project)
    write_instance(tmp_path, project=project)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        limits = instance.get_concurrency_config().run_queue_config
        assert limits is not None
        assert (limits.max_concurrent_runs, len(limits.tag_concurrency_limits)) == (5, 1)
        assert isinstance(instance.run_coordinator, NamingRunCoordinator)
        assert instance.run_coordinator.dequeue_interval_seconds == 7
        assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 2)
        assert instance.get_settings("run_monitoring")["max_runtime_seconds"] == 3600
        assert instance.run_monitoring_enabled and instance.run_monitoring_max_resume_run_attempts > 100
        assert instance.get_settings("retention")["sensor"]["purge_after_days"] == {
            "skipped": 1,
            "failure": 30,
            "success": 7,
        }
        assert instance.get_settings("sensors")["num_workers"] == 2


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_empty_file_sets_nothing(project: Path, text: str) -> None:
    """It is the same as no file."""
    assert read_settings(project) == {}
    (project / "dagster.yaml").write_text(text)
    check_values(project)
    assert read_settings(project) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("storage: {sqlite: {base_dir: /x}}", "storage cannot be set here: the project keeps runs and events itself"),
        ("run_launcher: {module: a, class: B}", "run_launcher cannot be set here"),
        ("run_coordinator: {module: a, class: B}", "set concurrency.runs or run_queue instead"),
        ("run_retrys: {enabled: true}", "run_retrys is not one of"),
        ("run_retries: 3", "run_retries must map names to values"),
        ("run_retries: {max_retries: many}", "root:run_retries:max_retries"),
        ("run_monitoring: {max_runtime: 3}", '"max_runtime" at path root:run_monitoring'),
        ("concurrency: {runs: {max_concurrent_runs: -5}}", "concurrency.runs.max_concurrent_runs must be"),
        ("concurrency: {runs: {max_concurrent_runs: 1}}\nrun_queue: {max_concurrent_runs: 1}", "incompatible"),
        ("- a", "must map Dagster's settings to values; it holds a list"),
        ("a: [", "line 1: it is not YAML"),
    ],
)
def test_wrong_settings_are_refused_with_file_and_key(project: Path, text: str, expected: str) -> None:
    """With wrong settings, every process of Dagster would end with a traceback."""
    (project / "dagster.yaml").write_text(text)
    with pytest.raises(SettingsError) as error:
        check_values(project)
    assert str(project / "dagster.yaml") in error.value.message
    assert expected in error.value.message


def test_edit_of_the_written_file_is_set_aside_with_a_warning(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is written at each start. Its header names the file for settings."""
    file = write_instance(tmp_path, project=project)
    assert "dagster.yaml beside definitions.py" in file.read_text()
    with caplog.at_level(logging.WARNING):
        write_instance(tmp_path, project=project)
        assert not caplog.records
        edited = file.read_text() + "run_retries: {enabled: true}\n"
        file.write_text(edited)
        write_instance(tmp_path, project=project)
    assert "was changed by hand" in caplog.text
    assert (tmp_path / "dagster.yaml.edited").read_text() == edited
    assert "run_retries" not in yaml.safe_load(file.read_text())


def test_limit_of_live_runs_fits_into_memory(tmp_path: Path) -> None:
    """A waiting run takes 34 MB, so 300 runs take 10 GB."""
    config = yaml.safe_load(write_instance(tmp_path).read_text())["run_coordinator"]["config"]
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert config["max_concurrent_runs"] <= max(20, int(memory.split()[1]) // 2 // 40_000)
    assert (
        yaml.safe_load(write_instance(tmp_path, max_runs=7).read_text())["run_coordinator"]["config"][
            "max_concurrent_runs"
        ]
        == 7
    )
