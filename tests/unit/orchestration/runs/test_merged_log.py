"""The merged log: its lines, their order, and valid offsets."""

from datetime import datetime

import pytest
from dagster import DagsterInstance, Failure, OpExecutionContext, job, op

from bonseyes_dagster.orchestration.runs.merged_log import MergedLog


@pytest.fixture
def run_id(instance: DagsterInstance) -> str:
    """A run with a talkative step and a failing one."""

    @op
    def talk(context: OpExecutionContext) -> None:
        context.log.info("one\ntwo")

    @op
    def fail() -> None:
        raise Failure("No more.")

    @job
    def talking() -> None:
        talk()
        fail()

    return talking.execute_in_process(instance=instance, raise_on_error=False).run_id


def read(instance: DagsterInstance, run_id: str, offset: int = 0) -> str:
    """Return the log from an offset."""
    return b"".join(MergedLog(instance).read(run_id, offset=offset, is_final=None)).decode()


def test_lines_have_a_time_and_a_step(instance: DagsterInstance, run_id: str) -> None:
    """So does each line of a message with several lines."""
    lines = read(instance, run_id).splitlines()
    moments = [datetime.fromisoformat(line.split(" ")[0]) for line in lines]
    assert moments == sorted(moments)
    assert [line.split(" ", 1)[1] for line in lines if " talk: " in line][1:3] == ["talk: one", "talk: two"]
    assert any(line.endswith("fail: No more.") for line in lines)
    assert "Traceback" not in "".join(lines) and "Stack Trace" not in "".join(lines)


def test_offsets_count_bytes_of_the_whole_log(instance: DagsterInstance, run_id: str) -> None:
    """From each offset, the log is the end of the whole log."""
    whole = read(instance, run_id)
    for offset in (0, 1, 57, len(whole) - 1, len(whole), len(whole) + 10):
        assert read(instance, run_id, offset) == whole[offset:]


def test_following_ends_with_the_run(instance: DagsterInstance, run_id: str) -> None:
    """It yields b"" while there is nothing new, and the log is complete at the end."""
    answers = iter([False, False, True])
    pieces = list(MergedLog(instance).read(run_id, offset=0, is_final=lambda: next(answers)))
    assert pieces.count(b"") == 2
    assert b"".join(pieces).decode() == read(instance, run_id)
