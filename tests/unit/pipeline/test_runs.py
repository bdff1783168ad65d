"""Creations at the same moment, over a real storage: what another thread does between two steps of one of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun
from dagster._core.errors import DagsterLaunchFailedError
from flask.testing import FlaskClient

from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.orchestration.runs import launching
from bonseyes_dagster.orchestration.runs.launching import RunStarter
from bonseyes_dagster.orchestration.runs.run_ending import RunEnding
from bonseyes_dagster.orchestration.runs.states import RunState
from bonseyes_dagster.pipeline.app import create_app
from bonseyes_dagster.pipeline.runs import Runs
from bonseyes_dagster.settings import Settings

TINY = Path(__file__).parents[2] / "flow" / "tiny"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """Return the runs of the tiny project, without a code server and without a launcher."""

    def create_run(*, instance: DagsterInstance, run_id: str, tags: Mapping[str, str], **_: Any) -> None:
        instance.add_run(DagsterRun(job_name="tiny_one", run_id=run_id, tags=dict(tags)))

    monkeypatch.setattr(RunStarter, "_context", lambda _: None)
    monkeypatch.setattr(RunStarter, "_find", lambda *_: (None, None, None))
    monkeypatch.setattr(launching, "_create_run", create_run)
    volume, workspace = tmp_path / "volume", tmp_path / "workspace.yaml"
    runs = Runs(load_pipeline(TINY, "tiny-one"), Settings(), volume=volume, workspace=workspace)
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        monkeypatch.setattr(instance, "submit_run", lambda *_: None)
        runs.instance = instance  # type: ignore[misc] # in place of DAGSTER_HOME's
        yield runs


@pytest.fixture
def post(runs: Runs) -> Callable[[], int]:
    """Return a function that creates a run, always with the same key, and returns the status code."""
    application = create_app(runs, Settings())

    def post() -> int:
        archives = {name: (BytesIO(b"abc"), name) for name in ("train", "test")}
        client: FlaskClient = application.test_client()
        body = {"name": "x", "data": "{}", **archives}
        return client.post("/runs", data=body, headers={"Idempotency-Key": "key"}).status_code

    return post


def test_two_equal_requests_at_once_make_one_run(
    runs: Runs, post: Callable[[], int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second request creates the run after the first has checked the key and before it checks the name."""
    look, twins = runs._former_run, []

    def look_before_the_twin(key: str, body: str) -> str | None:
        found = look(key, body)
        monkeypatch.setattr(runs, "_former_run", look)
        twins.append(post())
        return found

    monkeypatch.setattr(runs, "_former_run", look_before_the_twin)
    assert (post(), twins) == (200, [200])
    assert len(list((tmp_path / "volume" / "uploads").iterdir())) == 1


@pytest.mark.parametrize(("is_starting", "is_reloaded"), [(False, False), (True, False), (False, True)])
def test_a_repeated_request_waits_for_a_launch_that_fails(
    runs: Runs, post: Callable[[], int], monkeypatch: pytest.MonkeyPatch, is_starting: bool, is_reloaded: bool
) -> None:
    """The failed launch deletes the run, and the repeated request creates it again.

    This holds if the launcher had reported the run as starting, and if the definitions are reloaded in between.
    """
    has_begun, may_fail = threading.Event(), threading.Event()

    def fail(run_id: str, _: object) -> None:
        monkeypatch.setattr(runs.instance, "submit_run", lambda *_: None)
        if is_starting:
            event = DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, "tiny_one")
            runs.instance.report_dagster_event(event, run_id)
        has_begun.set()
        may_fail.wait(30)
        raise DagsterLaunchFailedError("The run server did not answer.")

    monkeypatch.setattr(runs.instance, "submit_run", fail)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post)
        assert has_begun.wait(30)
        if is_reloaded:
            runs.serve(load_pipeline(TINY, "tiny-one"))
        second = pool.submit(post)
        wait([second], timeout=0.5)
        may_fail.set()
        assert (first.result(), second.result()) == (503, 200)
    assert runs.names() == ["x"]


def test_name_freed_by_a_failed_launch_gets_503(
    runs: Runs, post: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name was taken at the first check and is free at the second: a retry can succeed, so 409 would be wrong."""
    monkeypatch.setattr(runs, "_former_run", lambda *_: None)
    assert post() == 200
    owner = runs._records.owner
    owners = iter([owner("x"), None])
    monkeypatch.setattr(runs._records, "owner", lambda _: next(owners))
    assert post() == 503


def test_uploads_are_set_aside_when_dagsters_storage_is_lost(
    runs: Runs, post: Callable[[], int], tmp_path: Path
) -> None:
    """A new storage knows no runs. The archives must not be removed."""
    assert post() == 200
    [uploaded] = (tmp_path / "volume/uploads").iterdir()
    os.utime(uploaded, (time.time() - 10**6,) * 2)
    runs.clean()
    assert uploaded.exists()
    [run] = runs.instance.get_runs()
    runs.instance.delete_run(run.run_id)
    runs.clean()
    kept = [path.read_bytes() for path in (tmp_path / "volume/lost+found").glob("uploads-*/*/*/*")]
    assert kept == [b"abc", b"abc"]


def test_deletion_is_done_once_across_a_reload_of_the_definitions(
    runs: Runs, post: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleaning up after the reload leaves alone the run that an earlier request deletes."""
    assert post() == 200
    deleting: list[str] = []
    has_begun, may_continue = threading.Event(), threading.Event()

    def keep_artifacts(_: RunEnding, state: RunState) -> list[str]:
        deleting.append(state.name)
        if len(deleting) == 1:
            has_begun.set()
            may_continue.wait(30)
        return []

    monkeypatch.setattr(RunEnding, "_keep_artifacts", keep_artifacts)
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(runs.delete, "x")
        assert has_begun.wait(30)
        runs.serve(load_pipeline(TINY, "tiny-one"))
        runs.clean()
        may_continue.set()
        request.result()
    assert deleting == ["x"]
    assert runs.instance.get_runs() == []


def test_new_run_waits_until_the_deleted_run_of_its_name_is_gone(
    runs: Runs, post: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs have one id. Dagster deletes the row, which frees the name, before it deletes the events."""
    assert post() == 200
    instance = runs.instance

    def report(run_id: str, _: object) -> None:
        instance.report_dagster_event(DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, "tiny_one"), run_id)

    def delete_slowly(run_id: str) -> None:
        instance.run_storage.delete_run(run_id)
        creations.append(pool.submit(post))
        wait(creations, timeout=0.5)
        instance.event_log_storage.delete_events(run_id)

    creations: list[Future[int]] = []
    monkeypatch.setattr(instance, "submit_run", report)
    monkeypatch.setattr(instance, "delete_run", delete_slowly)
    with ThreadPoolExecutor(1) as pool:
        runs.delete("x")
    assert creations[0].result() == 200
    [run] = instance.get_runs()
    assert [entry.dagster_event_type for entry in instance.all_logs(run.run_id)] == [DagsterEventType.PIPELINE_STARTING]
