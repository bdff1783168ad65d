"""Deletions over a real storage: each is done once, and leaves a new run of the same name alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import RunFailureReason
from dagster._core.execution.stats import StepEventStatus

from bonseyes_dagster.client import Addresses, Container
from bonseyes_dagster.errors import NotFoundError, UnavailableError
from bonseyes_dagster.execution.runs.run_end import fail_run_with
from bonseyes_dagster.execution.runs.run_names import run_id_of
from bonseyes_dagster.model import Parameter
from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.orchestration.runs.container_requests import ContainerRequests
from bonseyes_dagster.orchestration.runs.records import Records
from bonseyes_dagster.orchestration.runs.run_ending import RunEnding
from bonseyes_dagster.orchestration.runs.run_locks import RunLocks
from bonseyes_dagster.orchestration.runs.states import RunState, States
from bonseyes_dagster.pipeline.uploads import Uploads
from bonseyes_dagster.tags import DELETED_TAG, LAUNCH_TAG, PIPELINE_TAG, RUN_TAG
from tests.contract.memory import Job, MemoryBackend
from tests.system.project import serve_twin, tool_description

TINY = Path(__file__).parents[3] / "flow" / "tiny"
RUN_ID = run_id_of("x")


@pytest.fixture
def records(instance: DagsterInstance) -> Records:
    """Return the runs of the tiny project: one, which has failed."""
    add_run(instance)
    return Records(instance, load_pipeline(TINY, "tiny-one"))


@pytest.fixture
def ending(records: Records, tmp_path: Path) -> RunEnding:
    """Return the object that deletes the runs."""
    requests = ContainerRequests(Addresses(tmp_path / "addresses.json"))
    states = States(records, load_pipeline(TINY, "tiny-one"), requests, "http://gateway")
    uploads = Uploads(tmp_path / "volume", reserve_bytes=0)
    return RunEnding(records, states, uploads.remove, delete_locks=RunLocks(), start_locks=RunLocks())


def add_run(instance: DagsterInstance) -> None:
    """Add a failed run, always with the same name."""
    run = DagsterRun(job_name="tiny_one", run_id=RUN_ID, tags={RUN_TAG: "x"}, status=DagsterRunStatus.FAILURE)
    instance.add_run(run)


def test_deletion_is_done_by_one_thread(ending: RunEnding, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cleaning up, and a second request, leave alone the run that a request deletes."""
    record = records.find("x")
    deleting: list[str] = []
    has_begun, may_continue = threading.Event(), threading.Event()

    def delete_artifacts(state: RunState) -> None:
        deleting.append(state.name)
        has_begun.set()
        may_continue.wait(30)

    monkeypatch.setattr(ending, "_delete_artifacts", delete_artifacts)
    with ThreadPoolExecutor(2) as pool:
        request = pool.submit(ending.delete, record, with_artifacts=True)
        assert has_begun.wait(30)
        tidying = pool.submit(ending.resume)
        with pytest.raises(NotFoundError):
            ending.delete(record, with_artifacts=True)
        tidying.result(timeout=30)
        may_continue.set()
        request.result()
    assert deleting == ["x"]
    assert records.search("x") is None
    with pytest.raises(NotFoundError):
        ending.delete(record, with_artifacts=True)


@pytest.mark.parametrize("step", ["_wait", "_delete_artifacts"])
def test_new_run_of_the_name_is_left_alone(
    ending: RunEnding, records: Records, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Somebody may delete the old run on Dagster's page before this deletion does."""
    deleting: list[str] = []

    def replace(_: object) -> None:
        instance.delete_run(RUN_ID)
        add_run(instance)

    monkeypatch.setattr(ending, "_delete_artifacts", lambda state: deleting.append(state.name))
    monkeypatch.setattr(ending, step, replace)
    ending.delete(records.find("x"), with_artifacts=True)
    assert DELETED_TAG not in records.find("x").dagster_run.tags
    assert not deleting


def test_deletion_of_a_replaced_run_is_not_resumed(
    ending: RunEnding, records: Records, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of deletions may be outdated when a run's deletion is resumed."""
    instance.add_run_tags(RUN_ID, {DELETED_TAG: "true"})
    listed = records.deleted()
    assert [run.run_id for run in listed] == [RUN_ID]
    instance.delete_run(RUN_ID)
    add_run(instance)
    monkeypatch.setattr(records, "deleted", lambda: listed)
    ending.resume()
    assert records.find("x")


def begin_step(instance: DagsterInstance) -> None:
    """Let the run begin a step, without an end."""
    instance.report_dagster_event(DagsterEvent(DagsterEventType.STEP_START.value, "tiny_one", step_key="learn"), RUN_ID)


def test_deletion_waits_for_a_container_with_work_to_cancel(
    ending: RunEnding,
    records: Records,
    instance: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only the run's row tells of that work.

    Each try logs the container, and after a while the deletion goes on without it.
    """
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
    monkeypatch.setattr("bonseyes_dagster.orchestration.runs.run_ending._PATIENCE_S", 0)
    ending.resume()
    assert records.search("x") is None


def test_run_that_never_began_is_deleted_without_its_containers(ending: RunEnding, records: Records) -> None:
    """It has no artifact anywhere."""
    assert ending.delete(records.find("x"), with_artifacts=False) == []
    assert records.search("x") is None


LAUNCH = "0" * 32


def finish(job: Job) -> None:
    """Make an artifact of one file; with the parameter `slow`, continue until it is cancelled."""
    while job.parameters.get("slow"):
        job.progress(0)
        job.sleep(0.01)
    job.path("model").write_bytes(b"model")


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[dict[str, Container]]:
    """Serve the containers of the tiny project."""
    with ExitStack() as stack:
        addresses = {}
        for name in ("load", "learn", "judge"):
            parameter = Parameter(name="slow", type="boolean", default=False)
            backend = MemoryBackend(tool_description(name, parameters=(parameter,)), finish)
            addresses[name] = stack.enter_context(serve_twin(backend))
        (tmp_path / "addresses.json").write_text(json.dumps(addresses))
        yield {name: Container(url, name=name, kind="artifacts") for name, url in addresses.items()}


def names_in(containers: dict[str, Container]) -> list[str]:
    """Return the names of all artifacts."""
    return [status.name for container in containers.values() for status in container.statuses()]


def test_deletion_of_a_run_with_a_shared_name_takes_only_its_own_artifacts(
    ending: RunEnding, records: Records, instance: DagsterInstance, containers: dict[str, Container]
) -> None:
    """Its tag has the name of the other run."""
    first, second = run_id_of("mine"), "22222222-0000-4000-8000-000000000000"
    for run_id, name in ((first, "mine"), (second, "mine-22222222")):
        tags = {PIPELINE_TAG: "tiny-one", RUN_TAG: "mine"}
        instance.add_run(DagsterRun(job_name="tiny_one", run_id=run_id, tags=tags, status=DagsterRunStatus.FAILURE))
        containers["learn"].create(f"{name}_learn", {}, idempotency_key=f"{run_id}/learn").wait(30)
    ending.delete(records.find("mine-22222222"), with_artifacts=True)
    assert names_in(containers) == ["mine_learn"]


@pytest.mark.parametrize("with_artifacts", [True, False])
@pytest.mark.parametrize("key", [f"{RUN_ID}/{LAUNCH}/learn", f"{RUN_ID}/learn", "made by hand"])
def test_artifacts_that_the_run_did_not_make_are_left_alone(
    ending: RunEnding,
    records: Records,
    instance: DagsterInstance,
    containers: dict[str, Container],
    key: str,
    with_artifacts: bool,
) -> None:
    """A deleted run of the name, or a user by hand, may have made an artifact with such a name."""
    instance.add_run_tags(RUN_ID, {LAUNCH_TAG: "1" * 32})
    begin_step(instance)
    made = containers["learn"].create("x_learn", {"slow": True}, idempotency_key=key)
    containers["judge"].create("x_judge", {}, idempotency_key=f"{RUN_ID}/{'1' * 32}/judge").wait(30)
    assert ending.delete(records.find("x"), with_artifacts=with_artifacts) == []
    assert names_in(containers) == ["x_learn", "x_judge"][: 1 if with_artifacts else 2]
    assert not made.status().is_final
    made.cancel()


def test_artifact_of_a_step_closed_with_its_run_is_cancelled(
    ending: RunEnding, records: Records, instance: DagsterInstance, containers: dict[str, Container]
) -> None:
    """Dagster shows the step as failed, but no process has seen the end of its artifact."""
    begin_step(instance)
    run = instance.get_run_by_id(RUN_ID)
    assert run is not None
    fail_run_with(instance, run, "The run's process is gone.", RunFailureReason.UNEXPECTED_TERMINATION)
    made = containers["learn"].create("x_learn", {"slow": True}, idempotency_key=f"{RUN_ID}/learn")
    assert ending.delete(records.find("x"), with_artifacts=False) == [made.url]
    assert made.wait(30).phase == "cancelled"


def add_child(instance: DagsterInstance) -> DagsterRun:
    """Add a re-execution as Dagster's page does: with a copy of the parent's tags."""
    parent = instance.get_run_by_id(RUN_ID)
    assert parent is not None
    child = DagsterRun(
        job_name="tiny_one",
        run_id="33333333-0000-4000-8000-000000000000",
        tags={**parent.tags, RUN_TAG: "again"},
        status=DagsterRunStatus.FAILURE,
        parent_run_id=RUN_ID,
        root_run_id=RUN_ID,
    )
    instance.add_run(child)
    return child


@pytest.mark.parametrize("is_of_former_version", [False, True])
def test_re_execution_of_a_deleted_run_stays(
    ending: RunEnding,
    records: Records,
    instance: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    is_of_former_version: bool,
) -> None:
    """It copies its parent's tags, also the mark of deletion. It can be deleted by itself, without its artifacts."""
    record = records.find("x")
    if is_of_former_version:
        instance.add_run_tags(RUN_ID, {DELETED_TAG: "true", "bonseyes/delete-artifacts": "true"})
    else:
        with pytest.raises(UnavailableError):
            ending.delete(record, with_artifacts=True)
    child = add_child(instance)
    monkeypatch.setattr(ending, "_delete_artifacts", lambda _: None)
    ending.resume()
    assert [run.run_id for run in instance.get_runs()] == [child.run_id]
    assert [record.dagster_run.run_id for record in records.page(limit=None, after=None)] == [child.run_id]
    instance.add_run_tags(child.run_id, {DELETED_TAG: child.run_id})
    asked = []
    monkeypatch.setattr(ending, "_delete_artifacts", asked.append)
    ending.resume()
    assert (instance.get_runs(), asked) == ([], [])


def test_cancelled_run_without_a_process_has_no_step_in_progress(
    ending: RunEnding, instance: DagsterInstance, containers: dict[str, Container]
) -> None:
    """Its steps end with it."""
    run_id = run_id_of("y")
    run = instance.add_run(
        DagsterRun(job_name="tiny_one", run_id=run_id, tags={RUN_TAG: "y"}, status=DagsterRunStatus.STARTED)
    )
    event = DagsterEvent(DagsterEventType.STEP_START.value, "tiny_one", step_key="learn")
    instance.report_dagster_event(event, run_id)
    ending.cancel(run)
    assert [each.status for each in instance.get_run_step_stats(run_id)] == [StepEventStatus.FAILURE]
    ended = instance.get_run_by_id(run_id)
    assert ended is not None and ended.status is DagsterRunStatus.CANCELED
