"""Dagster's Postgres storages with a connection pool. They survive forks, and a database that is away for a while.

Dagster opens a connection for each statement, and has a pool only in its webserver. It gives up after six seconds, and
it fails when the database ends during a statement. Here, the three storages of a process share one pool. A write whose
connection broke is repeated on a new connection, and is stored only once. Run processes wait long, because an op must
not fail when its log cannot be written. A run process that waits holds no connection, because there may be hundreds of
them. In dagster.yaml, for all processes:
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
# For the plain name, SQLAlchemy chooses another driver than dagster-postgres installs.
_DRIVER = "postgresql+psycopg2"
# Limits for each process. Half of the connections stay open. A run closes them _RUN_KEEP_S seconds after the last use.
_CONNECTIONS = 10
_RUN_CONNECTIONS = 4
_RUN_KEEP_S = 1
# Other processes answer with an error or try again. A run can do neither, so it waits longer.
_PATIENCE_S = 6
_RUN_PATIENCE_S = 600
_RETRY_PAUSE_S = (0.05, 2.0)
_TABLES_LOCK = 0x626F6E73657965
# If the machine of the database is gone, no error arrives: the timeouts detect it.
_CONNECT_ARGS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "bonseyes",
}

_T = TypeVar("_T")


class _RetryDeadline:
    """Decides whether to try again, until a deadline."""

    def __init__(self, limit_s: float) -> None:
        self._deadline = time.monotonic() + limit_s
        self._pause_s, self._longest_s = _RETRY_PAUSE_S

    def wait(self, error: Exception) -> None:
        """Sleep before the next attempt; raise UnavailableError after the deadline, and other errors at once."""
        if not _is_passing(error):
            raise error
        if time.monotonic() >= self._deadline:
            raise UnavailableError(f"The database of Dagster's runs does not answer: {_first_line(error)}.") from error
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, self._longest_s)


def _is_passing(error: Exception) -> bool:
    """Tell whether only the connection failed: the errors of a server that answers have a code."""
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    has_code = getattr(error.orig, "pgcode", None) is not None
    return error.connection_invalidated or (isinstance(error, OperationalError) and not has_code)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


class _RetryingConnection(Connection):
    """A connection that reconnects when it breaks. In Dagster's AUTOCOMMIT, each statement is a transaction."""

    patience_s: float = 0.0

    def execute(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:
        """Execute a statement. Repeat it if the connection broke, unless it is part of a longer transaction."""
        deadline = _RetryDeadline(self.patience_s)
        while True:
            try:
                return super().execute(statement, parameters, execution_options=execution_options)
            except DBAPIError as error:
                if not self.patience_s or self._is_in_long_transaction():
                    raise
                self.rollback()
                deadline.wait(error)

    def begin(self) -> Any:
        """Begin a transaction, or a savepoint inside another transaction."""
        return self.begin_nested() if self.in_transaction() else super().begin()

    def _is_in_long_transaction(self) -> bool:
        return "isolation_level" in self.get_execution_options()


class _Pool:
    """The connections of one process. It closes them after `keep_s` seconds without use; with 0 it keeps them.

    A thread closes them. A process that forks must not have threads, so it keeps its connections.
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
        """Keep the connections open during the `with` block."""
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
    """The database, with a pool for this process; a forked process gets its own pool."""

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
        """Return the URL, with the password and the name of the driver."""
        return self._url.render_as_string(hide_password=False)

    @property
    def engine(self) -> Engine:
        """Return SQLAlchemy's engine of this process."""
        return self._pool.engine

    @property
    def _pool(self) -> _Pool:
        """Return the pool.

        A forked process leaves the connections to its parent. `os.register_at_fork` does not help, because uWSGI forks
        without calling its hooks.
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
            pool_pre_ping=not self._keep_s,  # no ping for connections that were used a moment ago
            use_native_hstore=False,  # it costs a query for each connection
            connect_args={**_CONNECT_ARGS, **options},
        )

    def limit_statements(self, timeout_ms: int) -> None:
        """Set the time after which the server cancels a statement."""
        if timeout_ms != self._statement_timeout_ms:
            self._statement_timeout_ms = timeout_ms
            former, self._pool_here = self._pool_here, None
            if former is not None:
                former.engine.dispose()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection of the pool, or the one of this thread's transaction; wait for a server that is away."""
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

    def _connect(self) -> _RetryingConnection:
        deadline = _RetryDeadline(self.patience_s)
        while True:
            try:
                connection = _RetryingConnection(self.engine)
                connection.patience_s = self.patience_s
                return connection
            except (DBAPIError, PoolTimeoutError) as error:
                deadline.wait(error)

    def write_once(
        self, write: Callable[[], _T], find: Callable[[], _T | None] = lambda: None, *, is_one_statement: bool = False
    ) -> _T:
        """Call `write` in one transaction, and return its result.

        If the connection breaks, it is unknown whether the server has committed. Then `write` is called again, unless
        `find` finds the rows. Without `find`, a second `write` must be harmless. Inside another `write`, the call is
        part of that transaction.
        """
        if getattr(self._write, "connection", None) is not None:
            return write()
        deadline = _RetryDeadline(self.patience_s)
        while True:
            try:
                with self._writing(is_one_statement):
                    return write()
            except DBAPIError as error:
                deadline.wait(error)
            self._wait_for_backend(self._write.backend)
            found = find()
            if found is not None:
                return found

    def _wait_for_backend(self, backend: int) -> None:
        """Wait until the server's process for a broken connection has ended: until then it may still commit.

        The wait is short: after a restart of the server, the process of another connection may have the same pid.
        """
        busy = "SELECT 1 FROM pg_stat_activity WHERE pid = :pid AND pid <> pg_backend_pid() AND state <> 'idle'"
        deadline = time.monotonic() + _PATIENCE_S
        with self.connect() as connection:
            while time.monotonic() < deadline and connection.execute(db.text(busy), {"pid": backend}).first():
                time.sleep(_RETRY_PAUSE_S[0])

    @contextmanager
    def _writing(self, is_one_statement: bool) -> Iterator[None]:
        """Use one connection for all statements of this thread; it does not reconnect when it breaks."""
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
    """Base class of the three storages."""

    def __init__(self, database: _Database, creates_tables: bool) -> None:
        self.database = database
        super().__init__(database.url, creates_tables)  # type: ignore[call-arg]

    @property
    def _engine(self) -> Engine:
        return self.database.engine

    @_engine.setter
    def _engine(self, engine: Engine) -> None:
        """Ignore the engine of the superclass; it has not connected yet."""

    def connect(self, run_id: str | None = None) -> Any:
        return self.database.connect()

    _connect = connect

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        self.database.limit_statements(statement_timeout)


class _RunStorage(_Pooled, PostgresRunStorage):
    """Writes several rows in one transaction: a run has all of its tags, or does not exist."""

    def _core_add_run(self, col_values: dict[str, Any], tags: Mapping[str, str]) -> None:
        try:
            self.database.write_once(partial(super()._core_add_run, col_values, tags))
        except DagsterRunAlreadyExists:
            if not self._has_added(col_values):
                raise

    def _has_added(self, col_values: dict[str, Any]) -> bool:
        """Tell whether this call created the run: the server may have committed the first attempt."""
        table = RunsTable.c
        mine = [table[column] == col_values[column] for column in ("run_id", "create_timestamp")]
        with self.connect() as connection:
            return connection.execute(db.select(table.id).where(*mine)).first() is not None

    def add_run_tags(self, run_id: str, new_tags: Mapping[str, str]) -> None:
        self.database.write_once(partial(super().add_run_tags, run_id, new_tags))

    def handle_run_event(self, run_id: str, event: DagsterEvent, update_timestamp: datetime | None = None) -> None:
        handle = partial(super().handle_run_event, run_id, event, update_timestamp)
        if (
            event.event_type is DagsterEventType.PIPELINE_FAILURE
        ):  # its reason becomes a tag; other events only update a row
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
        """Store an event, and in the same transaction the rows of its asset."""
        about = event.dagster_event
        is_of_asset = about is not None and about.event_type in ASSET_EVENTS | ASSET_CHECK_EVENTS
        write = super().store_event if is_of_asset else self._insert
        find = partial(self._find, event)
        self.database.write_once(partial(write, event), find, is_one_statement=not is_of_asset)

    def delete_events(self, run_id: str) -> None:
        """Remove a run's events, and the logs and output values of its steps; every deletion of a run calls this."""
        with removing_output(self._instance, run_id) if self.has_instance else contextlib.nullcontext():
            super().delete_events(run_id)

    def _insert(self, event: EventLogEntry) -> None:
        # The superclass also sends a notification, but Dagster no longer listens to it.
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


def _create_tables(database: _Database) -> _Parts:
    """Create missing tables, one process at a time.

    It uses one transaction: Dagster assumes that the tables are complete if there are any.
    """
    with database.connect() as connection:
        connection.execute(db.text(f"SELECT pg_advisory_xact_lock({_TABLES_LOCK})"))
    return _parts(database, creates_tables=True)


class PooledPostgresStorage(DagsterPostgresStorage):
    """DagsterPostgresStorage over the same tables.

    `connections` limits the open connections of this process. `patience_s` is how long it waits for a server that is
    away. After `keep_s` seconds without use it closes its connections; with 0 it never does.
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
        # Skip the superclass's constructor, which creates its own storages.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]
        database = _Database(postgres_url, connections, patience_s, keep_s)
        self.postgres_url = database.url
        self.should_autocreate_tables = should_autocreate_tables
        self._inst_data = inst_data
        parts = database.write_once(partial(_create_tables, database)) if should_autocreate_tables else _parts(database)
        self._run_storage, self._event_log_storage, self._schedule_storage = parts

    @classmethod
    def config_type(cls) -> Any:
        """Describe the configuration: the superclass's, and the options of the pool."""
        inherited: Any = super().config_type()
        return {
            **inherited,
            "connections": Field(IntSource, is_required=False, default_value=_CONNECTIONS),
            "patience_s": Field(IntSource, is_required=False, default_value=_PATIENCE_S),
            "keep_s": Field(IntSource, is_required=False, default_value=0),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Create the storage from dagster.yaml."""
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
    # If there is a run, there are tables. A check for them would fail while the database is away.
    config = {**yaml.safe_load(data.config_yaml), **limits, "should_autocreate_tables": False}
    return ref._replace(storage_data=ConfigurableClassData(*ours, yaml.safe_dump(config)))
