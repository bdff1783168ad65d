"""A process without a free thread for a moment holds connections again once it has one."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from bonseyes_dagster.web.final_watch import FinalWatch
from bonseyes_dagster.web.holding import Holder


def followed(holder: Holder) -> bytes:
    """Let the holder send one piece; return all bytes that the client gets."""
    server, client = socket.socketpair()
    with client:
        client.settimeout(5)
        holder.follow(server.detach(), iter([b"line"]))
        return client.recv(100) + client.recv(100)


def open_descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let no thread start until the test undoes the returned patch."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    return monkeypatch


def test_the_holder_starts_after_a_thread_failed_to_start(no_threads: pytest.MonkeyPatch) -> None:
    """Else every later long poll of the process would hang and leak a descriptor."""
    holder = Holder()
    before = open_descriptors()
    with pytest.raises(RuntimeError, match="new thread"):
        followed(holder)
    assert open_descriptors() == before
    no_threads.undo()
    assert followed(holder) == b"line"


def test_the_watch_starts_after_a_thread_failed_to_start(no_threads: pytest.MonkeyPatch) -> None:
    """Else every later long poll of the process would wait for its whole timeout."""
    over: set[str] = set()
    pause = threading.Event()

    def wait() -> None:
        pause.wait(0.01)

    watch = FinalWatch(lambda keys: over & {*keys}, wait)
    with pytest.raises(RuntimeError, match="new thread"):
        watch.when_final("a")
    no_threads.undo()
    future = watch.when_final("a")
    over.add("a")
    future.result(5)
