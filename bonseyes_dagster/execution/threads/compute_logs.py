"""Gives each step its own stdout and stderr in Dagster's UI, while several steps share one process.

Dagster's LocalComputeLogManager redirects the descriptors of the whole process, which mixes steps that run at the same
time. This one gives each step `sys.stdout` and `sys.stderr` of its own (step_streams.py).
Written through at each line, so the UI shows it live; files and reading are as in the superclass.

In dagster.yaml:
    compute_logs:
      module: bonseyes_dagster.execution.threads.compute_logs
      class: StepComputeLogManager
      config: {base_dir: /path/of/compute_logs}

What a subprocess of an op, or C code, writes to descriptors 1 and 2 does not pass here: it is in the run process's own
output. `subprocess.run(..., stdout=sys.stdout)` does go to the step: the router's `fileno` is the step's file.
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
# Before the id of a run in the name of a folder that is being removed.
_DOOMED = ".deleted-"
_IDLE_S = 3600.0
_PAGE = 500


@contextmanager
def removing_output(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    """Remove what the steps of a run printed and gave out, around the removal of its events.

    The run's record is gone by then, and another run may come under its id: its output is set aside first, so that
    the new run's is not removed with it. What cannot be removed now is removed as an orphan later.
    """
    manager = instance.compute_log_manager
    with _warning_of_leftovers(run_id):
        if isinstance(manager, StepComputeLogManager):
            manager.set_aside(run_id)
    with _warning_of_leftovers(run_id):
        set_values_aside(instance, run_id)
    yield
    with _warning_of_leftovers(run_id):
        if isinstance(manager, StepComputeLogManager):
            manager.remove_set_aside(run_id)
        else:
            manager.delete_logs(prefix=[run_id])
    delete_values_set_aside(instance, run_id)


@contextmanager
def _warning_of_leftovers(run_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.warning("The output of the steps of the run %s is still there: %s", run_id, error)


def remove_orphaned_logs(instance: DagsterInstance) -> None:
    """Remove the logs of steps whose runs are gone, and what was set aside; no log while the runs cannot be read."""
    delete_values_set_aside(instance)
    manager = instance.compute_log_manager
    if isinstance(manager, StepComputeLogManager):
        manager.remove_orphans(lambda run_ids: set(instance.get_run_ids(RunsFilter(run_ids=run_ids))))


def _is_idle(folder: Path) -> bool:
    """Tell whether nothing below a folder has changed for a while; what goes meanwhile has."""
    try:
        latest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return False
    return latest < time.time() - _IDLE_S


class StepComputeLogManager(LocalComputeLogManager):
    """LocalComputeLogManager whose captures may overlap.

    `mirror` also copies what steps write to the run process's own output, as Dagster's manager does.
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
        """Make one from dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Capture what the current context writes; other contexts may be captured at the same time."""
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
        # A tool's log may hold bytes that are no UTF-8: they must not fail the step that passes them on.
        with path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace") as file:
            yield file

    def set_aside(self, run_id: str) -> None:
        """Rename the folder of a run that is being deleted."""
        doomed = Path(self._base_dir) / f"{_DOOMED}{run_id}"
        if doomed.exists():  # of an earlier run of this id
            shutil.rmtree(doomed)
        with contextlib.suppress(FileNotFoundError):
            (Path(self._base_dir) / run_id).rename(doomed)

    def remove_set_aside(self, run_id: str) -> None:
        """Remove what was set aside of a run."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(Path(self._base_dir) / f"{_DOOMED}{run_id}")

    def remove_orphans(self, known: Callable[[list[str]], set[str]]) -> None:
        """Remove the logs of runs that are not `known`: of those that were deleted where these files cannot be seen.

        Files that changed a short while ago are left alone. The folder is set aside before its run is looked for once
        more, and put back if the run is there: a new run may bear the id of a deleted one. Several processes may do so
        at once: what one does not find, another has dealt with.
        """
        base = Path(self._base_dir)
        if not base.is_dir():
            return
        for doomed in base.glob(f"{_DOOMED}*"):
            with contextlib.suppress(FileNotFoundError):
                self._remove_or_put_back(doomed, known)
        idle = [path.name for path in base.iterdir() if _RUN_ID.fullmatch(path.name) and _is_idle(path)]
        for first in range(0, len(idle), _PAGE):
            page = idle[first : first + _PAGE]
            for run_id in set(page) - known(page):
                with contextlib.suppress(FileNotFoundError):
                    doomed = base / f"{_DOOMED}{run_id}"
                    (base / run_id).rename(doomed)
                    self._remove_or_put_back(doomed, known)

    def _remove_or_put_back(self, doomed: Path, known: Callable[[list[str]], set[str]]) -> None:
        run_id = doomed.name.removeprefix(_DOOMED)
        if known([run_id]):
            for path in [path for path in doomed.rglob("*") if path.is_file()]:
                place = doomed.with_name(run_id) / path.relative_to(doomed)
                place.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):  # the new run's own
                    place.hardlink_to(path)
        shutil.rmtree(doomed, ignore_errors=True)

    @contextmanager
    def open_log_stream(self, log_key: Sequence[str], io_type: ComputeIOType) -> Iterator[IO[Any] | None]:
        """Open a step's log to append to it without capturing anything."""
        with self._open(log_key, io_type) as file:
            yield file
