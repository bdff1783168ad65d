"""Fork the child for the next artifact in advance, so that the artifact does not wait for the fork."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
from collections.abc import Collection
from typing import Any

from bonseyes_dagster.tool.artifacts.index import ArtifactRow
from bonseyes_dagster.tool.worker.child import ToolRuntime, become_child
from bonseyes_dagster.tool.worker.processes import flush_all

__all__ = ["Spare"]

_LARGEST_REPORT_BYTES = 1 << 16


class Spare:
    """A child process that the worker forks in advance; it waits in a pipe for the row of its artifact."""

    def __init__(self, runtime: ToolRuntime, inherited: Collection[int]) -> None:
        flush_all()
        parent_pid = os.getpid()
        orders, self._orders = os.pipe()
        self._report, report = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            become_child(
                runtime, orders, report, parent_pid, {*inherited, self._orders, self._report} - {orders, report}
            )
        os.close(orders)
        os.close(report)

    def is_alive(self) -> bool:
        """Tell whether the child still runs; reap it if it has ended."""
        try:
            done, _ = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return False
        return done == 0

    def start(self, row: ArtifactRow) -> None:
        """Let the child make the artifact of `row`."""
        with contextlib.suppress(BrokenPipeError), open(self._orders, "wb") as pipe:  # noqa: PTH123
            pipe.write(pickle.dumps(row))

    def report(self) -> dict[str, Any]:
        """Return the report that the child wrote before its end; empty if there is none."""
        os.set_blocking(self._report, False)
        try:
            report = json.loads(os.read(self._report, _LARGEST_REPORT_BYTES))
        except (BlockingIOError, ValueError):
            report = {}
        finally:
            os.close(self._report)
        return report if isinstance(report, dict) else {}

    def end(self) -> None:
        """End the child, which has no artifact yet."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._orders)
        os.close(self._report)
