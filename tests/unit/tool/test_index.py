"""The index decides races, keeps the order of the queue and guards final phases."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bonseyes_dagster.errors import NotFoundError, QueueFullError
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index, TakenError


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Return an empty index."""
    made = Index(tmp_path / "index.sqlite")
    made.make()
    return made


def queued_row(name: str, **values: object) -> ArtifactRow:
    """Return a row of an artifact that waits in the queue."""
    base = ArtifactRow(
        id=f"id-{name}", name=name, created="now", tool="t", version="v", parameters={"a": 1}, files={}, inputs={}
    )
    return replace(base, **values)  # type: ignore[arg-type]


def add(index: Index, *names: str) -> None:
    """Insert queued artifacts with these names."""
    for name in names:
        index.insert(queued_row(name), queue_limit=100)


def test_inserted_row_is_read_back(index: Index) -> None:
    """All columns come back unchanged."""
    made = queued_row("a", files={"f": {"size": 1}}, reuse=True, progress={"done": 1})
    index.insert(made, queue_limit=1)
    assert replace(index.get("a"), seq=0) == made


def test_second_row_with_a_name_or_key_is_refused(index: Index) -> None:
    """A retry finds the first artifact by its key."""
    index.insert(queued_row("a", idempotency_key="k"), queue_limit=9)
    with pytest.raises(TakenError):
        index.insert(queued_row("a", id="other"), queue_limit=9)
    with pytest.raises(TakenError):
        index.insert(queued_row("b", idempotency_key="k"), queue_limit=9)
    found = index.by_key("k")
    assert found is not None and found.name == "a"


def test_insert_beyond_the_queue_limit_is_refused(index: Index) -> None:
    """Only queued artifacts count, not completed ones."""
    add(index, "a")
    with pytest.raises(QueueFullError):
        index.insert(queued_row("b"), queue_limit=1)
    index.insert(queued_row("c", phase="completed"), queue_limit=1)
    index.claim()
    index.insert(queued_row("b"), queue_limit=1)


def test_claims_follow_the_order_of_creation(index: Index) -> None:
    """Positions move up, and an empty queue returns None."""
    add(index, "a", "b", "c")
    assert index.position(index.get("c").seq) == 3
    first, second = index.claim(), index.claim()
    assert first is not None and second is not None
    assert (first.name, second.name, first.phase) == ("a", "b", "running")
    assert index.position(index.get("c").seq) == 1
    index.claim()
    assert index.claim() is None


def test_numbers_are_never_reused(index: Index) -> None:
    """A new artifact comes after all earlier ones, also if the last one was deleted."""
    add(index, "a", "b")
    seq = index.get("b").seq
    index.hide("b")
    add(index, "b")
    assert index.get("b").seq > seq


def test_final_phase_cannot_be_changed(index: Index) -> None:
    """Neither the methods of the index nor plain SQL can change it."""
    add(index, "a")
    index.claim()
    index.finish("id-a", "completed", size=1, digest="d", reason=None)
    index.finish("id-a", "failed", reason="too late")
    index.cancel("a")
    assert (index.get("a").phase, index.get("a").size) == ("completed", 1)
    connection = sqlite3.connect(index._path)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE artifacts SET phase = 'failed'")
    connection.close()


def test_cancel_ends_queued_and_asks_running_artifacts(index: Index) -> None:
    """The worker ends a running one later."""
    add(index, "a", "b")
    index.claim()
    index.cancel("a")
    index.cancel("b")
    assert (index.get("a").phase, index.is_cancelling("id-a")) == ("running", True)
    assert (index.get("b").phase, index.get("b").finished is not None) == ("cancelled", True)
    with pytest.raises(NotFoundError):
        index.cancel("c")


def test_hidden_artifact_disappears_for_readers_at_once(index: Index) -> None:
    """The row of a running one stays, without a name, until it ends."""
    add(index, "a", "b")
    index.claim()
    assert index.hide("b") == ("id-b", False, 3)
    assert index.hide("a") == ("id-a", True, 4)
    assert index.names(limit=None, after=None) == []
    assert index.is_cancelling("id-a") and index.is_deleted("id-a")
    with pytest.raises(NotFoundError):
        index.get("a")
    add(index, "a2")
    index.insert(queued_row("a", id="new"), queue_limit=9)
    index.finish("id-a", "cancelled", reason="r")
    assert index.deleted_ids() == ["id-a"]
    index.remove("id-a")
    assert index.deleted_ids() == []
    assert index.names(limit=None, after=None) == ["a2", "a"]


def test_pages_follow_the_order_of_creation(index: Index) -> None:
    """Positions in a page are those of the whole queue."""
    add(index, *"abcde")
    index.claim()
    assert index.names(limit=2, after="b") == ["c", "d"]
    assert [(row["name"], row["position"]) for row in index.status_page(limit=3, after="a")] == [
        ("b", 1),
        ("c", 2),
        ("d", 3),
    ]
    assert [row["position"] for row in index.status_page(limit=None, after="c")] == [3, 4]
    with pytest.raises(NotFoundError):
        index.names(limit=1, after="z")


def test_one_of_many_threads_gets_a_name(index: Index) -> None:
    """All others get TakenError."""
    results: list[str] = []

    def insert(number: int) -> None:
        try:
            index.insert(queued_row("a", id=str(number)), queue_limit=99)
            results.append("won")
        except TakenError:
            results.append("lost")

    threads = [threading.Thread(target=insert, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["lost"] * 15 + ["won"]


def test_forked_process_has_its_own_connection(index: Index) -> None:
    """A child reads and writes without using the connection of its parent."""
    add(index, "a")
    pid = os.fork()
    if pid == 0:
        try:
            add(index, "b")
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert index.names(limit=None, after=None) == ["a", "b"]


def test_list_of_ten_thousand_rows_is_quick(index: Index) -> None:
    """Lists are part of most requests."""
    with index._writing() as connection:
        connection.executemany(
            "INSERT INTO artifacts (id, name, phase, created, tool, version, parameters, files, inputs)"
            " VALUES (?, ?, 'completed', 'now', 't', 'v', '{}', '{}', '{}')",
            [(f"id{number}", f"n{number}") for number in range(10_000)],
        )
    start = time.perf_counter()
    assert len(index.names(limit=None, after=None)) == 10_000
    assert len(index.status_page(limit=100, after="n5000")) == 100
    assert time.perf_counter() - start < 0.1 * 5  # generous: other tests share the machine


def test_index_of_an_earlier_version_gets_the_missing_columns(tmp_path: Path) -> None:
    """Its rows are kept, and several processes may open it at the same time."""
    path = tmp_path / "index.sqlite"
    index = Index(path)
    index.make()
    index.insert(queued_row("old", phase="completed", fingerprint="f"), queue_limit=9)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE artifacts DROP COLUMN code_changed")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Index(path).make(), range(8)))
    reopened = Index(path)
    assert not reopened.get("old").code_changed
    found = reopened.reusable("f")
    assert found is not None and found.name == "old"


def test_artifact_of_changed_code_is_not_re_used(index: Index) -> None:
    """An older artifact of the right code is found instead."""
    for name, code_changed in (("true", False), ("poisoned", True)):
        index.insert(queued_row(name, phase="running", fingerprint="f"), queue_limit=9)
        index.finish(f"id-{name}", "completed", code_changed=code_changed)
    assert index.get("poisoned").code_changed
    found = index.reusable("f")
    assert found is not None and found.name == "true"
