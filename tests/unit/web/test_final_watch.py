"""Waiting for the end of artifacts and runs: many at once, prompt, and free of races."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, job, op

from bonseyes_dagster.orchestration.runs.records import Records
from bonseyes_dagster.web.final_watch import FinalWatch


class Ended:
    """Keys that are over, and how often somebody looked."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.looks = 0
        self.is_broken = False

    def look(self, keys: Collection[str]) -> Collection[str]:
        """Return those that are over."""
        self.looks += 1
        if self.is_broken:
            raise RuntimeError("nothing can be seen")
        return self.keys & {*keys}


@pytest.fixture
def ended() -> Ended:
    """Nothing is over yet."""
    return Ended()


@pytest.fixture
def watch(ended: Ended) -> FinalWatch:
    """A watch that looks every 10 ms."""
    return FinalWatch(ended.look, partial(time.sleep, 0.01))


def test_all_who_wait_for_one_are_told(watch: FinalWatch, ended: Ended) -> None:
    """And nobody who waits for another one."""
    first, second, other = (watch.when_final(key) for key in ("a", "a", "b"))
    time.sleep(0.05)
    assert not first.done()
    ended.keys.add("a")
    first.result(1)
    second.result(1)
    assert not other.done()


def test_who_comes_after_the_end_is_told_at_once(watch: FinalWatch, ended: Ended) -> None:
    """It may have ended before the first look."""
    ended.keys.add("a")
    assert watch.when_final("a").done()


def test_nobody_looks_once_nobody_waits(watch: FinalWatch, ended: Ended) -> None:
    """A future that is cancelled waits no more."""
    future = watch.when_final("a")
    future.cancel()
    time.sleep(0.05)
    looks = ended.looks
    time.sleep(0.1)
    assert ended.looks == looks
    again: Future[None] = watch.when_final("a")
    ended.keys.add("a")
    again.result(1)


def test_who_waits_asks_again_when_nothing_can_be_seen(watch: FinalWatch, ended: Ended) -> None:
    """The question itself then gets the error for an answer."""
    future = watch.when_final("a")
    ended.is_broken = True
    future.result(1)


def test_a_thousand_wait_at_the_cost_of_one(watch: FinalWatch, ended: Ended) -> None:
    """No thread each."""
    threads = threading.active_count()
    futures = [watch.when_final(f"{number}") for number in range(1000)]
    assert threading.active_count() < threads + 50
    ended.keys.update(str(number) for number in range(1000))
    for future in futures:
        future.result(5)


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


def test_runs_that_are_final_or_gone_are_found(instance: DagsterInstance) -> None:
    """Many with one query."""
    records = Records(instance, None)  # type: ignore[arg-type]
    ended, deleted, other = (create(instance).run_id for _ in range(3))
    assert records.finished_among([ended, deleted, other]) == set()
    run = instance.get_run_by_id(ended)
    assert run is not None
    instance.report_run_canceled(run)
    instance.delete_run(deleted)
    assert records.finished_among([ended, deleted, other]) == {ended, deleted}
