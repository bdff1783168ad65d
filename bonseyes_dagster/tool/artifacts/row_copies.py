"""The copy of a row, the file `row.json` in the folder of the artifact: a lost index is rebuilt from the copies."""

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
from bonseyes_dagster.tool.artifacts.index import ArtifactRow
from bonseyes_dagster.tool.artifacts.layout import Folder
from bonseyes_dagster.tool.files.disk import sync_all
from bonseyes_dagster.urls import is_name

__all__ = [
    "RowDamagedError",
    "check_row",
    "encode_row_copy",
    "read_row_copy",
    "read_sound_row_copy",
    "rewrite_row_copy",
    "write_row_copy",
]

_log = logging.getLogger(__name__)
_PHASES = frozenset(get_args(Phase))
_ID = re.compile(r"[0-9a-f]{32}")
_TEXTS = ("id", "created", "tool", "version")
_OBJECTS = ("parameters", "files", "inputs")
_MAYBE_TEXTS = ("reason", "started", "finished", "digest", "fingerprint", "idempotency_key", "request_digest")


class RowDamagedError(ValueError):
    """The content is damaged: it is not a row as this module writes it."""


def encode_row_copy(row: ArtifactRow) -> bytes:
    """Return the content of the copy: the row as a JSON object, and its sha256, which shows damage."""
    columns = {field.name: getattr(row, field.name) for field in fields(ArtifactRow)}
    return json.dumps({"sha256": _digest(columns), "row": columns}).encode()


def _digest(columns: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(columns, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_row_copy(folder: Folder, row: ArtifactRow) -> None:
    """Write the copy as a new file, which replaces an old copy or a link to the copy of another artifact.

    The disk starts to write the file here. It becomes durable with the next sync on the file system, which includes its
    blocks (ext4, XFS), or soon after. A separate sync would take a tenth of the time of a small artifact, and the index
    is durable anyway.
    """
    temporary = folder.row_copy.with_name(f".{folder.row_copy.name}.new")
    content = encode_row_copy(row)
    with temporary.open("wb", buffering=0) as file:
        file.write(content)
        start_writing(file.fileno(), 0, len(content))
    temporary.replace(folder.row_copy)


def rewrite_row_copy(folder: Folder, row: ArtifactRow) -> None:
    """Write the copy anew and sync it."""
    write_row_copy(folder, row)
    sync_all([folder.row_copy, folder.path])


def read_row_copy(folder: Folder) -> ArtifactRow | None:
    """Return the copy, or None if there is no file; raise RowDamagedError."""
    try:
        body = json.loads(folder.row_copy.read_bytes())
        columns = body["row"]
        if body["sha256"] != _digest(columns):
            raise RowDamagedError(f"{folder.row_copy} does not have the digest in it.")
        known = {field.name for field in fields(ArtifactRow)}
        row = ArtifactRow(**{key: value for key, value in columns.items() if key in known})
        check_row(row)
    except FileNotFoundError:
        return None
    except RowDamagedError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RowDamagedError(f"{folder.row_copy} cannot be read: {error}.") from error
    if row.id != folder.id:
        raise RowDamagedError(f"{folder.row_copy} is the row of another artifact, {row.id}.")
    return replace(row, is_cancelling=False)


def read_sound_row_copy(folder: Folder) -> ArtifactRow | None:
    """Return the copy, or None if there is no file or it is damaged; the log names a damaged one."""
    try:
        return read_row_copy(folder)
    except RowDamagedError as error:
        _log.error("The copy of a row is damaged: %s", error)
        return None


def check_row(row: ArtifactRow) -> None:
    """Raise RowDamagedError for values that no row can have."""
    if row.phase not in _PHASES:
        raise RowDamagedError(f"There is no phase {row.phase!r}.")
    if row.name is not None and not (isinstance(row.name, str) and is_name(row.name)):
        raise RowDamagedError(f"{row.name!r} is no valid name.")
    if not (isinstance(row.id, str) and _ID.fullmatch(row.id)):
        raise RowDamagedError(f"{row.id!r} is no valid id.")
    texts = [getattr(row, key) for key in _TEXTS]
    texts += [getattr(row, key) or "" for key in _MAYBE_TEXTS]
    if not all(isinstance(text, str) for text in texts):
        raise RowDamagedError(f"The row of {row.id!r} has a column that is no text, but must be.")
    if not all(isinstance(getattr(row, key), Mapping) for key in _OBJECTS):
        raise RowDamagedError(f"The row of {row.id!r} has a column that is no object, but must be.")
    if not all(value is None or isinstance(value, int) for value in (row.seq, row.size)):
        raise RowDamagedError(f"The row of {row.id!r} has a column that is no number, but must be.")
