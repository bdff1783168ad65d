"""Waiting for runs to end: prompt, for many at once, and cheap."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, job, op

from bonseyes_dagster.pipeline.waiting import FinishWatch


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with files, as in a container."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def create(instance: DagsterInstance) -> DagsterRun:
    """Create a run that nobody executes."""

    @op
    def nothing() -> None:
        pass

    @job
    def simple() -> None:
        nothing()

    return instance.create_run_for_job(simple)


def test_wakes_when_the_run_ends(instance: DagsterInstance) -> None:
    """All who wait for it, and soon; those who wait for another run go on."""
    ended, other = create(instance), create(instance)
    watch = FinishWatch(instance)
    woken: dict[str, float] = {}

    def wait(name: str, run: DagsterRun, timeout_s: float) -> None:
        watch.wait(run.run_id, timeout_s)
        woken[name] = time.monotonic()

    waits = [("a", ended, 30.0), ("b", ended, 30.0), ("c", other, 3.0)]
    threads = [threading.Thread(target=wait, args=each) for each in waits]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert not woken
    instance.report_run_canceled(ended)
    canceled = time.monotonic()
    for thread in threads:
        thread.join(40)
    assert max(woken["a"], woken["b"]) - canceled < 1.5
    assert woken["c"] > max(woken["a"], woken["b"])


def test_ends_by_its_timeout(instance: DagsterInstance) -> None:
    """And leaves nothing behind that would go on asking."""
    watch = FinishWatch(instance)
    started = time.monotonic()
    watch.wait(create(instance).run_id, 0.2)
    assert 0.2 <= time.monotonic() - started < 2
    deadline = time.monotonic() + 5
    while any(thread.name == "finished runs" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_final_run_is_seen_at_once(instance: DagsterInstance) -> None:
    """A run that ended before anybody waited."""
    run = create(instance)
    instance.report_run_canceled(run)
    started = time.monotonic()
    FinishWatch(instance).wait(run.run_id, 30)
    assert time.monotonic() - started < 2
