"""A process record shows whether a run's process is alive, and keeps a second process out."""

import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from bonseyes_dagster.execution.runs.process_record import (
    ProcessRecord,
    RecordLock,
    read_record,
    recorded_run_ids,
    remove_record,
)

HOLD = """
import sys
from pathlib import Path
from bonseyes_dagster.execution.runs.process_record import RecordLock
print(RecordLock(Path(sys.argv[1]), "run").acquire(0.1), flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(folder):
    """Start a process that tries to lock the record of `run`; yield the process and its output."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_record_is_locked_while_its_process_is_alive(tmp_path):
    """The kernel releases the lock, whatever ends the process."""
    with holder(tmp_path) as (process, output):
        assert output == "True"
        record, is_alive = read_record(tmp_path, "run")
        assert (record.pid, is_alive) == (process.pid, True)
        assert record.names_a_process()
        remove_record(tmp_path, "run")  # does nothing while the process is alive
        assert list(recorded_run_ids(tmp_path)) == ["run"]
        process.kill()
        process.wait()
        assert read_record(tmp_path, "run") == (record, False)
        assert not record.names_a_process()
        remove_record(tmp_path, "run")
        assert read_record(tmp_path, "run") == (None, False)


def test_second_process_does_not_get_the_lock(tmp_path):
    """So a run never has two processes."""
    with holder(tmp_path) as (first, _), holder(tmp_path) as (_, output):
        assert output == "False"
        assert read_record(tmp_path, "run")[0].pid == first.pid


def test_reading_the_own_record_keeps_its_lock(tmp_path):
    """Closing any descriptor of a locked file would release the lock."""
    assert RecordLock(tmp_path, "mine").acquire()
    assert read_record(tmp_path, "mine")[1]
    code = (
        "import sys; from pathlib import Path; from bonseyes_dagster.execution.runs.process_record import read_record;"
        "print(read_record(Path(sys.argv[1]), 'mine')[1])"
    )
    output = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "True"


@pytest.mark.parametrize("change", [{"start_time": 1}, {"boot": "another"}, {"pid_namespace": "pid:[1]"}])
def test_later_process_of_the_same_pid_gets_no_signal(change):
    """Another process may have the pid by now, for example after a reboot."""
    mine = ProcessRecord.of_this_process("run")
    assert mine.names_a_process()
    other = ProcessRecord(**{field: getattr(mine, field) for field in mine.__slots__} | change)
    assert not other.names_a_process()
    assert not other.send(signal.SIGTERM)


def test_half_written_record_reads_as_none(tmp_path):
    """A process may die between the lock and the write."""
    (tmp_path / "run.json").write_text('{"run_id"')
    assert read_record(tmp_path, "run") == (None, False)
    remove_record(tmp_path, "run")
    assert list(recorded_run_ids(tmp_path)) == []
