"""The index: a SQLite table with one row per artifact. It decides races for names, orders the queue and guards phases.

The store, the worker, recovery and the audit use it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import (
    ConflictError,
    NotFinalError,
    NotFoundError,
    QueueFullError,
    StorageFullError,
    UnavailableError,
)
from bonseyes_dagster.model import TERMINAL_PHASES, Phase, now
from bonseyes_dagster.tool.files.disk import allocate, locked

__all__ = [
    "READ_ERRORS",
    "STATUS_COLUMNS",
    "ArtifactRow",
    "Index",
    "IndexDamagedError",
    "TakenError",
    "parse_row",
    "select_rows",
]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS artifacts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT UNIQUE,
    phase TEXT NOT NULL
        CHECK (phase IN ('queued', 'running', 'completed', 'failed', 'cancelled', 'interrupted')),
    reason TEXT,
    created TEXT NOT NULL,
    started TEXT,
    finished TEXT,
    size INTEGER,
    digest TEXT,
    progress TEXT,
    tool TEXT NOT NULL,
    version TEXT NOT NULL,
    parameters TEXT NOT NULL,
    files TEXT NOT NULL,
    inputs TEXT NOT NULL,
    fingerprint TEXT,
    reuse INTEGER NOT NULL DEFAULT 0,
    reused_from TEXT,
    idempotency_key TEXT UNIQUE,
    request_digest TEXT,
    is_cancelling INTEGER NOT NULL DEFAULT 0,
    code_changed INTEGER NOT NULL DEFAULT 0,
    damage TEXT
);
CREATE INDEX IF NOT EXISTS by_phase ON artifacts (phase, seq);
CREATE INDEX IF NOT EXISTS reusable ON artifacts (fingerprint, seq) WHERE phase = 'completed';
CREATE TRIGGER IF NOT EXISTS final_phases_stay BEFORE UPDATE OF phase, reason, finished, size, digest ON artifacts
    WHEN OLD.phase NOT IN ('queued', 'running')
    BEGIN SELECT RAISE(ABORT, 'a final phase never changes'); END;
"""
# An index of an earlier version may lack these columns. Their order here is their order in every index.
_ADDED_COLUMNS = {"code_changed": "INTEGER NOT NULL DEFAULT 0", "damage": "TEXT"}
_FULL_CODES = {sqlite3.SQLITE_FULL}
# SQLite's message about a damaged schema quotes its bytes, and Python may not be able to decode them.
READ_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY_TIMEOUT_S = 30.0
# From 1000 pages on, SQLite restarts its log once no reader needs it. The file never shrinks.
_LOG_BYTES = 6 << 20
# Up to this size `integrity_check` takes milliseconds. Above it a start runs `quick_check`, and audit.py the rest.
_SMALL_BYTES = 1 << 20


class IndexDamagedError(UnavailableError):
    """The index is missing or damaged; the worker's next start rebuilds it."""


class TakenError(Exception):
    """Another artifact has the name or the idempotency key; the caller finds out which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRow:
    """One row of the index, with its JSON columns parsed. `name` is None from its deletion until its process ends."""

    seq: int = 0
    id: str
    name: str | None
    phase: Phase = "queued"
    reason: str | None = None
    created: str = ""
    started: str | None = None
    finished: str | None = None
    size: int | None = None
    digest: str | None = None
    progress: Mapping[str, Any] | None = None
    tool: str
    version: str
    parameters: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    inputs: Mapping[str, Mapping[str, Any]]
    fingerprint: str | None = None
    reuse: bool = False
    reused_from: str | None = None
    idempotency_key: str | None = None
    request_digest: str | None = None
    is_cancelling: bool = False
    code_changed: bool = False
    damage: str | None = None
    """How the published files differ from the digest, once a check has found it."""


_JSON = frozenset({"parameters", "files", "inputs", "progress"})
_BOOLEAN = frozenset({"reuse", "is_cancelling", "code_changed"})
_COLUMNS = tuple(f.name for f in fields(ArtifactRow))
_IS_JSON = " AND ".join(f"({name} IS NULL OR json_valid({name}))" for name in sorted(_JSON))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM artifacts"  # noqa: S608 - the names of a dataclass
# The columns that a list needs; the long JSON columns are neither read nor parsed for it.
STATUS_COLUMNS = (
    "id",
    "name",
    "phase",
    "reason",
    "created",
    "started",
    "finished",
    "size",
    "digest",
    "progress",
    "reused_from",
    "code_changed",
    "damage",
)


def parse_row(columns: Sequence[Any]) -> ArtifactRow:
    """Return the row with these columns, in the order of the table; texts are str or bytes. Raise ValueError."""
    texts = [value.decode() if isinstance(value, bytes) else value for value in columns]
    values: dict[str, Any] = dict(zip(_COLUMNS, texts, strict=True))
    for key in _JSON:
        values[key] = json.loads(values[key]) if values[key] is not None else None
    for key in _BOOLEAN:
        values[key] = bool(values[key])
    return ArtifactRow(**values)


def _parsed(columns: tuple[Any, ...]) -> ArtifactRow:
    try:
        return parse_row(columns)
    except ValueError as error:
        raise UnavailableError(f"The row of the artifact with the number {columns[0]} is damaged: {error}.") from error


def select_rows(connection: sqlite3.Connection) -> str | None:
    """Return the SELECT for all columns of an ArtifactRow, also from an older index; None without a table."""
    try:
        names = _column_types(connection)
    except READ_ERRORS:
        return None
    if "seq" not in names:
        return None
    columns = ", ".join(name if name in names else f"NULL AS {name}" for name in _COLUMNS)
    return f"SELECT {columns} FROM artifacts"  # noqa: S608 - the names of a dataclass


def _column_types(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the types of the table's columns by name; bytes that are no UTF-8 are replaced."""
    columns = connection.execute("SELECT CAST(name AS BLOB), CAST(type AS BLOB) FROM pragma_table_info('artifacts')")
    return {name.decode(errors="replace"): type_.decode(errors="replace") for name, type_ in columns}


def _fetch(connection: sqlite3.Connection, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return all rows. Damaged text is decoded as far as possible, so that it hides no other row."""
    try:
        return connection.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error).lower():
            raise
        connection.text_factory = lambda text: text.decode(errors="replace")
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.text_factory = str


def _progress(text: str | None) -> Any:
    with suppress(ValueError):
        return json.loads(text) if text else None
    return None


def _column_values(row: ArtifactRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _COLUMNS}
    for key in _JSON:
        values[key] = json.dumps(values[key]) if values[key] is not None else None
    del values["seq"]
    return values


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except READ_ERRORS as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _FULL_CODES:
            raise StorageFullError("The volume is full; delete artifacts that are no longer needed.") from error
        if code in _DAMAGE_CODES or isinstance(error, UnicodeDecodeError):
            raise IndexDamagedError(f"The index of artifacts is damaged ({error}); it is being rebuilt.") from error
        raise UnavailableError(f"The index of artifacts cannot be used: {error}.") from error


def _fault_of_columns(connection: sqlite3.Connection) -> str | None:
    """Check the definition of the table: a flipped byte gives a column another name or type."""
    there = _column_types(connection)
    if not there:
        return "has no table of artifacts"
    missing = sorted({*_COLUMNS} - {*_ADDED_COLUMNS} - there.keys())
    if missing:
        return f"is damaged (its table has no column {missing[0]})"
    with closing(sqlite3.connect(":memory:")) as sound:
        sound.executescript(_SCHEMA)
        wrong = sorted(name for name, type_ in _column_types(sound).items() if there.get(name, type_) != type_)
    return f"is damaged (its column {wrong[0]} has the type {there[wrong[0]]})" if wrong else None


def _fault_of_rows(connection: sqlite3.Connection) -> str | None:
    """Check the values, which the checks of SQLite leave out. Rows of the queue have no copy, so they are parsed."""
    select = select_rows(connection)
    connection.text_factory = bytes
    try:
        for row in connection.execute(f"{select} WHERE phase IN ('queued', 'running')"):
            parse_row(row)
    except ValueError as error:
        return f"is damaged (a row of the queue cannot be read: {error})"
    finally:
        connection.text_factory = str
    try:
        # This decodes each text: 30 ms for 10,000 rows.
        for _ in connection.execute(f"{select}"):
            pass
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) is not None:
            raise
        return f"is damaged (a row cannot be read: {error})"
    # SQLite's check of JSON is fast, but stricter than Python's: it refuses infinity, which an earlier version wrote.
    # So parse only the rows that SQLite refuses.
    for row in connection.execute(f"{select} WHERE NOT ({_IS_JSON})"):
        try:
            parse_row(row)
        except ValueError as error:
            return f"is damaged (the row with the number {row[0]} cannot be read: {error})"
    return None


def _add_columns(connection: sqlite3.Connection) -> None:
    # One transaction, because the worker and the servers may start at the same time.
    connection.execute("BEGIN IMMEDIATE")
    known = _column_types(connection)
    for name, kind in _ADDED_COLUMNS.items():
        if name not in known:
            connection.execute(f"ALTER TABLE artifacts ADD COLUMN {name} {kind}")
    connection.execute("COMMIT")


class _Connections(threading.local):
    """The connection of one thread of one process. SQLite forbids using a connection after a fork."""

    pid: int = 0
    inode: int = 0
    connection: sqlite3.Connection | None = None


class Index:
    """All rows. Any thread of any process may use it. Every write is durable when its method returns."""

    def __init__(self, path: Path, *, is_alone: bool = False) -> None:
        """Open no file yet. With `is_alone` no other process uses the file, or the caller keeps them out by a lock."""
        self._path = path
        self._is_alone = is_alone
        self._own = _Connections()
        # A forked child must not close a connection of its parent: that would change the parent's files.
        self._inherited: list[sqlite3.Connection] = []

    def _connection(self) -> sqlite3.Connection:
        own, inode = self._own, self._inode()
        if own.connection is None or own.pid != os.getpid() or own.inode != inode:
            if own.connection is not None:
                # Nor may it close a connection whose file was replaced: SQLite would use the log of the new file.
                self._inherited.append(own.connection)
            own.connection = self._connect()
            own.pid, own.inode = os.getpid(), inode
        return own.connection

    def _inode(self) -> int:
        """Return the inode of the index; it changes when the index is rebuilt."""
        try:
            return self._path.stat().st_ino
        except FileNotFoundError as error:
            raise IndexDamagedError("The index of artifacts is missing; it is being rebuilt.") from error

    def _connect(self, *, mode: str = "rw") -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with _translated():
            yield self._connection()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock_against_replacement(), _translated():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _lock_against_replacement(self) -> Iterator[None]:
        """Prevent the replacement of the file while the block writes to it."""
        with ExitStack() as stack:
            if not self._is_alone:
                try:
                    stack.enter_context(locked(self._path.parent, exclusively=False))
                except OSError as error:
                    raise UnavailableError(f"The index of artifacts cannot be used: {error.strerror}.") from error
            yield

    def make(self) -> None:
        """Make missing tables and columns. No connection stays open, so a server may fork afterwards."""
        with _translated(), closing(self._connect(mode="rwc")) as connection:
            connection.executescript(_SCHEMA)
            _add_columns(connection)

    def fault(self) -> str | None:
        """Return the fault of the file as the end of a sentence "the index ...", or None if it is usable."""
        if not self._path.exists():
            return "is missing"
        if self._path.stat().st_size == 0:
            return "is empty"
        try:
            with _translated(), closing(self._connect()) as connection:
                is_small = self._path.stat().st_size <= _SMALL_BYTES
                check = "integrity_check" if is_small else "quick_check"
                found = [str(row[0]) for row in connection.execute(f"PRAGMA {check}(1)")]
                if found != ["ok"]:
                    return f"is damaged ({' '.join(found)[:200]})"
                return _fault_of_columns(connection) or _fault_of_rows(connection)
        except IndexDamagedError as error:
            return f"is damaged ({error.__cause__})"

    def last_seq(self) -> int:
        """Return the highest number that a row has ever had."""
        with self._reading() as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'artifacts'").fetchone()
        return int(row[0]) if row else 0

    def number_above(self, seq: int) -> int:
        """Number all later rows higher than `seq`; return the highest number that counts as used now."""
        with self._writing() as connection:
            return self._take_number(connection, above=seq)

    @staticmethod
    def _take_number(connection: sqlite3.Connection, *, above: int = 0) -> int:
        """Use up the next number, or the first one above `above`, and return it."""
        query = "UPDATE sqlite_sequence SET seq = max(seq, ?) + 1 WHERE name = 'artifacts' RETURNING seq"
        rows = connection.execute(query, (above,)).fetchall()
        if not rows:
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('artifacts', ?)", (above + 1,))
        return int(rows[0][0]) if rows else above + 1

    def check(self) -> None:
        """Raise UnavailableError when the index cannot be read."""
        with self._reading() as connection:
            connection.execute("SELECT 1 FROM artifacts LIMIT 1").fetchone()

    # Creating

    def insert(self, row: ArtifactRow, *, queue_limit: int) -> int:
        """Add a row and return its number.

        Raises TakenError if the name or key is in use, QueueFullError if `queue_limit` artifacts wait already.
        """
        values = _column_values(row)
        names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        try:
            with self._writing() as connection:
                if row.phase == "queued" and self._count_queued(connection) >= queue_limit:
                    raise QueueFullError(f"{queue_limit} artifacts are waiting already; try again later.")
                added = connection.execute(f"INSERT INTO artifacts ({names}) VALUES ({marks})", values)  # noqa: S608
                seq = added.lastrowid or 0
        except sqlite3.IntegrityError as error:
            raise TakenError(str(error)) from error
        return seq

    def put(self, row: ArtifactRow, *, if_there: bool = False) -> bool:
        """Write a row as it is, and replace the row with its id; raise TakenError if the name or key is in use.

        The row keeps its number if that is free. With `if_there`, the method needs a row with that id that is not
        deleted. Without one it writes nothing and returns False.
        """
        values = _column_values(row)
        try:
            with self._writing() as connection:
                named = "SELECT 1 FROM artifacts WHERE id = ? AND name IS NOT NULL"
                if if_there and connection.execute(named, (row.id,)).fetchone() is None:
                    return False
                connection.execute("DELETE FROM artifacts WHERE id = ?", (row.id,))
                found = connection.execute("SELECT 1 FROM artifacts WHERE seq = ?", (row.seq,)).fetchone()
                values["seq"] = row.seq if row.seq > 0 and found is None else None
                names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
                connection.execute(f"INSERT INTO artifacts ({names}) VALUES ({marks})", values)  # noqa: S608
        except sqlite3.IntegrityError as error:
            raise TakenError(str(error)) from error
        return True

    @contextmanager
    def without_sync(self) -> Iterator[None]:
        """Write without syncs while the block runs; the caller syncs the file."""
        connection = self._connection()
        connection.execute("PRAGMA synchronous=OFF")
        yield
        connection.execute("PRAGMA synchronous=FULL")

    def mark_damaged(self, artifact_id: str, damage: str) -> None:
        """Save in the row how the published files are damaged; the artifact is not re-used any more."""
        with self._writing() as connection:
            connection.execute("UPDATE artifacts SET damage = ? WHERE id = ?", (damage, artifact_id))

    def undo_failed_write(self) -> bool:
        """Undo a write that just failed, also for a later crash; tell whether that succeeded.

        SQLite may have written the data behind the end of its log without a sync. After a crash it would read the data
        as part of the log.
        """
        try:
            with self._lock_against_replacement(), self._reading() as connection:
                # Any write overwrites that place in the log; this one changes nothing.
                connection.execute("PRAGMA user_version = 0")
        except (StorageFullError, UnavailableError):
            return False
        return True

    @staticmethod
    def _count_queued(connection: sqlite3.Connection) -> int:
        query = "SELECT count(*) FROM artifacts WHERE phase = 'queued'"
        return int(connection.execute(query).fetchone()[0])

    # Reading

    def get(self, name: str) -> ArtifactRow:
        """Return the row of `name`; raise NotFoundError."""
        found = self._find("name = ?", name)
        if found is None:
            raise NotFoundError(f"There is no artifact {name!r}.")
        return found

    def by_key(self, idempotency_key: str) -> ArtifactRow | None:
        """Return the row that was created with this idempotency key."""
        return self._find("idempotency_key = ?", idempotency_key)

    def by_id(self, artifact_id: str) -> ArtifactRow | None:
        """Return the row of an id, also if the artifact is deleted but its folder still exists."""
        return self._find("id = ?", artifact_id)

    def reusable(self, fingerprint: str) -> ArtifactRow | None:
        """Return the newest undamaged artifact with this fingerprint whose code did not change while it was made."""
        return self._find(
            "fingerprint = ? AND phase = 'completed' AND name IS NOT NULL AND NOT code_changed AND damage IS NULL "
            "ORDER BY seq DESC LIMIT 1",
            fingerprint,
        )

    def _find(self, where: str, value: str) -> ArtifactRow | None:
        with self._reading() as connection:
            rows = _fetch(connection, f"{_SELECT} WHERE {where}", (value,))
        return _parsed(rows[0]) if rows else None

    def has_name(self, name: str) -> bool:
        """Tell whether an artifact has that name."""
        try:
            self.phase(name)
        except NotFoundError:
            return False
        return True

    def phase(self, name: str) -> tuple[str, Phase]:
        """Return (id, phase) of `name`: waiting readers ask for these often."""
        with self._reading() as connection:
            row = connection.execute("SELECT id, phase FROM artifacts WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no artifact {name!r}.")
        return row[0], row[1]

    def phase_of(self, artifact_id: str) -> Phase | None:
        """Return the phase of an id; None once it is deleted."""
        query = "SELECT phase FROM artifacts WHERE id = ? AND name IS NOT NULL"
        with self._reading() as connection:
            row = connection.execute(query, (artifact_id,)).fetchone()
        return row[0] if row else None

    def final_among(self, names: Collection[str]) -> set[str]:
        """Return those of `names` that are final or do not exist."""
        marks = ", ".join("?" * len(names))
        query = f"SELECT name FROM artifacts WHERE phase IN ('queued', 'running') AND name IN ({marks})"  # noqa: S608
        with self._reading() as connection:
            return {*names} - {row[0] for row in connection.execute(query, tuple(names))}

    def published(self, name: str) -> tuple[str, Phase, str | None]:
        """Return (id, phase, digest) of `name`."""
        with self._reading() as connection:
            row = connection.execute("SELECT id, phase, digest FROM artifacts WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no artifact {name!r}.")
        return row[0], row[1], row[2]

    def names(self, *, limit: int | None, after: str | None) -> list[str]:
        """Return at most `limit` names, oldest first, from the one after the name `after` on."""
        with self._reading() as connection:
            query = "SELECT name FROM artifacts WHERE name IS NOT NULL AND seq > ? ORDER BY seq LIMIT ?"
            arguments = (self._seq(connection, after), -1 if limit is None else limit)
            return [row[0] for row in _fetch(connection, query, arguments)]

    def status_page(self, *, limit: int | None, after: str | None) -> list[dict[str, Any]]:
        """Return the status columns of the same page as `names`, with the `position` of those in the queue."""
        with self._reading() as connection:
            query = (
                f"SELECT {', '.join(STATUS_COLUMNS)}, seq FROM artifacts "  # noqa: S608
                "WHERE name IS NOT NULL AND seq > ? ORDER BY seq LIMIT ?"
            )
            arguments = (self._seq(connection, after), -1 if limit is None else limit)
            rows = [
                dict(zip((*STATUS_COLUMNS, "seq"), row, strict=True)) for row in _fetch(connection, query, arguments)
            ]
            first = next((row["seq"] for row in rows if row["phase"] == "queued"), None)
            position = self._position(connection, first) if first is not None else 0
        for row in rows:
            row["progress"] = _progress(row["progress"])
            row["position"] = None
            if row["phase"] == "queued":
                row["position"] = position
                position += 1
        return rows

    @staticmethod
    def _seq(connection: sqlite3.Connection, after: str | None) -> int:
        if after is None:
            return 0
        row = connection.execute("SELECT seq FROM artifacts WHERE name = ?", (after,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no artifact {after!r} to list from.")
        return int(row[0])

    @staticmethod
    def _position(connection: sqlite3.Connection, seq: int) -> int:
        query = "SELECT count(*) FROM artifacts WHERE phase = 'queued' AND seq <= ?"
        return int(connection.execute(query, (seq,)).fetchone()[0])

    def position(self, seq: int) -> int:
        """Return the place in the queue, 1 for the next one."""
        with self._reading() as connection:
            return self._position(connection, seq)

    def counts(self) -> dict[str, int]:
        """Return how many artifacts are in each phase."""
        with self._reading() as connection:
            return dict(connection.execute("SELECT phase, count(*) FROM artifacts GROUP BY phase"))

    def ids(self) -> set[str]:
        """Return the ids of all rows."""
        with self._reading() as connection:
            return {row[0] for row in connection.execute("SELECT id FROM artifacts")}

    def running_rows(self) -> list[ArtifactRow]:
        """Return the rows that are running, deleted ones included."""
        with self._reading() as connection:
            return [_parsed(row) for row in _fetch(connection, f"{_SELECT} WHERE phase = 'running'", ())]

    def queued_ids(self) -> list[str]:
        """Return the ids of the rows that are queued."""
        with self._reading() as connection:
            return [row[0] for row in connection.execute("SELECT id FROM artifacts WHERE phase = 'queued'")]

    def final_after(self, seq: int, limit: int) -> list[tuple[int, str]]:
        """Return (number, id) of at most `limit` rows after the number `seq` that are final and not deleted."""
        where = "WHERE seq > ? AND name IS NOT NULL AND phase NOT IN ('queued', 'running') ORDER BY seq LIMIT ?"
        with self._reading() as connection:
            return _fetch(connection, f"SELECT seq, id FROM artifacts {where}", (seq, limit))  # noqa: S608

    def repair_search_trees(self) -> str | None:
        """Build SQLite's search trees anew if they differ from the rows; return the difference."""
        with self._reading() as connection:
            found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
        if found == "ok":
            return None
        with self._writing() as connection:
            connection.execute("REINDEX")
        return found

    def deleted_ids(self) -> list[str]:
        """Return the ids of deleted artifacts whose row still exists and that do not run."""
        query = "SELECT id FROM artifacts WHERE name IS NULL AND phase != 'running'"
        with self._reading() as connection:
            return [row[0] for row in connection.execute(query)]

    def close(self) -> None:
        """Close the connection of this thread."""
        if self._own.connection is not None:
            self._own.connection.close()
            self._own.connection = None

    # The worker's steps

    def claim(self) -> ArtifactRow | None:
        """Set the first artifact of the queue to running and return its row; durable once `log_file` is synced."""
        with self._lock_against_replacement(), self._reading() as connection:
            # Without a wait for the disk here, the sync can happen while the child starts.
            connection.execute("PRAGMA synchronous=NORMAL")
            try:
                # One statement is atomic, and it writes nothing if the queue is empty.
                rows = connection.execute(
                    "UPDATE artifacts SET phase = 'running', started = ? "  # noqa: S608
                    "WHERE seq = (SELECT min(seq) FROM artifacts WHERE phase = 'queued') "
                    f"RETURNING {', '.join(_COLUMNS)}",
                    (now(),),
                ).fetchall()
            finally:
                connection.execute("PRAGMA synchronous=FULL")
        if not rows:
            return None
        try:
            return _parsed(rows[0])
        except UnavailableError as error:
            self.finish(str(rows[0][_COLUMNS.index("id")]), "failed", reason=error.message)
            raise

    def log_file(self) -> Path:
        """Return SQLite's log file: a sync of it makes the latest writes durable."""
        return self._path.with_name(f"{self._path.name}-wal")

    def allocate_log(self) -> None:
        """Allocate disk space for SQLite's log, so that artifacts can end and be deleted on a full volume."""
        self.check()
        allocate(self.log_file(), _LOG_BYTES)

    def finish(self, artifact_id: str, phase: Phase, **values: Any) -> None:
        """Write a final phase, and with it `reason`, `size`, `digest`, `progress`, `files`, `fingerprint`, ..."""
        values = {"phase": phase, "finished": now(), **values}
        for key in _JSON & values.keys():
            values[key] = json.dumps(values[key]) if values[key] is not None else None
        changes = ", ".join(f"{name} = :{name}" for name in values)
        with self._writing() as connection:
            connection.execute(
                f"UPDATE artifacts SET {changes} WHERE id = :id AND phase IN ('queued', 'running')",  # noqa: S608
                {**values, "id": artifact_id},
            )

    def is_cancelling(self, artifact_id: str) -> bool:
        """Tell whether a client has asked for the end of the artifact."""
        with self._reading() as connection:
            row = connection.execute("SELECT is_cancelling FROM artifacts WHERE id = ?", (artifact_id,)).fetchone()
        # If there is no row, the index was replaced: go on, the rebuilt index gets the row back from the folder.
        return row is not None and bool(row[0])

    # Ending

    def cancel(self, name: str) -> None:
        """Cancel an artifact in the queue at once; ask a running one to end; leave a final one as it is."""
        with self._writing() as connection:
            row = connection.execute("SELECT id, phase FROM artifacts WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise NotFoundError(f"There is no artifact {name!r}.")
            if row[1] == "queued":
                change = "phase = 'cancelled', reason = 'Cancelled while it waited in the queue.', finished = ?"
                connection.execute(f"UPDATE artifacts SET {change} WHERE id = ?", (now(), row[0]))  # noqa: S608
            elif row[1] == "running":
                connection.execute("UPDATE artifacts SET is_cancelling = 1 WHERE id = ?", (row[0],))

    def hide(self, name: str) -> tuple[str, bool, int]:
        """Delete `name` for every reader; return (id, whether it still runs so that the worker must end it, mark).

        A deletion uses up a number, as a creation does. The number is the mark, and shows later that a restored index
        is older.
        """
        with self._writing() as connection:
            row = connection.execute("SELECT id, phase FROM artifacts WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise NotFoundError(f"There is no artifact {name!r}.")
            mark = self._take_number(connection)
            if row[1] == "queued":
                connection.execute("DELETE FROM artifacts WHERE id = ?", (row[0],))
                return row[0], False, mark
            # The row stays, without a name, until the folder is removed: a folder without a row counts as lost.
            connection.execute(
                "UPDATE artifacts SET name = NULL, idempotency_key = NULL, is_cancelling = 1 WHERE id = ?", (row[0],)
            )
            return row[0], row[1] == "running", mark

    def rename(self, name: str, new_name: str, write_copies: Callable[[Sequence[ArtifactRow]], None]) -> ArtifactRow:
        """Rename a final artifact, free its idempotency key, and return its new row.

        Artifacts that re-use it get its new name as `reused_from`. `write_copies` makes the copies of all changed rows
        durable. It is called before the commit, so a crash leaves no row newer than its copy.
        """
        with self._writing() as connection:
            found = connection.execute(f"{_SELECT} WHERE name = ?", (name,)).fetchone()
            if found is None:
                raise NotFoundError(f"There is no artifact {name!r}.")
            row = replace(_parsed(found), name=new_name, idempotency_key=None)
            if row.phase not in TERMINAL_PHASES:
                raise NotFinalError(f"The artifact {name!r} is {row.phase}; cancel it, or wait until it has ended.")
            if name == new_name:
                return _parsed(found)
            if connection.execute("SELECT 1 FROM artifacts WHERE name = ?", (new_name,)).fetchone():
                raise ConflictError(f"There is an artifact {new_name!r} already; choose another name.")
            connection.execute("UPDATE artifacts SET name = ?, idempotency_key = NULL WHERE id = ?", (new_name, row.id))
            # Compare fingerprint and time, because another artifact may have had the name before.
            changed = connection.execute(
                "UPDATE artifacts SET reused_from = ? "  # noqa: S608 - the names of a dataclass
                "WHERE fingerprint = ? AND phase = 'completed' AND finished >= ? AND reused_from = ? "
                f"RETURNING {', '.join(_COLUMNS)}",
                (new_name, row.fingerprint, row.finished, name),
            ).fetchall()
            write_copies([row, *map(_parsed, changed)])
        return row

    def is_deleted(self, artifact_id: str) -> bool:
        """Tell whether an artifact was deleted."""
        with self._reading() as connection:
            row = connection.execute("SELECT name FROM artifacts WHERE id = ?", (artifact_id,)).fetchone()
        return row is not None and row[0] is None

    def remove(self, *artifact_ids: str) -> None:
        """Remove the rows of deleted artifacts whose processes and folders no longer exist."""
        with self._writing() as connection:
            connection.executemany("DELETE FROM artifacts WHERE id = ?", [(each,) for each in artifact_ids])
