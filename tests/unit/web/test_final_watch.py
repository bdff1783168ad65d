"""Waiting for the end of many artifacts and runs at once: prompt and without races."""

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
    """The ended keys, and the number of calls of `look`."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.looks = 0
        self.is_broken = False

    def look(self, keys: Collection[str]) -> Collection[str]:
        """Return the ended keys among `keys`."""
        self.looks += 1
        if self.is_broken:
            raise RuntimeError("nothing can be seen")
        return self.keys & {*keys}


@pytest.fixture
def ended() -> Ended:
    """Return an Ended without any ended key."""
    return Ended()


@pytest.fixture
def watch(ended: Ended) -> FinalWatch:
    """Return a watch that calls `look` every 10 ms."""
    return FinalWatch(ended.look, partial(time.sleep, 0.01))


def test_all_futures_of_a_key_are_done(watch: FinalWatch, ended: Ended) -> None:
    """Futures of other keys are not."""
    first, second, other = (watch.when_final(key) for key in ("a", "a", "b"))
    time.sleep(0.05)
    assert not first.done()
    ended.keys.add("a")
    first.result(1)
    second.result(1)
    assert not other.done()


def test_a_future_of_an_ended_key_is_done_at_once(watch: FinalWatch, ended: Ended) -> None:
    """The key may have ended before its first check."""
    ended.keys.add("a")
    assert watch.when_final("a").done()


def test_without_futures_nothing_is_checked(watch: FinalWatch, ended: Ended) -> None:
    """A cancelled future does not count."""
    future = watch.when_final("a")
    future.cancel()
    time.sleep(0.05)
    looks = ended.looks
    time.sleep(0.1)
    assert ended.looks == looks
    again: Future[None] = watch.when_final("a")
    ended.keys.add("a")
    again.result(1)


def test_an_error_of_the_check_ends_the_wait(watch: FinalWatch, ended: Ended) -> None:
    """Each waiting request then asks the backend and gets its error."""
    future = watch.when_final("a")
    ended.is_broken = True
    future.result(1)


def test_a_thousand_futures_need_one_thread(watch: FinalWatch, ended: Ended) -> None:
    """They must not have a thread each."""
    threads = threading.active_count()
    futures = [watch.when_final(f"{number}") for number in range(1000)]
    assert threading.active_count() < threads + 50
    ended.keys.update(str(number) for number in range(1000))
    for future in futures:
        future.result(5)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """Return an instance with files, as in a container."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def create(instance: DagsterInstance) -> DagsterRun:
    """Create a run without executing it."""

    @op
    def nothing() -> None:
        pass

    @job
    def simple() -> None:
        nothing()

    return instance.create_run_for_job(simple)


def test_final_and_deleted_runs_are_found(instance: DagsterInstance) -> None:
    """One query checks many runs."""
    records = Records(instance, None)  # type: ignore[arg-type]
    ended, deleted, other = (create(instance).run_id for _ in range(3))
    assert records.finished_among([ended, deleted, other]) == set()
    run = instance.get_run_by_id(ended)
    assert run is not None
    instance.report_run_canceled(run)
    instance.delete_run(deleted)
    assert records.finished_among([ended, deleted, other]) == {ended, deleted}
