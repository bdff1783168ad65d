"""Dagster's SQLite storages over the same files. Connections stay open, and the file of a new run is copied.

Dagster opens the database for each statement, and creates each run's file with Alembic, which loads 90 revisions.
Together that is most of the cost of submitting a run and executing its steps. Here, the file is a copy of a template.
In dagster.yaml, for all processes:
    storage:
      custom:
        module: bonseyes_dagster.execution.storage.sqlite_storage
        class: KeptOpenSqliteStorage
        config: {base_dir: /path/of/storage}
Run processes use this storage even if dagster.yaml names Dagster's own (run_worker.py).

Run processes write with `synchronous=NORMAL`: in WAL mode a commit then needs no fsync. A killed process loses nothing.
A machine that loses power may lose the last events, but never an older event before a newer one. A resumed run then
executes those steps again, and finds their artifacts complete by idempotency key. All other processes write with FULL,
as Dagster does; for example, they create runs.
"""

import contextlib
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import dagster
import sqlalchemy as db
import yaml
from dagster import Field
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool, QueuePool

from bonseyes_dagster.execution.storage.dagster_internals import (
    SQLITE_BUSY_TIMEOUT_SECONDS,
    ConfigurableClassData,
    DagsterSqliteStorage,
    InstanceRef,
    SqliteEventLogStorage,
    SqliteRunStorage,
    sqlite_event_log,
    sqlite_run_storage,
    sqlite_schedule_storage,
)
from bonseyes_dagster.execution.threads.compute_logs import removing_output

__all__ = ["KeptOpenSqliteStorage", "close_connections", "with_kept_open_connections"]

_STOCK = ("dagster._core.storage.sqlite_storage", "DagsterSqliteStorage")
# A webserver reads many runs. The least recently used files are closed.
_MAX_OPEN = 16


def _url(base_dir: str, db_name: str) -> str:
    """Return the URL of a database file; its path may have any characters."""
    path = Path(base_dir).absolute() / f"{db_name}.db"
    return db.URL.create("sqlite", database=str(path)).render_as_string()


# Dagster does not quote the path in the URL: for `a?b` SQLAlchemy opens the file `a`, and for `a%41` the file `aA`.
for _module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
    _module.create_db_conn_string = _url  # type: ignore[attr-defined]  # for mypy, the three are plain modules


class _Engines:
    """The open databases of this process, the most recently used last."""

    def __init__(self) -> None:
        self._engines: OrderedDict[tuple[str, str], tuple[Engine, tuple[int, int] | None]] = OrderedDict()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def get(self, conn_string: str, synchronous: str) -> Engine:
        """Return the engine of a database; a new one if the file was replaced, as `dagster run wipe` does."""
        if self._pid != os.getpid():
            self._forget()
        file = _identity(conn_string)
        with self._lock:
            engine, known = self._engines.pop((conn_string, synchronous), (None, None))
            if engine is not None and known is not None and known != file:
                engine.dispose()
                engine = None
            if engine is None:
                engine = _open(conn_string, synchronous)
            self._engines[(conn_string, synchronous)] = (engine, known or file)
            while len(self._engines) > _MAX_OPEN:
                # Connections in use stay usable, and are closed when they return to the pool.
                self._engines.popitem(last=False)[1][0].dispose()
            return engine

    def close(self) -> None:
        """Close all connections; connections in use are closed when they return to the pool."""
        with self._lock:
            while self._engines:
                self._engines.popitem()[1][0].dispose()

    def _forget(self) -> None:
        """Leave the parent's connections to the parent: after a fork, a SQLite connection must not be used or closed.

        `os.register_at_fork` does not help, because uWSGI forks without calling its hooks.
        """
        self._lock = threading.Lock()
        self._pid = os.getpid()
        for engine, _ in self._engines.values():
            engine.dispose(close=False)
        self._engines.clear()


def _identity(conn_string: str) -> tuple[int, int] | None:
    with contextlib.suppress(FileNotFoundError):
        stat = Path(db.make_url(conn_string).database or "").stat()
        return stat.st_dev, stat.st_ino
    return None


def _open(conn_string: str, synchronous: str) -> Engine:
    engine = db.create_engine(
        conn_string,
        poolclass=QueuePool,
        pool_size=4,
        max_overflow=-1,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )

    def prepare(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA synchronous={synchronous}")

    db.event.listen(engine, "connect", prepare)
    return engine


_engines = _Engines()


def close_connections() -> None:
    """Close this process's databases. Call it before a fork whose child uses them.

    SQLite counts the locks of a process in memory, and the child inherits the counts. So the child would not take the
    locks that its parent holds. The next process that closes the database would find it unused, and would remove the
    log that the child writes to.
    """
    _engines.close()


class _RunStorage(SqliteRunStorage):
    synchronous: str

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with _engines.get(self._conn_string, self.synchronous).connect() as connection, connection.begin():
            yield connection


class _EventLogStorage(SqliteEventLogStorage):
    synchronous: str

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            path = Path(self.path_for_shard(shard))
            if not path.exists():
                self._copy_template(path)
            engine = _engines.get(self.conn_string_for_shard(shard), self.synchronous)
            if shard not in self._initialized_dbs:
                if not db.inspect(engine).has_table("event_logs"):
                    self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def delete_events(self, run_id: str) -> None:
        """Remove a run's events, and the logs and output values of its steps; every deletion of a run calls this."""
        with removing_output(self._instance, run_id) if self.has_instance else contextlib.nullcontext():
            super().delete_events(run_id)

    def _copy_template(self, path: Path) -> None:
        """Create a run's file completely, or leave it if another process was first."""
        with tempfile.NamedTemporaryFile(dir=self._base_dir, prefix="new-") as new:
            with self._template().open("rb") as template:
                shutil.copyfileobj(template, new)
            new.flush()
            os.fsync(new.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(new.name)

    def _template(self) -> Path:
        """Return the file of an empty run, as the installed Dagster creates it."""
        template = Path(self._base_dir) / f"empty-{dagster.__version__}.template"
        if not template.exists():
            with tempfile.TemporaryDirectory(dir=self._base_dir, prefix="template-") as folder:
                engine = db.create_engine(_url(folder, "empty"), poolclass=NullPool)
                self._initdb(engine)
                engine.dispose()
                (Path(folder) / "empty.db").replace(template)
        return template


class KeptOpenSqliteStorage(DagsterSqliteStorage):
    """DagsterSqliteStorage over the same files."""

    def __init__(
        self, base_dir: str, synchronous: str = "FULL", inst_data: ConfigurableClassData | None = None
    ) -> None:
        super().__init__(base_dir, inst_data)
        runs: Any = self._run_storage
        events: Any = self._event_log_storage
        # The superclass creates its own storages. These classes have the same state, but other connections.
        runs.__class__ = _RunStorage
        events.__class__ = _EventLogStorage
        runs.synchronous = events.synchronous = synchronous

    @classmethod
    def config_type(cls) -> Any:
        """Describe the configuration: the superclass's and `synchronous`."""
        inherited: Any = super().config_type()
        return {**inherited, "synchronous": Field(str, is_required=False, default_value="FULL")}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> Self:
        """Create the storage from an instance's reference; the superclass would create Dagster's own storage."""
        return cls(inst_data=inst_data, **config_value)


def with_kept_open_connections(ref: InstanceRef) -> InstanceRef:
    """Return the reference of the same instance for a run process; unchanged unless its storage is in SQLite."""
    ours = (__name__, KeptOpenSqliteStorage.__name__)
    data = ref.storage_data
    if data is None or (data.module_name, data.class_name) not in (_STOCK, ours):
        return ref
    config = {**yaml.safe_load(data.config_yaml), "synchronous": "NORMAL"}
    return ref._replace(storage_data=ConfigurableClassData(*ours, yaml.safe_dump(config)))
