"""The one worker of a container, a uWSGI mule: loads the tool's code once, then makes artifact after artifact."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bonseyes_dagster.description import ToolFolder
from bonseyes_dagster.errors import BonseyesError, SettingsError
from bonseyes_dagster.model import ToolDescription
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.bell import Bell
from bonseyes_dagster.tool.child import Job
from bonseyes_dagster.tool.index import Index
from bonseyes_dagster.tool.layout import Volume
from bonseyes_dagster.tool.loading import load_function
from bonseyes_dagster.tool.processes import adopt_orphans
from bonseyes_dagster.tool.recovery import recover
from bonseyes_dagster.tool.runner import Runner
from bonseyes_dagster.tool.signals import Wakeups
from bonseyes_dagster.tool.state import read_state, worker_lock, write_state

__all__ = ["Worker"]

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 5.0
_PAUSE_AFTER_ERROR_S = 1.0


class Worker:
    """Takes artifacts from the queue until it is told to stop."""

    def __init__(self, tool: ToolFolder, description: ToolDescription, volume: Volume, settings: Settings) -> None:
        volume.make()
        self._tool = tool
        self._description = description
        self._volume = volume
        self._settings = settings
        self._index = Index(volume.index)
        self._index.make()
        self._wakeups = Wakeups(Bell(volume.queue_bell))

    def run(self) -> None:
        """Work until TERM or INT; of several workers on one volume only one works, the others wait for its end."""
        self._wakeups.take_signals()
        adopt_orphans()
        with worker_lock(self._volume.worker_lock, lambda: self._wakeups.is_stopping) as lock:
            if lock is not None:
                self._work()

    def _work(self) -> None:
        recover(self._index, self._volume)
        Bell(self._volume.final_bell).ring()
        # What is open now is the server's, and no business of the tools.
        runner = Runner(self._index, self._volume, self._wakeups, _open_files())
        function = self._load()
        runner.keep_helpers(child.pid for child in psutil.Process().children())
        # Objects made so far are not to be touched, and so not to be copied, by collections in children.
        gc.collect()
        gc.freeze()
        while not self._wakeups.is_stopping:
            try:
                if not self._take_one(runner, function):
                    self._wakeups.wait(_LOOK_EVERY_S)
            except Exception:  # one artifact's trouble, or the disk's, must not end the worker
                _log.exception("the worker goes on after an error")
                self._wakeups.wait(_PAUSE_AFTER_ERROR_S)

    def _take_one(self, runner: Runner, function: Callable[..., Any] | None) -> bool:
        record = self._index.claim()
        if record is None:
            return False
        job = Job(record, self._tool, self._description, self._volume, self._settings, function)
        try:
            runner.run(job)
        except Exception as error:  # a fault of ours, or of the disk; the queue goes on
            _log.exception("%s failed", record.name)
            if not self._wakeups.is_stopping:
                runner.abandon(job, error)
        return True

    def _load(self) -> Callable[..., Any] | None:
        """Import the tool's code; None when that is left to the children, each of which then fails with the reason."""
        if self._tool.command:
            write_state(self._volume, state="ready")
            return None
        version = self._description.version
        before = read_state(self._volume)
        if before.get("state") in ("loading", "crashed") and before.get("version") == version:
            _log.error("the tool's code ended the worker when it was loaded; it is left to the children")
            write_state(self._volume, state="crashed", version=version)
            return None
        write_state(self._volume, state="loading", version=version)
        try:
            function = load_function(self._tool)
        except (Exception, SystemExit) as error:
            reason = error.message if isinstance(error, SettingsError) else _reason(error)
            _log.error("the tool's code cannot be loaded: %s", reason, exc_info=error)
            write_state(self._volume, state="broken", reason=reason, version=version)
            return None
        write_state(self._volume, state="ready", version=version)
        return function


def _reason(error: BaseException) -> str:
    if isinstance(error, BonseyesError):
        return error.message
    return traceback.format_exception_only(error)[-1].strip()


def _open_files() -> frozenset[int]:
    return frozenset(int(path.name) for path in Path("/proc/self/fd").iterdir())
