"""Output belongs to the step that prints it, while steps begin and end."""

import contextvars
import itertools
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from sqlalchemy.exc import OperationalError

from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.threads import step_streams
from bonseyes_dagster.execution.threads.compute_logs import _IDLE_S, StepComputeLogManager, remove_orphaned_logs


def print_while_it_ends(manager, key, moment):
    """Print outside of a step that ends before an instruction of `_target`; tell whether it ended there."""
    context = contextvars.copy_context()
    step = manager.capture_logs(key)
    context.run(step.__enter__)
    moments = itertools.count()
    has_ended = False

    def end() -> None:
        nonlocal has_ended
        has_ended = True
        context.run(step.__exit__, None, None, None)

    def trace(frame, event, _):
        if frame.f_code is not step_streams._target.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(moments) == moment:
            end()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        print("line")
    finally:
        sys.settrace(before)
        ended = has_ended
        if not ended:
            end()
    return ended


def test_step_may_end_while_a_thread_prints(tmp_path: Path, capsys):
    """At any moment, the output goes to the step or to the process, and never raises an error."""
    manager = StepComputeLogManager(str(tmp_path))
    for moment in itertools.count():
        key = ["run", "compute_logs", str(moment)]
        ended = print_while_it_ends(manager, key, moment)
        assert manager.get_log_data(key).stdout.decode() + capsys.readouterr().out == "line\n"
        if not ended:
            break
    assert moment > 10


# --- logs of deleted runs


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance like a project's."""
    write_instance(tmp_path, launcher="stock")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def log_of(instance: DagsterInstance, run_id: str, *, idle_s: float = 2 * _IDLE_S) -> Path:
    """Write the log of a run's step with an age of `idle_s`; return the run's folder."""
    folder = Path(instance.root_directory) / "compute_logs" / run_id
    file = folder / "compute_logs" / "step.out"
    file.parent.mkdir(parents=True)
    file.write_text("line\n")
    moment = time.time() - idle_s
    for path in (file, file.parent, folder):
        os.utime(path, (moment, moment))
    return folder


def test_deletion_of_a_run_removes_only_its_logs(instance: DagsterInstance) -> None:
    """This holds for every way to delete a run, because all use its storage."""
    instance.add_run(run := DagsterRun(job_name="job"))
    mine, other = log_of(instance, run.run_id), log_of(instance, str(uuid.uuid4()))
    instance.delete_run(run.run_id)
    assert (mine.exists(), other.exists()) == (False, True)


def test_only_idle_logs_of_deleted_runs_are_orphans(instance: DagsterInstance) -> None:
    """Logs of existing runs, logs that changed recently, and logs of sensor ticks stay."""
    instance.add_run(run := DagsterRun(job_name="job"))
    kept = [log_of(instance, run.run_id), log_of(instance, str(uuid.uuid4()), idle_s=60), log_of(instance, "inbox")]
    gone = log_of(instance, str(uuid.uuid4()))
    # A removal that was interrupted after it set the folder aside.
    half_gone = log_of(instance, str(uuid.uuid4()))
    half_gone.rename(half_gone.with_name(f".deleted-{half_gone.name}"))
    remove_orphaned_logs(instance)
    assert {path.name for path in gone.parent.iterdir()} == {path.name for path in kept}


def test_no_log_is_removed_while_runs_cannot_be_read(instance: DagsterInstance, monkeypatch) -> None:
    """An error does not mean that the runs are gone."""
    folder = log_of(instance, str(uuid.uuid4()))

    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("The database is away."))

    monkeypatch.setattr(instance, "get_run_ids", fail)
    with pytest.raises(OperationalError):
        remove_orphaned_logs(instance)
    assert (folder / "compute_logs" / "step.out").read_text() == "line\n"


def test_logs_are_put_back_if_a_new_run_has_the_id(instance: DagsterInstance) -> None:
    """A new run with the name of a deleted run has its id. The new run's own output is kept."""
    run_id = str(uuid.uuid4())
    folder = log_of(instance, run_id)
    (folder / "compute_logs" / "other.out").write_text("before\n")
    os.utime(folder / "compute_logs" / "other.out", (0, 0))
    os.utime(folder / "compute_logs", (0, 0))
    manager = instance.compute_log_manager
    assert isinstance(manager, StepComputeLogManager)
    answers = iter([set(), {run_id}])

    def known(_: list[str]) -> set[str]:
        answer = next(answers)
        if answer:
            with manager.open_log_stream([run_id, "compute_logs", "other"], ComputeIOType.STDOUT) as stream:
                assert stream is not None
                stream.write("new\n")
        return answer

    manager.remove_orphans(known)
    logs = {path.name: path.read_text() for path in (folder / "compute_logs").iterdir()}
    assert logs == {"step.out": "line\n", "other.out": "new\n"}
    assert [path.name for path in folder.parent.iterdir()] == [run_id]


@pytest.mark.parametrize("place", [(SqliteEventLogStorage, "delete_events"), (shutil, "rmtree")])
def test_deletion_keeps_the_output_of_a_new_run_with_the_id(instance: DagsterInstance, monkeypatch, place) -> None:
    """When Dagster's row of a run is deleted, its name is free. So the output is first set aside, then removed."""
    instance.add_run(run := DagsterRun(job_name="job"))
    storage = Path(instance.storage_directory())
    folders = [log_of(instance, run.run_id), storage / run.run_id]
    folders[1].mkdir(parents=True)
    former = [folder / "former" for folder in folders]
    new = [folder / "new" for folder in folders]
    for file in former:
        file.write_text("former\n")
    owner, name = place
    real = getattr(owner, name)

    def write_first(*args: object, **options: object) -> None:
        for file in new:
            file.parent.mkdir(exist_ok=True)
            file.write_text("new\n")
        real(*args, **options)

    monkeypatch.setattr(owner, name, write_first)
    instance.delete_run(run.run_id)
    assert [file.exists() for file in (*former, *new)] == [False, False, True, True]
    assert not [path for folder in folders for path in folder.parent.glob(".deleted-*")]


def test_set_aside_values_are_removed_later(instance: DagsterInstance) -> None:
    """A deletion may stop after it set the values aside."""
    deleted = Path(instance.storage_directory()) / f".deleted-{uuid.uuid4()}"
    deleted.mkdir(parents=True)
    (deleted / "value").write_text("1")
    remove_orphaned_logs(instance)
    assert not deleted.exists()


@pytest.mark.parametrize("method", ["rename", "stat", "hardlink_to"])
def test_two_processes_may_remove_orphans_at_once(instance: DagsterInstance, monkeypatch, method) -> None:
    """A folder may disappear at any moment; the other folders are removed all the same."""
    deleted, gone = log_of(instance, str(uuid.uuid4())), log_of(instance, str(uuid.uuid4()))
    is_put_back = method == "hardlink_to"
    if is_put_back:
        instance.add_run(DagsterRun(job_name="job", run_id=deleted.name))
        deleted = deleted.rename(deleted.with_name(f".deleted-{deleted.name}"))
    real = getattr(Path, method)

    def remove_first(path: Path, *args: object, **options: object) -> object:
        if deleted.name in str(path) or (args and deleted.name in str(args[0])):
            shutil.rmtree(deleted, ignore_errors=True)
        return real(path, *args, **options)

    monkeypatch.setattr(Path, method, remove_first)
    remove_orphaned_logs(instance)
    assert not deleted.exists() and not gone.exists()
