"""KeptOpenSqliteStorage and Dagster's storage read and write the same files."""

import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun

from bonseyes_dagster.execution.storage import sqlite_storage
from bonseyes_dagster.execution.storage.sqlite_storage import KeptOpenSqliteStorage, with_kept_open_connections


def open_instance(home: Path, kind: str) -> DagsterInstance:
    """Open an instance with our storage or Dagster's, over the same folder."""
    config = {"base_dir": str(home / "storage")}
    custom = {"module": KeptOpenSqliteStorage.__module__, "class": KeptOpenSqliteStorage.__name__, "config": config}
    storage = {"custom": custom} if kind == "ours" else {"sqlite": config}
    return DagsterInstance.local_temp(str(home), overrides={"storage": storage, "telemetry": {"enabled": False}})


@pytest.fixture
def ours(tmp_path):
    """An instance with our storage."""
    with open_instance(tmp_path, "ours") as instance:
        yield instance


def add_run(instance) -> str:
    """Add a run with one event."""
    run = instance.add_run(DagsterRun(job_name="job"))
    report(instance, run.run_id)
    return run.run_id


def report(instance, run_id: str) -> None:
    """Write an event."""
    instance.report_engine_event("hello", job_name="job", run_id=run_id)


def test_dagsters_storage_reads_and_writes_our_files(ours, tmp_path):
    """Dagster accepts a file that was copied from the template, with its revision."""
    run_id = add_run(ours)
    with open_instance(tmp_path, "stock") as stock:
        assert len(stock.all_logs(run_id)) == 1
        report(stock, run_id)
        stock.upgrade()
    assert len(ours.all_logs(run_id)) == 2
    assert ours.get_run_by_id(run_id).job_name == "job"


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%41b", "a:b'c d"])
def test_files_are_in_the_home_for_any_folder_name(tmp_path, name):
    """For `a?b`, SQLAlchemy would open files in the folder `a`, which may belong to another project."""
    home = tmp_path / name
    home.mkdir()
    with open_instance(home, "ours") as instance:
        run_id = add_run(instance)
        assert instance.all_instigator_state() == []
    with open_instance(home, "ours") as instance:
        assert len(instance.all_logs(run_id)) == 1
    assert list(tmp_path.iterdir()) == [home]
    made = {str(file.relative_to(home / "storage")) for file in home.rglob("*.db")}
    assert made == {"history/runs.db", "history/runs/index.db", f"history/runs/{run_id}.db", "schedules/schedules.db"}


def test_several_threads_write_at_the_same_time(ours):
    """Each thread has a connection of the pool for itself."""
    run_ids = [add_run(ours) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda run_id=run_id: [report(ours, run_id) for _ in range(25)])
        for run_id in run_ids * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(ours.all_logs(run_id)) for run_id in run_ids] == [76, 76]


def test_forked_process_opens_its_own_connections(ours):
    """A SQLite connection must not be used across a fork."""
    run_id = add_run(ours)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            report(ours, run_id)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    report(ours, run_id)
    assert len(ours.all_logs(run_id)) == 3


def _make_run_file(home: str, run_id: str, barrier) -> None:
    with open_instance(Path(home), "ours") as instance:
        barrier.wait(30)
        report(instance, run_id)


def test_two_processes_may_create_a_runs_file_at_once(ours, tmp_path):
    """One process creates it, the other uses it, and no event is lost."""
    run = ours.add_run(DagsterRun(job_name="job"))
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_make_run_file, args=(str(tmp_path), run.run_id, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert len(ours.all_logs(run.run_id)) == 2


def test_open_files_are_limited(ours, monkeypatch):
    """A process that reads many runs must not keep a file open for each."""
    monkeypatch.setattr(sqlite_storage, "_MAX_OPEN", 4)
    for _ in range(8):
        add_run(ours)
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    files = {str(link.readlink()) for link in links}
    assert len({file for file in files if file.endswith(".db") and "/history/runs/" in file}) <= 4


def test_wiped_instance_is_written_again(ours, tmp_path):
    """`dagster run wipe` in another process removes files that this process has open."""
    run_id = add_run(ours)
    with open_instance(tmp_path, "stock") as stock:
        stock.wipe()
    report(ours, run_id)
    assert len(ours.all_logs(run_id)) == 1


def test_run_processes_do_not_wait_for_the_disk(ours, tmp_path):
    """Only run processes write with `synchronous=NORMAL`, for our storage and for Dagster's."""
    with open_instance(tmp_path, "stock") as stock:
        for instance in (ours, stock):
            reference = with_kept_open_connections(instance.get_ref())
            with DagsterInstance.from_ref(reference) as worker, worker.run_storage.connect() as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    with ours.run_storage.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
