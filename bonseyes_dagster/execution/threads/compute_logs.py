"""Gives each step its own stdout and stderr in Dagster's UI, while several steps share one process.

Dagster's LocalComputeLogManager redirects the descriptors of the whole process. That mixes the output of concurrent
steps. This manager gives each step its own `sys.stdout` and `sys.stderr` (step_streams.py). Each line is written at
once, so that the UI shows it live. The files, and how they are read, are the same as in the superclass.

In dagster.yaml:
    compute_logs:
      module: bonseyes_dagster.execution.threads.compute_logs
      class: StepComputeLogManager
      config: {base_dir: /path/of/compute_logs}

A subprocess of an op, or C code, writes to descriptors 1 and 2. The manager does not see this output; it goes to the
run process's own output. The output of `subprocess.run(..., stdout=sys.stdout)` goes to the step: `fileno` of the
router is the step's file.
"""

import contextlib
import logging
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self, TextIO

from dagster import DagsterInstance, Field, RunsFilter

from bonseyes_dagster.execution.threads.dagster_internals import (
    IO_TYPE_EXTENSION,
    CapturedLogContext,
    ComputeIOType,
    ConfigurableClassData,
    LocalComputeLogManager,
)
from bonseyes_dagster.execution.threads.step_streams import capture_streams
from bonseyes_dagster.execution.threads.stored_values import delete_values_set_aside, set_values_aside

__all__ = ["StepComputeLogManager", "remove_orphaned_logs", "removing_output"]

_log = logging.getLogger(__name__)
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The prefix of a folder that is being removed; the id of the run follows.
_DELETED_PREFIX = ".deleted-"
_IDLE_S = 3600.0
_PAGE = 500


@contextmanager
def removing_output(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    """Remove the logs and the output values of a run's steps, around the removal of its events.

    Dagster has deleted the row of the run already, so another run may get the same id. The output is set aside first,
    so that the output of the new run is not removed. Files that cannot be removed now are removed as orphans later.
    """
    manager = instance.compute_log_manager
    with _warn_of_leftovers(run_id):
        if isinstance(manager, StepComputeLogManager):
            manager.set_aside(run_id)
    with _warn_of_leftovers(run_id):
        set_values_aside(instance, run_id)
    yield
    with _warn_of_leftovers(run_id):
        if isinstance(manager, StepComputeLogManager):
            manager.remove_set_aside(run_id)
        else:
            manager.delete_logs(prefix=[run_id])
    delete_values_set_aside(instance, run_id)


@contextmanager
def _warn_of_leftovers(run_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.warning("The output of the steps of run %s cannot be removed: %s.", run_id, error)


def remove_orphaned_logs(instance: DagsterInstance) -> None:
    """Remove the logs of deleted runs, and output that was set aside. If the runs cannot be read, no log is removed."""
    delete_values_set_aside(instance)
    manager = instance.compute_log_manager
    if isinstance(manager, StepComputeLogManager):
        manager.remove_orphans(lambda run_ids: set(instance.get_run_ids(RunsFilter(run_ids=run_ids))))


def _is_idle(folder: Path) -> bool:
    """Tell whether no file below a folder has changed for _IDLE_S; a file that disappears is a change."""
    try:
        latest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return False
    return latest < time.time() - _IDLE_S


class StepComputeLogManager(LocalComputeLogManager):
    """LocalComputeLogManager with captures that may overlap in time.

    With `mirror`, the output of steps is also copied to the run process's own output, as with Dagster's manager.
    """

    def __init__(
        self,
        base_dir: str,
        polling_timeout: float | None = None,
        mirror: bool = False,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(base_dir, polling_timeout, inst_data)
        self._is_mirrored = mirror

    @classmethod
    def config_type(cls) -> Any:
        """Describe the configuration: the superclass's and `mirror`."""
        inherited: Any = super().config_type()
        return {**inherited, "mirror": Field(bool, is_required=False, default_value=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Create the manager from dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Capture the output of the current context; other contexts may be captured at the same time."""
        with (
            self._open(log_key, ComputeIOType.STDOUT) as out,
            self._open(log_key, ComputeIOType.STDERR) as err,
            capture_streams(out, err, is_mirrored=self._is_mirrored),
        ):
            yield CapturedLogContext(log_key)
        Path(self.get_captured_local_path(log_key, "complete")).touch()

    @contextmanager
    def _open(self, log_key: Sequence[str], io_type: ComputeIOType) -> Iterator[TextIO]:
        path = Path(self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[io_type]))
        path.parent.mkdir(parents=True, exist_ok=True)
        # A tool's log may have bytes that are not UTF-8. They must not fail the step that copies the log.
        with path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace") as file:
            yield file

    def set_aside(self, run_id: str) -> None:
        """Rename the folder of a run that is being deleted."""
        deleted = Path(self._base_dir) / f"{_DELETED_PREFIX}{run_id}"
        if deleted.exists():  # of an earlier run with this id
            shutil.rmtree(deleted)
        with contextlib.suppress(FileNotFoundError):
            (Path(self._base_dir) / run_id).rename(deleted)

    def remove_set_aside(self, run_id: str) -> None:
        """Remove the folder of a run that was set aside."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(Path(self._base_dir) / f"{_DELETED_PREFIX}{run_id}")

    def remove_orphans(self, known: Callable[[list[str]], set[str]]) -> None:
        """Remove the logs of runs that `known` does not return. Processes without these files have deleted such runs.

        Folders that changed within _IDLE_S are left alone. A folder is set aside before its run is looked for again,
        and is put back if the run exists: a new run may have the id of a deleted run. Several processes may do this at
        the same time. A folder that one process does not find, another has handled.
        """
        base = Path(self._base_dir)
        if not base.is_dir():
            return
        for deleted in base.glob(f"{_DELETED_PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):
                self._remove_or_put_back(deleted, known)
        idle = [path.name for path in base.iterdir() if _RUN_ID.fullmatch(path.name) and _is_idle(path)]
        for first in range(0, len(idle), _PAGE):
            page = idle[first : first + _PAGE]
            for run_id in set(page) - known(page):
                with contextlib.suppress(FileNotFoundError):
                    deleted = base / f"{_DELETED_PREFIX}{run_id}"
                    (base / run_id).rename(deleted)
                    self._remove_or_put_back(deleted, known)

    def _remove_or_put_back(self, deleted: Path, known: Callable[[list[str]], set[str]]) -> None:
        run_id = deleted.name.removeprefix(_DELETED_PREFIX)
        if known([run_id]):
            for path in [path for path in deleted.rglob("*") if path.is_file()]:
                place = deleted.with_name(run_id) / path.relative_to(deleted)
                place.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):  # the new run has its own file
                    place.hardlink_to(path)
        shutil.rmtree(deleted, ignore_errors=True)

    @contextmanager
    def open_log_stream(self, log_key: Sequence[str], io_type: ComputeIOType) -> Iterator[IO[Any] | None]:
        """Open a step's log to append to it, without a capture."""
        with self._open(log_key, io_type) as file:
            yield file
