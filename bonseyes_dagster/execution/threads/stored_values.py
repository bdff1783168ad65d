"""How a value that an op gives out is kept: as text in the run's event log, or as a file of the Dagster home.

references.py calls it. A value comes back equal and of the same type, as with Dagster's `fs_io_manager`:

- A small value that JSON gives back exactly is in the event log.
- Any other value (a tuple, a dict with integers as keys, an object, a large list) is pickled into
  `DAGSTER_HOME/storage/RUN/STEP/OUTPUT.pickle`, and the event log has its digest. A file with another digest is
  not loaded: loading a pickle executes what it says.
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
    "MOST_LOGGED_CHARACTERS",
    "OutputPlace",
    "delete_values_set_aside",
    "load_value",
    "set_values_aside",
    "store_value",
]

# A larger value would slow down everything that reads the run's events.
MOST_LOGGED_CHARACTERS = 4096
# Before the id of a run in the name of a folder that is being removed.
_DOOMED = ".deleted-"


@dataclass(frozen=True)
class OutputPlace:
    """One output of one step of one run; `mapping_key` tells the values of a dynamic output apart."""

    run_id: str
    step_key: str
    output: str
    mapping_key: str | None

    def __str__(self) -> str:
        """Return how messages call it."""
        return f"the output {self._value!r} of the op {self.step_key!r}"

    @property
    def _value(self) -> str:
        return f"{self.output}[{self.mapping_key}]" if self.mapping_key else self.output

    def file(self, storage: Path) -> Path:
        """Return the file that a value of this output is pickled into."""
        return storage / self.run_id / self.step_key / f"{self._value}.pickle"


def store_value(value: object, place: OutputPlace, storage: Path) -> dict[str, Any]:
    """Keep a value; return what the event log is to have of it, from which `load_value` makes it again."""
    text = _exact_json(value)
    return {"json": text} if text is not None else {"pickle": _write(value, place, storage)}


def load_value(kept: Mapping[str, Any], place: OutputPlace, storage: Path) -> object:
    """Return the value that `store_value` has kept, a new object each time."""
    if "json" in kept:
        return json.loads(kept["json"])
    if "pickle" in kept:
        return _read(kept["pickle"]["sha256"], place, storage)
    return kept["value"]  # in the logs of older runs


def set_values_aside(instance: DagsterInstance, run_id: str) -> None:
    """Rename the folder of what the ops of a run that is being deleted gave out, whichever IO manager wrote it."""
    storage = Path(instance.storage_directory())
    doomed = storage / f"{_DOOMED}{run_id}"
    if doomed.exists():  # of an earlier run of this id
        shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        (storage / run_id).rename(doomed)


def delete_values_set_aside(instance: DagsterInstance, run_id: str | None = None) -> None:
    """Remove what was set aside of a run, or of all."""
    storage = Path(instance.storage_directory())
    for doomed in storage.glob(f"{_DOOMED}*") if run_id is None else [storage / f"{_DOOMED}{run_id}"]:
        shutil.rmtree(doomed, ignore_errors=True)


def _exact_json(value: object) -> str | None:
    """Return a small value as JSON, or None if JSON would give back something else."""
    if not _is_small_and_plain(value):
        return None
    try:
        text = json.dumps(value, allow_nan=False)
        # JSON joins the two halves of a surrogate pair.
        return text if len(text) <= MOST_LOGGED_CHARACTERS and json.loads(text) == value else None
    except (ValueError, RecursionError):  # NaN, or an integer of more digits than Python reads, or deeply nested
        return None


def _is_small_and_plain(value: object) -> bool:
    """Tell whether a value consists of few parts, each of a type that JSON has; no subclass, no cycle."""
    parts: list[Any] = [value]
    for part in parts:
        kind = type(part)
        if kind in (list, dict, str) and len(part) + len(parts) > MOST_LOGGED_CHARACTERS:
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
    """A file to write a pickle into, which digests what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, content: Any) -> int:
        self.digest.update(content)
        self.size_bytes += memoryview(content).nbytes
        return self._file.write(content)


def _write(value: object, place: OutputPlace, storage: Path) -> dict[str, Any]:
    """Write the file whole and durably: the event that speaks of it comes later."""
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
            "An op must give out an artifact reference or a value that pickle can store."
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
