"""Stores the output values of ops, as text in the run's event log or as files in DAGSTER_HOME.

references.py calls it. A loaded value is equal to the stored one and has the same type, as with Dagster's
`fs_io_manager`:

- A small value that JSON restores exactly is in the event log.
- Any other value (a tuple, a dict with integers as keys, an object, a large list) is pickled into
  `DAGSTER_HOME/storage/RUN/STEP/OUTPUT.pickle`. The event log has the digest of the file. A file with another digest is
  not loaded, because loading a pickle executes code in it.
"""

import contextlib
import hashlib
import json
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dagster import DagsterInstance, DagsterInvariantViolationError

from bonseyes_dagster.system.replacing import replacing

__all__ = [
    "MAX_LOGGED_CHARACTERS",
    "OutputPlace",
    "delete_values_set_aside",
    "load_value",
    "set_values_aside",
    "store_value",
]

# A larger value would slow down every reader of the run's events.
MAX_LOGGED_CHARACTERS = 4096
# The prefix of a folder that is being removed; the id of the run follows.
_DELETED_PREFIX = ".deleted-"


@dataclass(frozen=True)
class OutputPlace:
    """One output of one step of one run; the values of a dynamic output differ in `mapping_key`."""

    run_id: str
    step_key: str
    output: str
    mapping_key: str | None

    def __str__(self) -> str:
        """Return the name of the output in messages."""
        return f"the output {self._value!r} of the op {self.step_key!r}"

    @property
    def _value(self) -> str:
        return f"{self.output}[{self.mapping_key}]" if self.mapping_key else self.output

    def file(self, storage: Path) -> Path:
        """Return the file for a pickled value of this output."""
        return storage / self.run_id / self.step_key / f"{self._value}.pickle"


def store_value(value: object, place: OutputPlace, storage: Path) -> dict[str, Any]:
    """Store a value; return the entry for the event log, from which `load_value` loads the value."""
    text = _exact_json(value)
    return {"json": text} if text is not None else {"pickle": _write(value, place, storage)}


def load_value(kept: Mapping[str, Any], place: OutputPlace, storage: Path) -> object:
    """Return a value that `store_value` has stored, as a new object on each call."""
    if "json" in kept:
        return json.loads(kept["json"])
    if "pickle" in kept:
        return _read(kept["pickle"]["sha256"], place, storage)
    return kept["value"]  # from the logs of older runs


def set_values_aside(instance: DagsterInstance, run_id: str) -> None:
    """Rename the folder of the output values of a run that is being deleted; any IO manager may have written them."""
    storage = Path(instance.storage_directory())
    deleted = storage / f"{_DELETED_PREFIX}{run_id}"
    if deleted.exists():  # of an earlier run with this id
        shutil.rmtree(deleted, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        (storage / run_id).rename(deleted)


def delete_values_set_aside(instance: DagsterInstance, run_id: str | None = None) -> None:
    """Remove the folders that were set aside, of one run or of all runs."""
    storage = Path(instance.storage_directory())
    for deleted in storage.glob(f"{_DELETED_PREFIX}*") if run_id is None else [storage / f"{_DELETED_PREFIX}{run_id}"]:
        shutil.rmtree(deleted, ignore_errors=True)


def _exact_json(value: object) -> str | None:
    """Return a small value as JSON, or None if JSON would not restore it exactly."""
    if not _is_small_and_plain(value):
        return None
    try:
        text = json.dumps(value, allow_nan=False)
        # JSON joins the two halves of a surrogate pair.
        return text if len(text) <= MAX_LOGGED_CHARACTERS and json.loads(text) == value else None
    except (ValueError, RecursionError):  # NaN, an integer with more digits than Python parses, or deep nesting
        return None


def _is_small_and_plain(value: object) -> bool:
    """Tell whether a value has few parts, each of exactly a type that JSON has, and no cycle."""
    parts: list[Any] = [value]
    for part in parts:
        kind = type(part)
        if kind in (list, dict, str) and len(part) + len(parts) > MAX_LOGGED_CHARACTERS:
            return False
        if kind is list:
            parts += part
        elif kind is dict:
            if not all(type(key) is str for key in part):
                return False
            parts += [*part, *part.values()]
        elif kind not in (type(None), bool, int, float, str):
            return False
    return True


class _DigestingFile:
    """A file object for a pickle that computes the digest of the written content."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, content: Any) -> int:
        self.digest.update(content)
        self.size_bytes += memoryview(content).nbytes
        return self._file.write(content)


def _write(value: object, place: OutputPlace, storage: Path) -> dict[str, Any]:
    """Write the file completely and with fsync, before the event that names its digest."""
    file = place.file(storage)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, mode=0o600, is_durable=True) as new:
            written = _DigestingFile(new)
            _pickle(value, written, place)
    except OSError as error:
        raise DagsterInvariantViolationError(f"Cannot store {place} in {file}: {error}.") from error
    return {"sha256": written.digest.hexdigest(), "size_bytes": written.size_bytes}


def _pickle(value: object, written: _DigestingFile, place: OutputPlace) -> None:
    try:
        pickle.dump(value, written, protocol=5)
    except OSError:
        raise
    except Exception as error:  # pickling calls methods of the value's class
        raise DagsterInvariantViolationError(
            f"Cannot store {place}, a value of type {type(value).__name__}: {error}. "
            "An op must return an artifact reference or a value that pickle can store."
        ) from error


def _read(digest: str, place: OutputPlace, storage: Path) -> object:
    file = place.file(storage)
    try:
        with file.open("rb") as stored:
            if hashlib.file_digest(stored, "sha256").hexdigest() != digest:
                raise DagsterInvariantViolationError(
                    f"Cannot load {place}: {file} has changed since the op wrote it. Launch a new run."
                )
            stored.seek(0)
            return _unpickle(stored, place)
    except OSError as error:
        raise DagsterInvariantViolationError(f"Cannot load {place} from {file}: {error}. Launch a new run.") from error


def _unpickle(stored: IO[bytes], place: OutputPlace) -> object:
    try:
        return pickle.load(stored)  # noqa: S301 - the digest of the file is the one in the event log
    except OSError:
        raise
    except Exception as error:  # unpickling calls methods of the value's class
        raise DagsterInvariantViolationError(
            f"Cannot load {place}: {type(error).__name__}: {error}. Its class must be importable, as when the op ran."
        ) from error
