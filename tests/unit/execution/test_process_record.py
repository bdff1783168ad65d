"""A record tells whether a run's process lives, and keeps a second one out."""

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
    """A process that holds the record of `run`, or has tried; yields it and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_a_record_lives_as_long_as_its_process(tmp_path):
    """The kernel lets go of the lock, whatever ends the process."""
    with holder(tmp_path) as (process, said):
        assert said == "True"
        record, is_alive = read_record(tmp_path, "run")
        assert (record.pid, is_alive) == (process.pid, True)
        assert record.names_a_process()
        remove_record(tmp_path, "run")  # not of a process that lives
        assert list(recorded_run_ids(tmp_path)) == ["run"]
        process.kill()
        process.wait()
        assert read_record(tmp_path, "run") == (record, False)
        assert not record.names_a_process()
        remove_record(tmp_path, "run")
        assert read_record(tmp_path, "run") == (None, False)


def test_a_second_process_does_not_get_the_run(tmp_path):
    """Of two processes for one run the second ends."""
    with holder(tmp_path) as (first, _), holder(tmp_path) as (_, said):
        assert said == "False"
        assert read_record(tmp_path, "run")[0].pid == first.pid


def test_looking_at_ones_own_record_does_not_let_it_go(tmp_path):
    """Closing a locked file would drop the lock: a process never opens what it holds."""
    assert RecordLock(tmp_path, "mine").acquire()
    assert read_record(tmp_path, "mine")[1]
    code = (
        "import sys; from pathlib import Path; from bonseyes_dagster.execution.runs.process_record import read_record;"
        "print(read_record(Path(sys.argv[1]), 'mine')[1])"
    )
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "True"


@pytest.mark.parametrize("change", [{"start_time": 1}, {"boot": "another"}, {"pid_namespace": "pid:[1]"}])
def test_a_later_process_of_the_same_pid_is_not_signalled(change):
    """A pid alone may be somebody else's by now, after a reboot above all."""
    mine = ProcessRecord.of_this_process("run")
    assert mine.names_a_process()
    other = ProcessRecord(**{field: getattr(mine, field) for field in mine.__slots__} | change)
    assert not other.names_a_process()
    assert not other.send(signal.SIGTERM)


def test_a_half_written_record_is_read_as_none(tmp_path):
    """A process may die between locking and writing."""
    (tmp_path / "run.json").write_text('{"run_id"')
    assert read_record(tmp_path, "run") == (None, False)
    remove_record(tmp_path, "run")
    assert list(recorded_run_ids(tmp_path)) == []
