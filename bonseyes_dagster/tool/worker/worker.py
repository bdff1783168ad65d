"""The worker of a container, a uWSGI mule: it loads the tool's code once, then makes one artifact after the other."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bonseyes_dagster.code_errors import describe_code_error
from bonseyes_dagster.description import ToolFolder
from bonseyes_dagster.model import ToolDescription
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.prctl import adopt_orphans
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index, IndexDamagedError
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.artifacts.rebuild import ensure_index
from bonseyes_dagster.tool.artifacts.row_copies import RowDamagedError
from bonseyes_dagster.tool.code.fingerprint import fingerprint
from bonseyes_dagster.tool.code.loading import load_function
from bonseyes_dagster.tool.code.modules import UncoveredModules
from bonseyes_dagster.tool.code.watch import CodeWatch
from bonseyes_dagster.tool.worker.bell import Bell
from bonseyes_dagster.tool.worker.child import ToolRuntime
from bonseyes_dagster.tool.worker.processes import SERVER_VARIABLE
from bonseyes_dagster.tool.worker.recovery import finish_deletions, recover, sweep
from bonseyes_dagster.tool.worker.runner import Runner
from bonseyes_dagster.tool.worker.signals import Wakeups
from bonseyes_dagster.tool.worker.state import read_state, worker_lock, write_state

__all__ = ["Worker"]

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 5.0
# Short, because a person who repairs the code waits for the reload.
_LOOK_AT_CODE_EVERY_S = 0.5
_PAUSE_AFTER_ERROR_S = 1.0
_SWEEP_EVERY_S = 900.0
# If loading the code ends the worker so often, for example by a crash, the children load it instead.
_MOST_TRIES = 3


class Worker:
    """Takes artifacts from the queue until a signal stops it."""

    def __init__(
        self,
        tool: ToolFolder,
        description: ToolDescription,
        volume: Volume,
        settings: Settings,
        code: CodeWatch,
        reload_server: Callable[[], None] | None = None,
    ) -> None:
        volume.make()
        self._tool = tool
        self._description = description
        self._volume = volume
        self._settings = settings
        self._code = code
        self._reload_server = reload_server
        self._is_loaded = True
        self._index = Index(volume.index)
        self._wakeups = Wakeups(Bell(volume.queue_bell))

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. Of several workers on a volume only one works; the others wait for its end."""
        self._wakeups.take_signals()
        adopt_orphans()
        with worker_lock(self._volume.worker_lock, lambda: self._wakeups.is_stopping) as lock:
            if lock is not None:
                self._work(lock)

    def _work(self, lock: int) -> None:
        # The state of the last worker is out of date: the code may have changed.
        write_state(self._volume, **{**read_state(self._volume), "state": "loading"})
        ensure_index(self._volume, self._description.name)
        recover(self._index, self._volume, self._description.name)
        Bell(self._volume.final_bell).ring()
        # Forked children close the lock anyway; its number may then belong to another file.
        inherited = _open_files() - {lock}
        function = self._load()
        self._is_loaded = function is not None or bool(self._tool.command)
        uncovered = UncoveredModules(self._tool)
        uncovered.find()
        runtime = ToolRuntime(self._tool, self._description, self._volume, self._settings, function, uncovered)
        # Exclude all objects so far from garbage collection: a collection in a child would copy their memory pages.
        gc.collect()
        gc.freeze()
        runner = Runner(runtime, self._index, self._wakeups, inherited, self._code)
        try:
            self._serve(runner)
        finally:
            runner.close()

    def _serve(self, runner: Runner) -> None:
        swept_s = time.monotonic()
        while not self._wakeups.is_stopping:
            if self._has_code_changed_after_fault():
                self._ask_for_reload()
                return
            try:
                runner.prepare()
                if self._take_one(runner):
                    continue
                finish_deletions(self._index, self._volume)
                if time.monotonic() - swept_s > _SWEEP_EVERY_S or self._volume.index_doubt.exists():
                    # Server processes can be killed in the middle of a creation or deletion, too.
                    sweep(self._index, self._volume, self._description.name)
                    swept_s = time.monotonic()
                self._wakeups.wait(_LOOK_EVERY_S if self._is_loaded else _LOOK_AT_CODE_EVERY_S)
            except IndexDamagedError:
                # The next worker rebuilds it before it does anything else.
                raise
            except Exception:  # errors of the disk or the system must not end the worker
                _log.exception("The worker goes on after an error.")
                self._wakeups.wait(_PAUSE_AFTER_ERROR_S)

    def _has_code_changed_after_fault(self) -> bool:
        """Tell whether the code could not be loaded and has changed since."""
        return not self._is_loaded and self._reload_server is not None and self._code.difference() is not None

    def _ask_for_reload(self) -> None:
        """Restart the whole server: its other processes need the version of the changed code."""
        assert self._reload_server is not None
        _log.info("The tool's code has changed; the server restarts to load it.")
        self._reload_server()
        while not self._wakeups.is_stopping:
            self._wakeups.wait(_LOOK_EVERY_S)

    def _take_one(self, runner: Runner) -> bool:
        row = self._index.claim()
        if row is None:
            return False
        try:
            self._check_row(row)
            runner.run(row)
        except IndexDamagedError:
            raise
        except Exception as error:  # an error of the container or the disk must not stop the queue
            _log.exception("The artifact %s failed by an error of the container.", row.name)
            if not self._wakeups.is_stopping:
                runner.fail(row, error)
        return True

    def _check_row(self, row: ArtifactRow) -> None:
        """Raise RowDamagedError if the row has changed since it was written: its fingerprint no longer fits."""
        if row.fingerprint is not None and row.version == self._description.version:
            found = fingerprint(self._description, row.parameters, row.files, row.inputs)
            if found != row.fingerprint:
                raise RowDamagedError("its row in the index is damaged.")

    def _load(self) -> Callable[..., Any] | None:
        """Import the tool's code; return None if the children must import it. Each child then fails with the reason."""
        self._code.begin_loading()
        if self._tool.command:
            write_state(self._volume, state="ready")
            return None
        version = self._description.version
        server = os.environ.get(SERVER_VARIABLE)
        before = read_state(self._volume)
        # Count anew after a restart of the server: the code may not have been the cause.
        is_same = (before.get("version"), before.get("server")) == (version, server)
        tries = before.get("tries", 0) if is_same else 0
        if tries >= _MOST_TRIES:
            _log.error("Loading the tool's code ended the worker %d times; the children load it instead.", tries)
            write_state(self._volume, **{**before, "state": "ready"})
            return None
        write_state(self._volume, state="loading", version=version, server=server, tries=tries + 1)
        try:
            function = load_function(self._tool)
        except (Exception, SystemExit) as error:
            reason = describe_code_error(error, [self._tool.folder, *self._tool.code])
            self._end_loading()
            _log.error("The tool's code cannot be loaded: %s", reason, exc_info=error)
            write_state(self._volume, state="broken", reason=reason, version=version)
            return None
        fault = self._end_loading()
        write_state(self._volume, state="ready", version=version, code_fault=fault)
        return function

    def _end_loading(self) -> str | None:
        fault = self._code.end_loading()
        if fault is not None:
            _log.warning("%s", fault)
        return fault


def _open_files() -> frozenset[int]:
    listed = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    # One descriptor belonged to the listing itself and is closed now.
    return frozenset(descriptor for descriptor in listed if _is_open(descriptor))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
