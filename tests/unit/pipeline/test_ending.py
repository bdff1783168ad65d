"""Deletions over a real storage: each is carried out once, and a new run of the name is none of its business."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.errors import NotFoundError, UnavailableError
from bonseyes_dagster.orchestration.names import RUN_TAG, run_id_of
from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.pipeline.asking import Asker
from bonseyes_dagster.pipeline.ending import Ending
from bonseyes_dagster.pipeline.records import DELETED_TAG, Records
from bonseyes_dagster.pipeline.states import RunState, States
from bonseyes_dagster.pipeline.uploads import Uploads

TINY = Path(__file__).parents[2] / "flow" / "tiny"
RUN_ID = run_id_of("x")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with files."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def records(instance: DagsterInstance) -> Records:
    """The tiny project's runs; there is one, and it has failed."""
    add_run(instance)
    return Records(instance, load_pipeline(TINY, "tiny-one"))


@pytest.fixture
def ending(records: Records, tmp_path: Path) -> Ending:
    """What deletes them."""
    states = States(records, load_pipeline(TINY, "tiny-one"), Asker(Addresses()), "http://gateway")
    return Ending(records, states, Uploads(tmp_path / "volume", reserve_bytes=0))


def add_run(instance: DagsterInstance) -> None:
    """Add a run, always of the same name, that has failed."""
    run = DagsterRun(job_name="tiny_one", run_id=RUN_ID, tags={RUN_TAG: "x"}, status=DagsterRunStatus.FAILURE)
    instance.add_run(run)


def test_a_deletion_is_carried_out_by_one_thread(
    ending: Ending, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tidying leaves alone what a request is deleting, and so does another request."""
    record = records.find("x")
    deleting: list[str] = []
    is_at_it, may_go_on = threading.Event(), threading.Event()

    def delete_artifacts(state: RunState) -> None:
        deleting.append(state.name)
        is_at_it.set()
        may_go_on.wait(30)

    monkeypatch.setattr(ending, "_delete_artifacts", delete_artifacts)
    with ThreadPoolExecutor(2) as pool:
        request = pool.submit(ending.delete, record, with_artifacts=True)
        assert is_at_it.wait(30)
        tidying = pool.submit(ending.resume)
        with pytest.raises(NotFoundError):
            ending.delete(record, with_artifacts=True)
        tidying.result(timeout=30)
        may_go_on.set()
        request.result()
    assert deleting == ["x"]
    assert records.search("x") is None
    with pytest.raises(NotFoundError):
        ending.delete(record, with_artifacts=True)


@pytest.mark.parametrize("step", ["_wait", "_delete_artifacts"])
def test_a_new_run_of_the_name_is_left_alone(
    ending: Ending, records: Records, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """When the old one was deleted by somebody else, as on Dagster's page, before the deletion gets to it."""
    deleting: list[str] = []

    def replace(_: object) -> None:
        instance.delete_run(RUN_ID)
        add_run(instance)

    monkeypatch.setattr(ending, "_delete_artifacts", lambda state: deleting.append(state.name))
    monkeypatch.setattr(ending, step, replace)
    ending.delete(records.find("x"), with_artifacts=True)
    assert DELETED_TAG not in records.find("x").dagster_run.tags
    assert not deleting


def test_what_is_marked_no_more_is_not_resumed(
    ending: Ending, records: Records, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of deletions may be old when their turn comes."""
    instance.add_run_tags(RUN_ID, {DELETED_TAG: "true"})
    listed = records.deleted()
    assert [run.run_id for run in listed] == [RUN_ID]
    instance.delete_run(RUN_ID)
    add_run(instance)
    monkeypatch.setattr(records, "deleted", lambda: listed)
    ending.resume()
    assert records.find("x")


def begin_step(instance: DagsterInstance) -> None:
    """Have the run begin a step that nobody has seen the end of."""
    instance.report_dagster_event(DagsterEvent(DagsterEventType.STEP_START.value, "tiny_one", step_key="learn"), RUN_ID)


def test_a_deletion_waits_for_a_container_that_has_work_to_cancel(
    ending: Ending,
    records: Records,
    instance: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the run goes the last that knows of the work. It is said which, at each try, and given up after a while."""
    begin_step(instance)
    record = records.find("x")
    with pytest.raises(UnavailableError) as caught:
        ending.delete(record, with_artifacts=False)
    assert list(caught.value.detail["left"]) == ["http://learn/artifacts/x_learn"]
    with pytest.raises(NotFoundError):
        records.find("x")
    ending.resume()
    assert "The run x is being deleted." in caplog.text and "http://learn/artifacts/x_learn" in caplog.text
    assert records.search("x") is not None
    monkeypatch.setattr("bonseyes_dagster.pipeline.ending._PATIENCE_S", 0)
    ending.resume()
    assert records.search("x") is None


def test_a_run_that_never_began_is_deleted_whether_its_containers_answer_or_not(
    ending: Ending, records: Records
) -> None:
    """Nothing of it can be anywhere."""
    assert ending.delete(records.find("x"), with_artifacts=False) == []
    assert records.search("x") is None
