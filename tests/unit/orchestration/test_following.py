"""A step follows its artifact: an interruption while the request is in flight, and an endless log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from dagster import DagsterExecutionInterruptedError

from bonseyes_dagster.execution.threads.interruption import interruption_scope
from bonseyes_dagster.model import Progress
from bonseyes_dagster.orchestration.steps.following import COPY_LIMIT_BYTES, follow


class SlowRequest:
    """A request that creates its artifact late. An earlier cancellation finds no artifact."""

    artifact = SimpleNamespace(name="slow", url="/learn/artifacts/slow")

    def __init__(self, interruption: threading.Event) -> None:
        self.stop = threading.Event()
        self._interruption = interruption
        self.phase = ""

    def send(self) -> None:
        """Interrupt the step, then create the artifact."""
        self._interruption.set()
        time.sleep(0.5)
        self.phase = "queued"

    def cancel(self) -> None:
        """Cancel the artifact if it exists."""
        self.stop.set()
        if self.phase:
            self.phase = "cancelled"


def test_artifact_created_after_the_interruption_is_cancelled() -> None:
    """The process may end with the step, so the step waits for the answer of the tool."""
    context: Any = SimpleNamespace(log=logging.getLogger("following"))
    with interruption_scope() as interruption:
        request: Any = SlowRequest(interruption)
        with pytest.raises(DagsterExecutionInterruptedError):
            follow(context, request)
    assert request.phase == "cancelled"


class ChattyArtifact:
    """An artifact with an endless log."""

    name, url = "chatty", "/learn/artifacts/chatty"

    def status(self, *, wait_s: float) -> SimpleNamespace:
        """Return a completed status."""
        return SimpleNamespace(started="now", is_final=True, phase="completed", position=None, progress=Progress())

    def iter_log(self, offset: int, *, patience_s: float) -> Iterator[bytes]:
        """Yield the same lines for ever."""
        while True:
            yield b"a line\n" * 1000


def test_copy_of_a_log_ends_after_16_mib(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """An endless log must not fill the disk of the run. The copy says where the log itself is."""
    context: Any = SimpleNamespace(log=logging.getLogger("following"))
    caplog.set_level(logging.INFO)
    request: Any = SimpleNamespace(artifact=ChattyArtifact(), stop=threading.Event(), send=lambda: None)
    with interruption_scope():
        follow(context, request)
    printed = capsys.readouterr().out
    assert COPY_LIMIT_BYTES < len(printed) < COPY_LIMIT_BYTES + 8000
    notice = "[...] This copy of the log ends here; the log itself is /learn/artifacts/chatty/log"
    assert printed.splitlines()[-1] == notice
    assert notice in caplog.messages[-2]
