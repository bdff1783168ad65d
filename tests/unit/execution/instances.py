"""A persistent instance like a project's, for tests that execute jobs in their own process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance

from bonseyes_dagster.execution.processes.run_worker import open_worker_instance
from bonseyes_dagster.execution.storage.instance import write_instance

__all__ = ["project_instance"]


@contextmanager
def project_instance(home: Path) -> Iterator[DagsterInstance]:
    """Yield an instance like a run's process opens it: connections stay open, and each step has its own log."""
    write_instance(home, launcher="stock")
    with DagsterInstance.from_config(str(home)) as plain, open_worker_instance(plain) as instance:
        yield instance
