"""Dagster's SQLite storages with their connections kept open, for run processes; run_worker.py swaps them in.

Dagster opens a database anew for each statement, which is right for the many readers of an instance and is most of what
a step costs a run process. A run process writes a few files over and over, and it ends soon.

`synchronous=NORMAL`: in WAL mode a commit then needs no fsync. A process that is killed loses nothing. A machine that
loses power may lose the last events, never an older one before a newer: a resumed run does those steps again, and finds
their artifacts complete by idempotency key. Runs are created by other processes, with Dagster's own setting (FULL).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as db
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

__all__ = ["KeptOpenSqliteStorage", "with_kept_open_connections"]

_STOCK = ("dagster._core.storage.sqlite_storage", "DagsterSqliteStorage")

_engines: dict[str, Engine] = {}


def _forget_engines() -> None:
    """Leave the parent's connections to the parent: SQLite's must not be used, nor closed, across a fork."""
    for engine in _engines.values():
        engine.dispose(close=False)
    _engines.clear()


os.register_at_fork(after_in_child=_forget_engines)


def _engine(conn_string: str) -> Engine:
    engine = _engines.get(conn_string)
    if engine is None:
        engine = db.create_engine(
            conn_string,
            poolclass=QueuePool,
            pool_size=4,
            max_overflow=-1,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        db.event.listen(engine, "connect", _set_synchronous)
        engine = _engines.setdefault(conn_string, engine)
    return engine


def _set_synchronous(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


class _RunStorage(SqliteRunStorage):
    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with _engine(self._conn_string).connect() as connection, connection.begin():
            yield connection


class _EventLogStorage(SqliteEventLogStorage):
    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = _engine(self.conn_string_for_shard(shard))
            if shard not in self._initialized_dbs:
                # Whoever created the run has made its shard; asking Alembic again costs more than a whole step.
                if not Path(self.path_for_shard(shard)).exists() or not db.inspect(engine).has_table("event_logs"):
                    self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection


class KeptOpenSqliteStorage(DagsterSqliteStorage):
    """DagsterSqliteStorage over the same files."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        runs: Any = self._run_storage
        events: Any = self._event_log_storage
        # The superclass makes its parts by name; these have the same state and other connections.
        runs.__class__ = _RunStorage
        events.__class__ = _EventLogStorage

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> Self:
        """Make one from an instance's reference; the superclass would make one of its own kind."""
        return cls(inst_data=inst_data, **config_value)


def with_kept_open_connections(ref: InstanceRef) -> InstanceRef:
    """Return the reference of the same instance for a run process; unchanged unless its storage is plain SQLite."""
    data = ref.storage_data
    if data is None or (data.module_name, data.class_name) != _STOCK:
        return ref
    config = yaml.safe_load(data.config_yaml)
    kept = ConfigurableClassData(__name__, KeptOpenSqliteStorage.__name__, yaml.safe_dump(config))
    return ref._replace(storage_data=kept)
