"""The record of a run's process: a file that names the process, and whose lock shows whether the process is alive.

run_worker.py and run_lease.py write records; the run server and the launchers read them.

A process keeps its record locked while it is alive. The kernel releases the lock, whatever ends the process. So a
record is right after a crash and after a reboot, also for a reader in another container. If a run gets a second
process, that one does not get the lock and exits. So a run never has two processes.
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

__all__ = ["ProcessRecord", "RecordLock", "holds_record", "read_record", "recorded_run_ids", "remove_record"]

# struct flock of Linux: type, whence, start, length, process.
_FLOCK = "hhqqi"
# The descriptor of each record that this process has locked, by path. Never open such a file again: closing any of its
# descriptors would release the lock.
_held: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """The process of a run.

    `start_time` (clock ticks since boot) and `boot` differ for a later process of the same pid.
    `is_dedicated` tells that the process was started for the run, so that its process group belongs to the run. The
    process of `dagster job execute` is not dedicated: its group may be a person's shell.
    """

    run_id: str
    pid: int
    start_time: int
    boot: str
    pid_namespace: str
    is_dedicated: bool = True

    @classmethod
    def of_this_process(cls, run_id: str, *, is_dedicated: bool = True) -> "ProcessRecord":
        """Describe the calling process."""
        return cls(run_id, os.getpid(), _start_time(os.getpid()) or 0, _boot(), _pid_namespace(), is_dedicated)

    def names_a_process(self) -> bool:
        """Tell whether `pid` is still this process, so that signals reach no other process."""
        is_here = self.boot == _boot() and self.pid_namespace == _pid_namespace()
        return is_here and _start_time(self.pid) == self.start_time

    def send(self, number: signal.Signals, *, to_group: bool = False) -> bool:
        """Send the process, or its process group, a signal; tell whether the process was there."""
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
    """The lock on a record. The run's process holds it from start to end."""

    def __init__(self, folder: Path, run_id: str, *, is_dedicated: bool = True) -> None:
        self._path = _path(folder, run_id)
        self._run_id = run_id
        self._is_dedicated = is_dedicated

    def acquire(self, timeout_s: float = 0.5) -> bool:
        """Lock the record and write it; False if another process has the lock after `timeout_s`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + timeout_s
        while True:
            descriptor = _lock(self._path)
            if descriptor is not None:
                break
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        # Keep it open until the run ends: closing it releases the lock.
        _held[str(self._path)] = descriptor
        described = ProcessRecord.of_this_process(self._run_id, is_dedicated=self._is_dedicated)
        record = json.dumps(asdict(described)).encode()
        os.pwrite(descriptor, record, 0)
        os.ftruncate(descriptor, len(record))
        return True

    def release(self) -> None:
        """Remove the record of a run that has ended, and release the lock; this process goes on."""
        descriptor = _held.pop(str(self._path), None)
        if descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(descriptor)


def holds_record(run_id: str) -> bool:
    """Tell whether this process has locked the record of a run, in any folder."""
    return any(Path(path).stem == run_id for path in _held)


def _lock(path: Path, *, creates: bool = True) -> int | None:
    """Lock the file and return its descriptor; None if another process has the lock, or has just removed the file."""
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


def read_record(folder: Path, run_id: str) -> tuple[ProcessRecord | None, bool]:
    """Return the record of a run, or None, and whether its process is alive."""
    path = _path(folder, run_id)
    if str(path) in _held:
        content = os.pread(_held[str(path)], 65536, 0)
        return _parse(content) or ProcessRecord.of_this_process(run_id), True
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


def _parse(content: bytes) -> ProcessRecord | None:
    try:
        return ProcessRecord(**json.loads(content))
    except (ValueError, TypeError):  # a process is, or died, between locking and writing
        return None


def _is_locked(descriptor: int) -> bool:
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    conflict = fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted)
    return bool(struct.unpack(_FLOCK, conflict)[0] != fcntl.F_UNLCK)


def recorded_run_ids(folder: Path) -> Iterator[str]:
    """Yield the ids of the runs that have a record."""
    if folder.is_dir():
        for path in sorted(folder.glob("*.json")):
            yield path.stem


def remove_record(folder: Path, run_id: str) -> None:
    """Remove the record of a run, unless its process is alive."""
    path = _path(folder, run_id)
    if str(path) in _held:
        return
    # Removed under its lock, so that no process locks the record at the same time.
    descriptor = _lock(path, creates=False)
    if descriptor is not None:
        path.unlink(missing_ok=True)
        os.close(descriptor)
