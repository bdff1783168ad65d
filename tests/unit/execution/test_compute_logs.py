"""What is printed belongs to the step that prints it, while steps begin and end."""

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
    """Print, outside of the one step, which ends before that instruction of the search for it; tell whether it did."""
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
        print("said")
    finally:
        sys.settrace(before)
        ended = has_ended
        if not ended:
            end()
    return ended


def test_a_lone_step_may_end_while_a_thread_prints(tmp_path: Path, capsys):
    """At any moment: what is printed is the step's or nobody's, and never an error."""
    manager = StepComputeLogManager(str(tmp_path))
    for moment in itertools.count():
        key = ["run", "compute_logs", str(moment)]
        ended = print_while_it_ends(manager, key, moment)
        assert manager.get_log_data(key).stdout.decode() + capsys.readouterr().out == "said\n"
        if not ended:
            break
    assert moment > 10


# What a deleted run's steps printed


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance as a project has it."""
    write_instance(tmp_path, launcher="stock")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def log_of(instance: DagsterInstance, run_id: str, *, idle_s: float = 2 * _IDLE_S) -> Path:
    """Write the log of a step of a run, which nothing has touched for so long; return the run's folder."""
    folder = Path(instance.root_directory) / "compute_logs" / run_id
    file = folder / "compute_logs" / "step.out"
    file.parent.mkdir(parents=True)
    file.write_text("said\n")
    moment = time.time() - idle_s
    for path in (file, file.parent, folder):
        os.utime(path, (moment, moment))
    return folder


def test_logs_go_with_a_run_through_its_storage(instance: DagsterInstance) -> None:
    """Whoever deletes it; those of others stay."""
    instance.add_run(run := DagsterRun(job_name="job"))
    mine, other = log_of(instance, run.run_id), log_of(instance, str(uuid.uuid4()))
    instance.delete_run(run.run_id)
    assert (mine.exists(), other.exists()) == (False, True)


def test_only_idle_logs_of_runs_that_are_gone_are_orphans(instance: DagsterInstance) -> None:
    """Those of a run that is there, that changed just now, or of a sensor's tick are left alone."""
    instance.add_run(run := DagsterRun(job_name="job"))
    kept = [log_of(instance, run.run_id), log_of(instance, str(uuid.uuid4()), idle_s=60), log_of(instance, "inbox")]
    gone = log_of(instance, str(uuid.uuid4()))
    # Broke off between setting aside and removing.
    half_gone = log_of(instance, str(uuid.uuid4()))
    half_gone.rename(half_gone.with_name(f".deleted-{half_gone.name}"))
    remove_orphaned_logs(instance)
    assert {path.name for path in gone.parent.iterdir()} == {path.name for path in kept}


def test_nothing_is_an_orphan_while_runs_cannot_be_read(instance: DagsterInstance, monkeypatch) -> None:
    """An error is no answer."""
    folder = log_of(instance, str(uuid.uuid4()))

    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("The database is away."))

    monkeypatch.setattr(instance, "get_run_ids", fail)
    with pytest.raises(OperationalError):
        remove_orphaned_logs(instance)
    assert (folder / "compute_logs" / "step.out").read_text() == "said\n"


def test_logs_of_a_run_that_comes_meanwhile_are_put_back(instance: DagsterInstance) -> None:
    """A new run of a name has the id of the deleted one; what it has printed meanwhile stays its own."""
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
    assert logs == {"step.out": "said\n", "other.out": "new\n"}
    assert [path.name for path in folder.parent.iterdir()] == [run_id]


@pytest.mark.parametrize("place", [(SqliteEventLogStorage, "delete_events"), (shutil, "rmtree")])
def test_what_a_new_run_of_the_id_writes_meanwhile_stays(instance: DagsterInstance, monkeypatch, place) -> None:
    """Once a run's record is gone, its name is free: what its steps left is set aside first, and removed then."""
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


def test_values_that_were_only_set_aside_are_removed_later(instance: DagsterInstance) -> None:
    """A deletion may break off between the two."""
    doomed = Path(instance.storage_directory()) / f".deleted-{uuid.uuid4()}"
    doomed.mkdir(parents=True)
    (doomed / "value").write_text("1")
    remove_orphaned_logs(instance)
    assert not doomed.exists()


@pytest.mark.parametrize("method", ["rename", "stat", "hardlink_to"])
def test_two_that_tidy_one_folder_do_not_disturb_each_other(instance: DagsterInstance, monkeypatch, method) -> None:
    """A folder that is looked at may go at any moment; the others are removed all the same."""
    doomed, gone = log_of(instance, str(uuid.uuid4())), log_of(instance, str(uuid.uuid4()))
    is_put_back = method == "hardlink_to"
    if is_put_back:
        instance.add_run(DagsterRun(job_name="job", run_id=doomed.name))
        doomed = doomed.rename(doomed.with_name(f".deleted-{doomed.name}"))
    real = getattr(Path, method)

    def remove_first(path: Path, *args: object, **options: object) -> object:
        if doomed.name in str(path) or (args and doomed.name in str(args[0])):
            shutil.rmtree(doomed, ignore_errors=True)
        return real(path, *args, **options)

    monkeypatch.setattr(Path, method, remove_first)
    remove_orphaned_logs(instance)
    assert not doomed.exists() and not gone.exists()
