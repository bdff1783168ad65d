"""Loads Dagster and a project's definitions and runs a scratch job, so that forked processes need no loading.

run_server.py calls it.
"""

import gc
import logging
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterError, DagsterInstance, execute_job, job, op

from bonseyes_dagster.code_errors import describe_code_error
from bonseyes_dagster.execution.importing import importing_from
from bonseyes_dagster.execution.processes.dagster_internals import (
    CodePointer,
    LoadableTarget,
    ReconstructableRepository,
    loadable_targets_from_python_file,
    loadable_targets_from_python_module,
    reconstructable,
)
from bonseyes_dagster.execution.storage.sqlite_storage import KeptOpenSqliteStorage
from bonseyes_dagster.execution.threads.executor import concurrent_executor

__all__ = ["Target", "load_target", "warm_up"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """The place of the definitions, as in the options of `dagster`: a file or a module, and a working directory."""

    python_file: str | None
    module: str | None
    attribute: str | None
    working_directory: str

    def pointer(self, attribute: str) -> CodePointer:
        """Return Dagster's pointer to `attribute`; a run of this code has an equal pointer."""
        if self.python_file:
            return CodePointer.from_python_file(self.python_file, attribute, self.working_directory)
        return CodePointer.from_module(str(self.module), attribute, self.working_directory)

    def targets(self) -> list[LoadableTarget]:
        """Import the code and find its definitions."""
        if self.python_file:
            found = loadable_targets_from_python_file(self.python_file, self.working_directory)
        else:
            found = loadable_targets_from_python_module(str(self.module), self.working_directory)
        return [target for target in found if self.attribute in (None, target.attribute)]

    def has(self, pointer: object) -> bool:
        """Tell whether a run's pointer names this code."""
        if self.python_file:
            file = getattr(pointer, "python_file", None)
            return file is not None and os.path.realpath(file) == os.path.realpath(self.python_file)
        return getattr(pointer, "module", None) == self.module


def load_target(target: Target) -> str | None:
    """Load all definitions; if that fails, return the place and the error. Each run's process reports it, too."""
    try:
        with importing_from(target.working_directory):
            for found in target.targets():
                repository = ReconstructableRepository(target.pointer(found.attribute)).get_definition()
                repository.load_all_definitions()
    except Exception as error:
        logger.debug("The definitions cannot be loaded.", exc_info=True)
        return describe_code_error(_inner(error), [Path(target.working_directory)])
    return None


def _inner(error: BaseException) -> BaseException:
    """Return the error of the project's code that Dagster wrapped."""
    while isinstance(error, DagsterError) and error.__cause__ is not None:
        error = error.__cause__
    return error


@op
def _scratch_op() -> int:
    return 1


@op
def _scratch_op_with_input(number: int) -> int:
    return number


@job(executor_def=concurrent_executor)
def _scratch_job() -> None:
    _scratch_op_with_input(_scratch_op())


def warm_up() -> None:
    """Run a job once, so that every fork has what Dagster imports, compiles and caches during a run."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            "storage": {
                "custom": {
                    "module": KeptOpenSqliteStorage.__module__,
                    "class": KeptOpenSqliteStorage.__name__,
                    "config": {"base_dir": folder},
                }
            },
            "compute_logs": {
                "module": "bonseyes_dagster.execution.threads.compute_logs",
                "class": "StepComputeLogManager",
                "config": {"base_dir": str(Path(folder) / "logs")},
            },
            "telemetry": {"enabled": False},
        }
        logging.disable(logging.CRITICAL)
        try:
            with DagsterInstance.local_temp(folder, overrides=overrides) as instance:
                execute_job(reconstructable(_scratch_job), instance, raise_on_error=True)
        finally:
            logging.disable(logging.NOTSET)
    gc.collect()
    gc.freeze()
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        logger.warning("The definitions have started threads; forked run processes do not have them: %s.", names)
