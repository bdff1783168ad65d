"""What is written down of a run's process, and whether it lives.

run_worker.py and run_lease.py write it; the run server and the launchers read it.

A record is a file that its process keeps locked for as long as it lives. The kernel lets go of the lock whatever ends
the process, so a record tells the truth after a crash and after a reboot, to a reader in another container too. Of two
processes for one run the second does not get the lock, and ends: a run never has two.
"""

import contextlib
import fcntl
import json
import os
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["RecordLock", "RunRecord", "is_held", "read_record", "read_records", "remove_record"]

# struct flock of Linux: type, whence, start, length, process.
_FLOCK = "hhqqi"
# Closing any descriptor of a locked file would let go of this process's lock: never open what it holds.
# The descriptor of each record that this process holds.
_held: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run's process. `start_time` (in clock ticks after boot) and `boot` tell it from a later one of the same pid.

    `is_dedicated` tells that the process was made for the run, so that its process group is the run's. The process of
    `dagster job execute` was not: its group may be a person's shell.
    """

    run_id: str
    pid: int
    start_time: int
    boot: str
    pid_namespace: str
    is_dedicated: bool = True

    @classmethod
    def of_this_process(cls, run_id: str, *, is_dedicated: bool = True) -> "RunRecord":
        """Describe the calling process."""
        return cls(run_id, os.getpid(), _start_time(os.getpid()) or 0, _boot(), _pid_namespace(), is_dedicated)

    def names_a_process(self) -> bool:
        """Tell whether `pid` is still that process, so that it may be sent signals."""
        is_here = self.boot == _boot() and self.pid_namespace == _pid_namespace()
        return is_here and _start_time(self.pid) == self.start_time

    def send(self, number: signal.Signals, *, to_group: bool = False) -> bool:
        """Send the process (or all that it started) a signal; say whether it was there."""
        if not self.names_a_process():
            return False
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if to_group else os.kill)(self.pid, number)
            return True
        return False


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _path(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.json"


class RecordLock:
    """Held by a run's process from its first moment to its last."""

    def __init__(self, folder: Path, run_id: str, *, is_dedicated: bool = True) -> None:
        self._path = _path(folder, run_id)
        self._run_id = run_id
        self._is_dedicated = is_dedicated

    def acquire(self, patience_s: float = 0.5) -> bool:
        """Lock the record and write it; False if another process has this run."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience_s
        while True:
            descriptor = _lock(self._path)
            if descriptor is not None:
                break
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        # Not closed before the run's end: the lock ends with the process.
        _held[str(self._path)] = descriptor
        described = RunRecord.of_this_process(self._run_id, is_dedicated=self._is_dedicated)
        record = json.dumps(asdict(described)).encode()
        os.pwrite(descriptor, record, 0)
        os.ftruncate(descriptor, len(record))
        return True

    def release(self) -> None:
        """Remove the record of a run that has ended, and let go of the lock: this process lives on."""
        descriptor = _held.pop(str(self._path), None)
        if descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(descriptor)


def is_held(run_id: str) -> bool:
    """Tell whether this process holds the record of a run, in whichever folder."""
    return any(Path(path).stem == run_id for path in _held)


def _lock(path: Path, *, creates: bool = True) -> int | None:
    """Return the descriptor of the locked file at `path`; None if another process has it, or it was just removed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if creates else 0), 0o600)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    os.close(descriptor)
    return None


def read_record(folder: Path, run_id: str) -> tuple[RunRecord | None, bool]:
    """Return a run's record, if it has one, and whether its process lives."""
    path = _path(folder, run_id)
    if str(path) in _held:
        content = os.pread(_held[str(path)], 65536, 0)
        return _parse(content) or RunRecord.of_this_process(run_id), True
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, False
    try:
        content = os.pread(descriptor, 65536, 0)
        is_alive = _is_locked(descriptor)
    finally:
        os.close(descriptor)
    return _parse(content), is_alive


def _parse(content: bytes) -> RunRecord | None:
    try:
        return RunRecord(**json.loads(content))
    except (ValueError, TypeError):  # a process died, or is, between locking and writing
        return None


def _is_locked(descriptor: int) -> bool:
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def read_records(folder: Path) -> Iterator[str]:
    """Yield the run ids that have a record."""
    if folder.is_dir():
        for path in sorted(folder.glob("*.json")):
            yield path.stem


def remove_record(folder: Path, run_id: str) -> None:
    """Forget a run whose process is gone."""
    path = _path(folder, run_id)
    if str(path) in _held:
        return
    # Removed under its lock, so that no process can take the record meanwhile.
    descriptor = _lock(path, creates=False)
    if descriptor is not None:
        path.unlink(missing_ok=True)
        os.close(descriptor)
