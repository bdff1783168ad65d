"""One supervised service: it is started, checked, restarted after a crash, and ended."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bonseyes_dagster.backoff import Backoff
from bonseyes_dagster.embedded.child import Child
from bonseyes_dagster.embedded.fork_server import ForkServer
from bonseyes_dagster.embedded.health import BrokenError, Check, NotHealthyError
from bonseyes_dagster.embedded.logs import RotatingLog, tail
from bonseyes_dagster.embedded.services import Service
from bonseyes_dagster.project.state import ServiceState, State

__all__ = ["Unit"]

START_POLL_S = 0.1
POLL_S = 5.0
FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 30.0
# A check of a broken service is cheap: the service only looks whether its files have changed.
BROKEN_POLL_S = 0.5
# A start with wrong settings fails fast, and somebody may correct them at any time.
LAST_BROKEN_BACKOFF_S = 4.0
_LAST_LINES = 20
# After this time without a crash, the back-off starts anew.
STABLE_S = 20.0


class Unit:
    """Runs one service until it is cancelled.

    `on_change` is called after each change of state. `is_healthy` tells whether another service is healthy.
    `fork_server` returns the fork server while there is one.
    """

    def __init__(
        self,
        service: Service,
        *,
        folder: Path,
        log: RotatingLog,
        url: str | None,
        on_change: Callable[[], None],
        is_healthy: Callable[[str], bool],
        fork_server: Callable[[], ForkServer | None],
    ) -> None:
        self._service = service
        self._folder = folder
        self._log = log
        self._on_change = on_change
        self._is_healthy = is_healthy
        self._fork_server = fork_server
        self._child: Child | None = None
        self._ended: asyncio.Future[int] | None = None
        self._backoff = Backoff(FIRST_BACKOFF_S, LAST_BACKOFF_S)
        self.service_state = ServiceState(name=service.name, kind=service.kind, url=url)

    @property
    def pid(self) -> int | None:
        """The pid of the service's process; None without a process."""
        return self._child.pid if self._child is not None else None

    async def run(self) -> None:
        """Keep the service running until cancelled; the process then goes on until `end`."""
        while True:
            begun_s = time.monotonic()
            status = await self._run_once()
            if time.monotonic() - begun_s > STABLE_S:
                self._backoff.reset()
            pause_s = self._backoff.take(LAST_BROKEN_BACKOFF_S if status == os.EX_CONFIG else LAST_BACKOFF_S)
            self._record_end(status, pause_s)
            await asyncio.sleep(pause_s)

    def _record_end(self, status: int, pause_s: float) -> None:
        reason, state = f"ended with {_describe(status)}", "restarting"
        if status == os.EX_CONFIG:
            # Its last line of output names the wrong file.
            lines = tail(self._log.file, _LAST_LINES)
            reason, state = lines[-1].decode(errors="replace") if lines else reason, "broken"
        self._log_event(f"ended with {_describe(status)}; starts again in {pause_s:g} s")
        self._change(state=state, pid=None, reason=reason, restarts=self.service_state.restarts + 1)

    async def end(self, patience_s: float) -> None:
        """Send SIGTERM to the process, which ends its children; return when it has ended, or after `patience_s`."""
        if self._child is None or self._ended is None:
            return
        self._child.terminate()
        await asyncio.wait({self._ended}, timeout=patience_s)

    def mark_stopped(self) -> None:
        """Set the state `stopped`, and close the log."""
        self._child = None
        self._change(state="stopped", pid=None, reason=None)
        self._log.close()

    async def _run_once(self) -> int:
        self._ended = asyncio.get_running_loop().create_future()
        self._child = await self._start(self._ended)
        # A broken service stays broken until it is healthy: its next start may fail in the same way.
        is_broken = self.service_state.state == "broken"
        self._change(state="broken" if is_broken else "starting", pid=self._child.pid)
        watching = asyncio.create_task(self._watch(self._service.check(), time.monotonic()))
        try:
            status = await asyncio.shield(self._ended)
        finally:
            watching.cancel()
            await asyncio.wait({watching})
        self._child = None
        return status

    async def _start(self, ended: asyncio.Future[int]) -> Child:
        return await Child.start(
            self._service.argv,
            cwd=self._folder,
            environ=self._service.environ,
            log=self._log,
            on_exit=ended.set_result,
            fork_server=self._fork_server() if self._service.is_forked else None,
        )

    async def _watch(self, check: Check, begun_s: float) -> None:
        poll_s = START_POLL_S
        while self._service.needs and not self._is_healthy(self._service.needs):
            await asyncio.sleep(poll_s)
        while True:
            try:
                await check()
            except NotHealthyError as error:
                if self.service_state.state == "healthy":
                    self._log_event(f"not healthy: {error}")
                poll_s = BROKEN_POLL_S if isinstance(error, BrokenError) else poll_s
                state = self._state_after(error)
                keeps_reason = state == "broken" and not isinstance(error, BrokenError)
                self._change(state=state, reason=self.service_state.reason if keeps_reason else str(error))
            else:
                if self.service_state.state == "starting":
                    self._change(seconds=round(time.monotonic() - begun_s, 2))
                self._change(state="healthy", reason=None)
                poll_s = POLL_S
            await asyncio.sleep(poll_s)

    def _state_after(self, error: NotHealthyError) -> State:
        if isinstance(error, BrokenError):
            return "broken"
        if self.service_state.state in ("starting", "broken"):
            return self.service_state.state
        return "unhealthy"

    def _change(self, **changes: object) -> None:
        service_state = replace(self.service_state, **changes)  # type: ignore[arg-type]
        if service_state != self.service_state:
            self.service_state = service_state
            self._on_change()

    def _log_event(self, text: str) -> None:
        self._log.write(f"--- {self.service_state.name} {text}\n".encode())


def _describe(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
