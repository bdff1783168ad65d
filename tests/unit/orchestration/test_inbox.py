"""The inbox: archives in a folder become one run, once, and not before they are whole."""

import os
import time
from pathlib import Path

import pytest
from dagster import DefaultSensorStatus, RunRequest, SensorDefinition, build_sensor_context, graph

from bonseyes_dagster import Pipeline, PipelineParameter, Task, inbox_sensor, tool_op
from bonseyes_dagster.orchestration import names
from tests.unit.orchestration.tools import write_tools


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A pipeline that wants two archives."""
    load = tool_op("import", project=write_tools(tmp_path / "project"))

    @graph
    def loading():
        load.alias("a")()
        load.alias("b")()

    archives = [PipelineParameter("images", to="a.images"), PipelineParameter("labels", to="b.images")]
    task = Task(name="task", description="Do it.", output="Nothing.")
    return Pipeline(name="load-both", graph=loading, task=task, parameters=archives)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def place(folder: Path, *files: str, age_s: float = 60.0) -> None:
    """Put files into a folder, as if some time ago."""
    folder.mkdir(exist_ok=True)
    for name in files:
        (folder / name).write_text(name)
        os.utime(folder / name, (time.time() - age_s,) * 2)


def requests(sensor: SensorDefinition) -> list[RunRequest]:
    """Evaluate the sensor once."""
    return list(sensor.evaluate_tick(build_sensor_context()).run_requests or [])


def test_archives_start_a_run(pipeline: Pipeline, inbox: Path) -> None:
    """Files are known by their names up to the first dot."""
    place(inbox, "images.idx.gz", "labels.gz", "notes.txt")
    (request,) = requests(inbox_sensor(pipeline, folder=inbox))
    assert request.run_config == {"images": str(inbox / "images.idx.gz"), "labels": str(inbox / "labels.gz")}
    assert request.tags[names.RUN_TAG].startswith("inbox-")


def test_subfolder_names_the_run(pipeline: Pipeline, inbox: Path) -> None:
    """One folder is one run."""
    place(inbox / "monday", "images", "labels")
    place(inbox / "tuesday", "images", "labels")
    found = requests(inbox_sensor(pipeline, folder=inbox))
    assert [request.tags[names.RUN_TAG] for request in found] == ["monday", "tuesday"]
    assert len({request.run_key for request in found}) == 2


def test_same_files_are_the_same_run(pipeline: Pipeline, inbox: Path) -> None:
    """Dagster launches a run key once; replaced archives have another."""
    sensor = inbox_sensor(pipeline, folder=inbox)
    place(inbox, "images", "labels")
    first, again = requests(sensor)[0].run_key, requests(sensor)[0].run_key
    place(inbox, "images", age_s=30)
    assert first == again != requests(sensor)[0].run_key


def test_incomplete_sets_wait(pipeline: Pipeline, inbox: Path) -> None:
    """A missing file is named in the reason."""
    place(inbox, "images")
    data = inbox_sensor(pipeline, folder=inbox).evaluate_tick(build_sensor_context())
    assert not data.run_requests
    assert "lacks labels" in data.skip_message


def test_files_that_are_still_being_copied_wait(pipeline: Pipeline, inbox: Path) -> None:
    """What has just changed may change again."""
    place(inbox, "images")
    place(inbox, "labels", age_s=0)
    assert requests(inbox_sensor(pipeline, folder=inbox)) == []
    assert len(requests(inbox_sensor(pipeline, folder=inbox, settle_s=0))) == 1


def test_without_an_inbox_it_is_off(pipeline: Pipeline, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the folder; a wrong one is told."""
    monkeypatch.delenv("BONSEYES_INBOX", raising=False)
    sensor = inbox_sensor(pipeline)
    assert sensor.default_status == DefaultSensorStatus.STOPPED
    assert "Set BONSEYES_INBOX" in sensor.evaluate_tick(build_sensor_context()).skip_message
    monkeypatch.setenv("BONSEYES_INBOX", str(inbox / "missing"))
    assert "is not a folder" in sensor.evaluate_tick(build_sensor_context()).skip_message
    monkeypatch.setenv("BONSEYES_INBOX", str(inbox))
    assert inbox_sensor(pipeline).default_status == DefaultSensorStatus.RUNNING
