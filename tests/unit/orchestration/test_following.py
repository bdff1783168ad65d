"""A step that follows its order: one that is interrupted while that is on its way, and one with an endless log."""

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


class SlowOrder:
    """An order whose tool takes its time before it has the artifact; a cancellation before that finds nothing."""

    artifact = SimpleNamespace(name="slow", url="/learn/artifacts/slow")

    def __init__(self, interruption: threading.Event) -> None:
        self.stop = threading.Event()
        self._interruption = interruption
        self.phase = ""

    def place(self) -> None:
        """Be interrupted meanwhile."""
        self._interruption.set()
        time.sleep(0.5)
        self.phase = "queued"

    def cancel(self) -> None:
        """Cancel what is there."""
        self.stop.set()
        if self.phase:
            self.phase = "cancelled"


def test_an_artifact_that_comes_after_the_interruption_is_cancelled() -> None:
    """The step ends, and with it the process may, only when the tool has answered."""
    context: Any = SimpleNamespace(log=logging.getLogger("following"))
    with interruption_scope() as interruption:
        order: Any = SlowOrder(interruption)
        with pytest.raises(DagsterExecutionInterruptedError):
            follow(context, order)
    assert order.phase == "cancelled"


class ChattyArtifact:
    """One whose log has no end."""

    name, url = "chatty", "/learn/artifacts/chatty"

    def status(self, *, wait_s: float) -> SimpleNamespace:
        """Be completed."""
        return SimpleNamespace(started="now", is_final=True, phase="completed", position=None, progress=Progress())

    def iter_log(self, offset: int, *, patience_s: float) -> Iterator[bytes]:
        """Say the same again and again."""
        while True:
            yield b"a line\n" * 1000


def test_the_copy_of_a_log_ends(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """The step's stdout has the first 16 MiB, and Dagster's events have no more; both say where the log is."""
    context: Any = SimpleNamespace(log=logging.getLogger("following"))
    caplog.set_level(logging.INFO)
    order: Any = SimpleNamespace(artifact=ChattyArtifact(), stop=threading.Event(), place=lambda: None)
    with interruption_scope():
        follow(context, order)
    said = capsys.readouterr().out
    assert COPY_LIMIT_BYTES < len(said) < COPY_LIMIT_BYTES + 8000
    notice = "[...] This copy of the log ends here; the log itself is /learn/artifacts/chatty/log"
    assert said.splitlines()[-1] == notice
    assert notice in caplog.messages[-2]
