"""The copy of a row that lies beside what it describes: from it the index is made again when it is lost."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_args

from bonseyes_dagster.model import Phase
from bonseyes_dagster.system.storage import start_writing
from bonseyes_dagster.tool.artifacts.index import Record
from bonseyes_dagster.tool.artifacts.layout import Folder
from bonseyes_dagster.tool.files.disk import sync_all
from bonseyes_dagster.urls import is_name

__all__ = ["RowDamagedError", "check_record", "encode_row", "read_row", "read_sound_row", "rewrite_row", "write_row"]

_log = logging.getLogger(__name__)
_PHASES = frozenset(get_args(Phase))
_ID = re.compile(r"[0-9a-f]{32}")
_TEXTS = ("id", "created", "tool", "version")
_OBJECTS = ("parameters", "files", "inputs")
_MAYBE_TEXTS = ("reason", "started", "finished", "digest", "fingerprint", "idempotency_key", "request_digest")


class RowDamagedError(ValueError):
    """What was read is not a row as it was written."""


def encode_row(record: Record) -> bytes:
    """Return the content of the copy: the row as a JSON object, and the sha256 by which damage is seen."""
    row = {field.name: getattr(record, field.name) for field in fields(Record)}
    return json.dumps({"sha256": _digest(row), "row": row}).encode()


def _digest(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_row(folder: Folder, record: Record) -> None:
    """Put the copy in its folder as a file of its own, also where a link to another artifact's copy lies.

    The disk begins to write it here. It is durable with the next sync on the file system, which takes its blocks along
    (ext4, XFS), or soon after: a sync of its own would cost a tenth of a small artifact, and the index is durable.
    """
    temporary = folder.row.with_name(f".{folder.row.name}.new")
    content = encode_row(record)
    with temporary.open("wb", buffering=0) as file:
        file.write(content)
        start_writing(file.fileno(), 0, len(content))
    temporary.replace(folder.row)


def rewrite_row(folder: Folder, record: Record) -> None:
    """Write the copy anew, durably."""
    write_row(folder, record)
    sync_all([folder.row, folder.path])


def read_row(folder: Folder) -> Record | None:
    """Return the copy; None where there is none. Raises RowDamagedError."""
    try:
        body = json.loads(folder.row.read_bytes())
        row = body["row"]
        if body["sha256"] != _digest(row):
            raise RowDamagedError(f"{folder.row} does not have its own digest")
        known = {field.name for field in fields(Record)}
        record = Record(**{key: value for key, value in row.items() if key in known})
        check_record(record)
    except FileNotFoundError:
        return None
    except RowDamagedError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RowDamagedError(f"{folder.row} cannot be read: {error}") from error
    if record.id != folder.id:
        raise RowDamagedError(f"{folder.row} is the row of another artifact, {record.id}")
    return replace(record, is_cancelling=False)


def read_sound_row(folder: Folder) -> Record | None:
    """Return the copy; None where there is none, or a damaged one, which the log names."""
    try:
        return read_row(folder)
    except RowDamagedError as error:
        _log.error("the copy of a row is damaged: %s", error)
        return None


def check_record(record: Record) -> None:
    """Raise RowDamagedError for values that no row can have."""
    if record.phase not in _PHASES:
        raise RowDamagedError(f"there is no phase {record.phase!r}")
    if record.name is not None and not (isinstance(record.name, str) and is_name(record.name)):
        raise RowDamagedError(f"{record.name!r} is no name")
    if not (isinstance(record.id, str) and _ID.fullmatch(record.id)):
        raise RowDamagedError(f"{record.id!r} is no id")
    texts = [getattr(record, key) for key in _TEXTS]
    texts += [getattr(record, key) or "" for key in _MAYBE_TEXTS]
    if not all(isinstance(text, str) for text in texts):
        raise RowDamagedError(f"the row of {record.id!r} has something else where text belongs")
    if not all(isinstance(getattr(record, key), Mapping) for key in _OBJECTS):
        raise RowDamagedError(f"the row of {record.id!r} has something else where an object belongs")
    if not all(value is None or isinstance(value, int) for value in (record.seq, record.size)):
        raise RowDamagedError(f"the row of {record.id!r} has something else where a number belongs")
