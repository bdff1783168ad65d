"""Dagster's Postgres storages with pooled connections that bear forks, and a database that is away for a while.

Dagster connects anew for each statement, keeps a pool only in its webserver, gives up after six seconds, and breaks off
when the database ends under a statement. Here the three storages of a process share one pool, what a broken connection
leaves undone is done on a new one, once, and run processes wait long: an op must not fail because its log could not be
written. A run process that waits holds no connection, for there may be hundreds.
In dagster.yaml, for all processes:
    storage:
      custom:
        module: bonseyes_dagster.execution.storage.postgres_storage
        class: PooledPostgresStorage
        config: {postgres_url: postgresql://USER:PASSWORD@HOST/DATABASE}
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Self, TypeVar

import sqlalchemy as db
import yaml
from dagster import DagsterEvent, DagsterEventType, Field, IntSource
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.storage import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from bonseyes_dagster.errors import UnavailableError
from bonseyes_dagster.execution.storage.dagster_internals import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    ConfigurableClassData,
    DagsterRunAlreadyExists,
    EventLogEntry,
    InstanceRef,
    InstigatorState,
    InstigatorTick,
    JobTickTable,
    PartitionBackfill,
    RunsTable,
    SqlEventLogStorageTable,
    TickData,
    serialize_value,
)
from bonseyes_dagster.execution.threads.compute_logs import removing_output

__all__ = ["PooledPostgresStorage", "with_pooled_connections"]

_STOCK = ("dagster_postgres", "DagsterPostgresStorage")
# SQLAlchemy takes the plain name for another driver than the one that dagster-postgres brings.
_DRIVER = "postgresql+psycopg2"
# Of a process; half of them are kept open, by a run for so long after it has used one.
_CONNECTIONS = 10
_RUN_CONNECTIONS = 4
_RUN_KEEP_S = 1
# Somebody waits for an answer, or will ask again; a run has nobody else to go to.
_PATIENCE_S = 6
_RUN_PATIENCE_S = 600
_PAUSE_S = (0.05, 2.0)
_TABLES_LOCK = 0x626F6E73657965
# A database whose machine is gone says nothing at all: notice that, too.
_CONNECT_ARGS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "bonseyes",
}

_T = TypeVar("_T")


class _Patience:
    """Tells for how long to go on trying."""

    def __init__(self, limit_s: float) -> None:
        self._deadline = time.monotonic() + limit_s
        self._pause_s, self._longest_s = _PAUSE_S

    def wait(self, error: Exception) -> None:
        """Sleep before the next attempt; raise UnavailableError when there is to be none, other errors as they are."""
        if not _is_passing(error):
            raise error
        if time.monotonic() >= self._deadline:
            raise UnavailableError(f"The database of Dagster's runs does not answer: {_sentence(error)}") from error
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, self._longest_s)


def _is_passing(error: Exception) -> bool:
    """Tell whether the connection is what failed: a server that answers gives its errors a code."""
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    has_code = getattr(error.orig, "pgcode", None) is not None
    return error.connection_invalidated or (isinstance(error, OperationalError) and not has_code)


def _sentence(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


class _PatientConnection(Connection):
    """A connection that makes itself anew when it breaks; in Dagster's AUTOCOMMIT each statement stands alone."""

    patience_s: float = 0.0

    def execute(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:
        """Execute a statement; again, if the connection broke and this is no transaction of several."""
        patience = _Patience(self.patience_s)
        while True:
            try:
                return super().execute(statement, parameters, execution_options=execution_options)
            except DBAPIError as error:
                if not self.patience_s or self._is_one_of_several():
                    raise
                self.rollback()
                patience.wait(error)

    def begin(self) -> Any:
        """Begin a transaction, within another one a part of it."""
        return self.begin_nested() if self.in_transaction() else super().begin()

    def _is_one_of_several(self) -> bool:
        return "isolation_level" in self.get_execution_options()


class _Pool:
    """The connections of one process, closed when none has been used for `keep_s` seconds; 0 keeps them.

    Closing takes a thread, so who forks keeps them.
    """

    def __init__(self, engine: Engine, keep_s: float) -> None:
        self.engine = engine
        self.pid = os.getpid()
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._users = 0
        self._used = 0.0
        self._is_watched = False

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Leave connections open meanwhile."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._used = time.monotonic()
                if self._keep_s and not self._is_watched:
                    self._is_watched = True
                    threading.Thread(target=self._close_when_idle, daemon=True, name="idle connections").start()

    def _close_when_idle(self) -> None:
        wait_s = self._keep_s
        while self._is_watched:
            time.sleep(wait_s)
            with self._lock:
                idle_s = 0.0 if self._users else time.monotonic() - self._used
                wait_s = self._keep_s - idle_s
                if wait_s <= 0:
                    self.engine.dispose()
                    self._is_watched = False


class _Database:
    """The database as this process sees it; a forked one has a pool of its own."""

    def __init__(self, url: str, connections: int, patience_s: float, keep_s: float) -> None:
        given = make_url(url)
        is_plain = given.drivername in ("postgres", "postgresql")
        self._url = given.set(drivername=_DRIVER) if is_plain else given
        self._connections = connections
        self.patience_s = patience_s
        self._keep_s = keep_s
        self._statement_timeout_ms = 0
        self._lock = threading.Lock()
        self._pool_here: _Pool | None = None
        self._write = threading.local()

    @property
    def url(self) -> str:
        """Return the address, with its password and the name of the driver."""
        return self._url.render_as_string(hide_password=False)

    @property
    def engine(self) -> Engine:
        """Return what makes connections."""
        return self._pool.engine

    @property
    def _pool(self) -> _Pool:
        """Return the pool.

        A forked process leaves the connections to its parent. Not a hook of `os.register_at_fork`: uWSGI forks without
        calling those.
        """
        pool = self._pool_here
        if pool is not None and pool.pid != os.getpid():
            self._lock = threading.Lock()
            self._pool_here = None
            pool.engine.dispose(close=False)
        with self._lock:
            if self._pool_here is None:
                self._pool_here = _Pool(self._open(), self._keep_s)
            return self._pool_here

    def _open(self) -> Engine:
        kept = self._connections // 2
        options = (
            {"options": f"-c statement_timeout={self._statement_timeout_ms}"} if self._statement_timeout_ms else {}
        )
        return db.create_engine(
            self._url,
            isolation_level="AUTOCOMMIT",
            poolclass=QueuePool,
            pool_size=kept,
            max_overflow=self._connections - kept,
            pool_timeout=self.patience_s,
            pool_use_lifo=True,
            pool_pre_ping=not self._keep_s,  # what was used a moment ago is not asked whether it is still there
            use_native_hstore=False,  # which is a question to the server for each connection
            connect_args={**_CONNECT_ARGS, **options},
        )

    def limit_statements(self, timeout_ms: int) -> None:
        """Have the server break off statements that take longer."""
        if timeout_ms != self._statement_timeout_ms:
            self._statement_timeout_ms = timeout_ms
            former, self._pool_here = self._pool_here, None
            if former is not None:
                former.engine.dispose()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection of the pool, or that of what this thread is writing; wait for a server that is away."""
        writing: Connection | None = getattr(self._write, "connection", None)
        if writing is not None:
            yield writing
            return
        with self._pool.in_use():
            connection = self._connect()
            try:
                yield connection
            finally:
                connection.close()

    def _connect(self) -> _PatientConnection:
        patience = _Patience(self.patience_s)
        while True:
            try:
                connection = _PatientConnection(self.engine)
                connection.patience_s = self.patience_s
                return connection
            except (DBAPIError, PoolTimeoutError) as error:
                patience.wait(error)

    def write_once(
        self, write: Callable[[], _T], find: Callable[[], _T | None] = lambda: None, *, is_one_statement: bool = False
    ) -> _T:
        """Return what `write` does, in one transaction.

        If the connection breaks, nobody knows whether the server has committed it: it is written again unless `find`
        finds it. Without `find` it must bear that. Within another `write` it is a part of that.
        """
        if getattr(self._write, "connection", None) is not None:
            return write()
        patience = _Patience(self.patience_s)
        while True:
            try:
                with self._writing(is_one_statement):
                    return write()
            except DBAPIError as error:
                patience.wait(error)
            self._outlast(self._write.backend)
            found = find()
            if found is not None:
                return found

    def _outlast(self, backend: int) -> None:
        """Wait until the server's process for a broken connection has ended: it may have a commit before it.

        Not for long: after a restart of the server another connection's process may bear its number.
        """
        busy = "SELECT 1 FROM pg_stat_activity WHERE pid = :pid AND pid <> pg_backend_pid() AND state <> 'idle'"
        deadline = time.monotonic() + _PATIENCE_S
        with self.connect() as connection:
            while time.monotonic() < deadline and connection.execute(db.text(busy), {"pid": backend}).first():
                time.sleep(_PAUSE_S[0])

    @contextmanager
    def _writing(self, is_one_statement: bool) -> Iterator[None]:
        """Have all that this thread does use one connection, which is not made anew when it breaks."""
        with self.connect() as connection:
            connection.patience_s = 0.0  # type: ignore[attr-defined]
            self._write.backend = connection.connection.driver_connection.get_backend_pid()  # type: ignore[union-attr]
            if not is_one_statement:
                connection.execution_options(isolation_level="READ COMMITTED")
            self._write.connection = connection
            try:
                with contextlib.nullcontext() if is_one_statement else connection.begin():
                    yield
            finally:
                self._write.connection = None


class _Pooled:
    """What the three storages have in common."""

    def __init__(self, database: _Database, creates_tables: bool) -> None:
        self.database = database
        super().__init__(database.url, creates_tables)  # type: ignore[call-arg]

    @property
    def _engine(self) -> Engine:
        return self.database.engine

    @_engine.setter
    def _engine(self, engine: Engine) -> None:
        """Leave the superclass's own, which has not connected yet."""

    def connect(self, run_id: str | None = None) -> Any:
        return self.database.connect()

    _connect = connect

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        self.database.limit_statements(statement_timeout)


class _RunStorage(_Pooled, PostgresRunStorage):
    """What is in several rows is written in one transaction: a run has all of its tags, or is not there."""

    def _core_add_run(self, col_values: dict[str, Any], tags: Mapping[str, str]) -> None:
        try:
            self.database.write_once(partial(super()._core_add_run, col_values, tags))
        except DagsterRunAlreadyExists:
            if not self._has_added(col_values):
                raise

    def _has_added(self, col_values: dict[str, Any]) -> bool:
        """Tell whether the run is there since this very call, whose first attempt the server had committed."""
        table = RunsTable.c
        mine = [table[column] == col_values[column] for column in ("run_id", "create_timestamp")]
        with self.connect() as connection:
            return connection.execute(db.select(table.id).where(*mine)).first() is not None

    def add_run_tags(self, run_id: str, new_tags: Mapping[str, str]) -> None:
        self.database.write_once(partial(super().add_run_tags, run_id, new_tags))

    def handle_run_event(self, run_id: str, event: DagsterEvent, update_timestamp: datetime | None = None) -> None:
        handle = partial(super().handle_run_event, run_id, event, update_timestamp)
        if event.event_type is DagsterEventType.PIPELINE_FAILURE:  # whose reason becomes a tag; the others update a row
            self.database.write_once(handle)
        else:
            handle()

    def add_backfill(self, partition_backfill: PartitionBackfill) -> None:
        find = partial(self.get_backfill, partition_backfill.backfill_id)
        self.database.write_once(partial(super().add_backfill, partition_backfill), find)


class _ScheduleStorage(_Pooled, PostgresScheduleStorage):
    def create_tick(self, tick_data: TickData) -> InstigatorTick:
        return self.database.write_once(partial(super().create_tick, tick_data), partial(self._find_tick, tick_data))

    def _find_tick(self, tick_data: TickData) -> InstigatorTick | None:
        table = JobTickTable.c
        mine = [table.job_origin_id == tick_data.instigator_origin_id, table.tick_body == serialize_value(tick_data)]
        with self.connect() as connection:
            tick_id = connection.execute(db.select(table.id).where(*mine)).scalar()
        return None if tick_id is None else InstigatorTick(int(tick_id), tick_data)

    def add_instigator_state(self, state: InstigatorState) -> InstigatorState:
        find = partial(self.get_instigator_state, state.instigator_origin_id, state.selector_id)
        return self.database.write_once(partial(super().add_instigator_state, state), find)


class _EventLogStorage(_Pooled, PostgresEventLogStorage):
    def store_event(self, event: EventLogEntry) -> None:
        """Store an event, and in the same transaction what it says of an asset."""
        about = event.dagster_event
        is_of_asset = about is not None and about.event_type in ASSET_EVENTS | ASSET_CHECK_EVENTS
        write = super().store_event if is_of_asset else self._insert
        find = partial(self._find, event)
        self.database.write_once(partial(write, event), find, is_one_statement=not is_of_asset)

    def delete_events(self, run_id: str) -> None:
        """Remove the events of a run, which is how every door deletes one, and what its steps printed and gave out."""
        with removing_output(self._instance, run_id) if self.has_instance else contextlib.nullcontext():
            super().delete_events(run_id)

    def _insert(self, event: EventLogEntry) -> None:
        # The superclass notifies listeners as well, which its readers have long ceased to be.
        with self.connect() as connection:
            connection.execute(self.prepare_insert_event(event))

    def _find(self, event: EventLogEntry) -> bool | None:
        table = SqlEventLogStorageTable.c
        mine = [table.run_id == event.run_id, table.event == serialize_value(event)]
        with self.connect() as connection:
            return connection.execute(db.select(table.id).where(*mine)).first() is not None or None


_Parts = tuple[_RunStorage, _EventLogStorage, _ScheduleStorage]


def _parts(database: _Database, *, creates_tables: bool = False) -> _Parts:
    return (
        _RunStorage(database, creates_tables),
        _EventLogStorage(database, creates_tables),
        _ScheduleStorage(database, creates_tables),
    )


def _make_tables(database: _Database) -> _Parts:
    """Make what is not there, one process after the other; in one transaction, for what is there is taken for whole."""
    with database.connect() as connection:
        connection.execute(db.text(f"SELECT pg_advisory_xact_lock({_TABLES_LOCK})"))
    return _parts(database, creates_tables=True)


class PooledPostgresStorage(DagsterPostgresStorage):
    """DagsterPostgresStorage over the same tables.

    `connections` is how many this process may have open, `patience_s` how long it waits for a server that is away,
    `keep_s` after how long without use it closes those that it has, if not 0.
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        connections: int = _CONNECTIONS,
        patience_s: int = _PATIENCE_S,
        keep_s: int = 0,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        # Not the superclass's, which makes its parts by name.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]
        database = _Database(postgres_url, connections, patience_s, keep_s)
        self.postgres_url = database.url
        self.should_autocreate_tables = should_autocreate_tables
        self._inst_data = inst_data
        parts = database.write_once(partial(_make_tables, database)) if should_autocreate_tables else _parts(database)
        self._run_storage, self._event_log_storage, self._schedule_storage = parts

    @classmethod
    def config_type(cls) -> Any:
        """Describe the configuration: the superclass's and what is ours."""
        inherited: Any = super().config_type()
        return {
            **inherited,
            "connections": Field(IntSource, is_required=False, default_value=_CONNECTIONS),
            "patience_s": Field(IntSource, is_required=False, default_value=_PATIENCE_S),
            "keep_s": Field(IntSource, is_required=False, default_value=0),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Make one from dagster.yaml."""
        ours = ("connections", "patience_s", "keep_s")
        options = {name: config_value[name] for name in ours if name in config_value}
        url = pg_url_from_config(config_value)
        creates = config_value.get("should_autocreate_tables", True)
        return cls(url, creates, inst_data=inst_data, **options)


def with_pooled_connections(ref: InstanceRef) -> InstanceRef:
    """Return the reference of the same instance for a run process; unchanged unless its storage is in Postgres."""
    ours = (__name__, PooledPostgresStorage.__name__)
    data = ref.storage_data
    if data is None or (data.module_name, data.class_name) not in (_STOCK, ours):
        return ref
    limits = {"connections": _RUN_CONNECTIONS, "patience_s": _RUN_PATIENCE_S, "keep_s": _RUN_KEEP_S}
    # It has tables if it has a run; looking for them would fail while the database is away.
    config = {**yaml.safe_load(data.config_yaml), **limits, "should_autocreate_tables": False}
    return ref._replace(storage_data=ConfigurableClassData(*ours, yaml.safe_dump(config)))
