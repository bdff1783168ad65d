"""A step that is interrupted while its order is on its way to the tool."""

from __future__ import annotations

import logging
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from dagster import DagsterExecutionInterruptedError

from bonseyes_dagster.orchestration.following import follow
from bonseyes_dagster.orchestration.interruption import interruption_scope


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
