"""Dagster's Postgres storages with pooled connections that bear forks, and a database that is away for a while.

Dagster connects anew for each statement, keeps a pool only in its webserver, gives up after six seconds, and breaks off
when the database ends under a statement. Here the three storages of a process share one pool, a broken statement is
repeated on a new connection, and run processes wait long: an op must not fail because its log could not be written.
In dagster.yaml, for all processes:
    storage:
      custom:
        module: bonseyes_dagster.orchestration.postgres_storage
        class: PooledPostgresStorage
        config: {postgres_url: postgresql://USER:PASSWORD@HOST/DATABASE}
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import sqlalchemy as db
import yaml
from dagster import Field, IntSource
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData, serialize_value
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

__all__ = ["PooledPostgresStorage", "with_pooled_connections"]

_STOCK = ("dagster_postgres", "DagsterPostgresStorage")
# SQLAlchemy takes the plain name for another driver than the one that dagster-postgres brings.
_DRIVER = "postgresql+psycopg2"
# Of a process; half of them are kept open. Twenty runs, webserver, daemon and pipelines stay below Postgres' 100.
_CONNECTIONS = 10
_RUN_CONNECTIONS = 4
# Somebody waits for an answer, or will ask again; a run has nobody else to go to.
_PATIENCE_S = 6
_RUN_PATIENCE_S = 600
_PAUSE_S = (0.05, 2.0)
# A database whose machine is gone says nothing at all: notice that, too.
_CONNECT_ARGS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "bonseyes",
}


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

    def _is_one_of_several(self) -> bool:
        return "isolation_level" in self.get_execution_options()


class _Database:
    """The pool of this process; a forked one has its own."""

    def __init__(self, url: str, connections: int, patience_s: float) -> None:
        given = make_url(url)
        is_plain = given.drivername in ("postgres", "postgresql")
        self._url = given.set(drivername=_DRIVER) if is_plain else given
        self._connections = connections
        self.patience_s = patience_s
        self._statement_timeout_ms = 0
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._engine: Engine | None = None

    @property
    def url(self) -> str:
        """Return the address, with its password and the name of the driver."""
        return self._url.render_as_string(hide_password=False)

    @property
    def engine(self) -> Engine:
        """Return the pool.

        A forked process leaves the connections to its parent. Not a hook of `os.register_at_fork`: uWSGI forks without
        calling those.
        """
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._pid = os.getpid()
            if self._engine is not None:
                self._engine.dispose(close=False)
                self._engine = None
        with self._lock:
            if self._engine is None:
                self._engine = self._open()
            return self._engine

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
            pool_pre_ping=True,
            connect_args={**_CONNECT_ARGS, **options},
        )

    def limit_statements(self, timeout_ms: int) -> None:
        """Have the server break off statements that take longer."""
        if timeout_ms != self._statement_timeout_ms:
            self._statement_timeout_ms = timeout_ms
            former, self._engine = self._engine, None
            if former is not None:
                former.dispose()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection of the pool; wait for a server that is away."""
        connection = self._connect()
        try:
            yield connection
        finally:
            connection.close()

    def _connect(self) -> Connection:
        patience = _Patience(self.patience_s)
        while True:
            try:
                connection = _PatientConnection(self.engine)
                connection.patience_s = self.patience_s
                return connection
            except (DBAPIError, PoolTimeoutError) as error:
                patience.wait(error)


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
    pass


class _ScheduleStorage(_Pooled, PostgresScheduleStorage):
    pass


class _EventLogStorage(_Pooled, PostgresEventLogStorage):
    def store_event(self, event: EventLogEntry) -> None:
        """Store an event, once: if the connection breaks, nobody knows whether the server has it, so look."""
        patience = _Patience(self.database.patience_s)
        event_id: int | None = None
        while True:
            try:
                event_id = self._insert(event) if event_id is None else event_id
                self._store_what_it_is_about(event, event_id)
                return
            except DBAPIError as error:
                patience.wait(error)
            event_id = event_id or self._find(event)

    def _insert(self, event: EventLogEntry) -> int:
        # The superclass notifies listeners as well, which its readers have long ceased to be.
        statement = self.prepare_insert_event(event).returning(SqlEventLogStorageTable.c.id)
        with self.database.connect() as connection:
            connection.patience_s = 0.0  # type: ignore[attr-defined]
            return int(connection.execute(statement).scalar_one())

    def _find(self, event: EventLogEntry) -> int | None:
        table = SqlEventLogStorageTable.c
        statement = db.select(table.id).where(table.run_id == event.run_id, table.event == serialize_value(event))
        with self.database.connect() as connection:
            found = connection.execute(statement).scalar()
        return None if found is None else int(found)

    def _store_what_it_is_about(self, event: EventLogEntry, event_id: int) -> None:
        """Store what the superclass stores beside an event."""
        about = event.dagster_event
        if about is None:
            return
        if about.event_type in ASSET_EVENTS and about.asset_key:
            with self.index_transaction() as connection:
                self._store_asset_event_tags(connection, [event], [event_id])
                self._store_asset_event(connection, event, event_id)
        if about.event_type in ASSET_CHECK_EVENTS:
            self.store_asset_check_event(event, event_id)


class PooledPostgresStorage(DagsterPostgresStorage):
    """DagsterPostgresStorage over the same tables.

    `connections` is how many this process may have open, `patience_s` how long it waits for a server that is away.
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        connections: int = _CONNECTIONS,
        patience_s: int = _PATIENCE_S,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        # Not the superclass's, which makes its parts by name.
        super(DagsterPostgresStorage, self).__init__()  # type: ignore[no-untyped-call]
        database = _Database(postgres_url, connections, patience_s)
        self.postgres_url = database.url
        self.should_autocreate_tables = should_autocreate_tables
        self._inst_data = inst_data
        self._run_storage = _RunStorage(database, should_autocreate_tables)
        self._event_log_storage = _EventLogStorage(database, should_autocreate_tables)
        self._schedule_storage = _ScheduleStorage(database, should_autocreate_tables)

    @classmethod
    def config_type(cls) -> Any:
        """Describe the configuration: the superclass's and what is ours."""
        inherited: Any = super().config_type()
        return {
            **inherited,
            "connections": Field(IntSource, is_required=False, default_value=_CONNECTIONS),
            "patience_s": Field(IntSource, is_required=False, default_value=_PATIENCE_S),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Make one from dagster.yaml."""
        options = {name: config_value[name] for name in ("connections", "patience_s") if name in config_value}
        url = pg_url_from_config(config_value)
        creates = config_value.get("should_autocreate_tables", True)
        return cls(url, creates, inst_data=inst_data, **options)


def with_pooled_connections(ref: InstanceRef) -> InstanceRef:
    """Return the reference of the same instance for a run process; unchanged unless its storage is in Postgres."""
    ours = (__name__, PooledPostgresStorage.__name__)
    data = ref.storage_data
    if data is None or (data.module_name, data.class_name) not in (_STOCK, ours):
        return ref
    limits = {"connections": _RUN_CONNECTIONS, "patience_s": _RUN_PATIENCE_S}
    # It has tables if it has a run; looking for them would fail while the database is away.
    config = {**yaml.safe_load(data.config_yaml), **limits, "should_autocreate_tables": False}
    return ref._replace(storage_data=ConfigurableClassData(*ours, yaml.safe_dump(config)))
