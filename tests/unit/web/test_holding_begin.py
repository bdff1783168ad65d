"""A process that had no thread left for a moment holds connections again when it has some."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from bonseyes_dagster.web.final_watch import FinalWatch
from bonseyes_dagster.web.holding import Holder


def followed(holder: Holder) -> bytes:
    """Let the holder send one piece; return what the client gets until the end."""
    server, client = socket.socketpair()
    with client:
        client.settimeout(5)
        holder.follow(server.detach(), iter([b"line"]))
        return client.recv(100) + client.recv(100)


def open_descriptors() -> int:
    """Count those of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No thread can start until this is undone."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    return monkeypatch


def test_holder_begins_again_after_no_thread_was_left(no_threads: pytest.MonkeyPatch) -> None:
    """Else every later long poll of the process hangs, and each one keeps a descriptor."""
    holder = Holder()
    before = open_descriptors()
    with pytest.raises(RuntimeError, match="new thread"):
        followed(holder)
    assert open_descriptors() == before
    no_threads.undo()
    assert followed(holder) == b"line"


def test_watch_begins_again_after_no_thread_was_left(no_threads: pytest.MonkeyPatch) -> None:
    """Else no later long poll of the process is answered before its time is over."""
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
