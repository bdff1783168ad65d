"""Run strace on a process: trace its system calls, kill it at one of them, or let one of them fail."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

__all__ = ["Strace", "why_not"]


@functools.cache
def why_not() -> str | None:
    """Return the reason why strace does not work here; None if it works."""
    if shutil.which("strace") is None:
        return "strace is not installed (Debian: apt-get install strace)"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return f"ptrace is forbidden here: {tried.stderr.strip()[:200]}" if tried.returncode else None


class Strace:
    """Traces processes, with all threads and forked processes, while the block runs."""

    def __init__(self, pids: list[int], output: Path, *options: str) -> None:
        self._pids = pids
        self._output = output
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Strace:
        """Attach strace, and return when it is attached to every process."""
        attach = [part for pid in self._pids for part in ("-p", str(pid))]
        self._errors = self._output.with_suffix(".err")
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                ["strace", "-f", "-o", str(self._output), *self._options, *attach], stderr=errors, text=True
            )
        deadline = time.monotonic() + 20
        while not all(f"Process {pid} attached" in self._errors.read_text() for pid in self._pids):
            assert self._process.poll() is None, self._errors.read_text()
            assert time.monotonic() < deadline, "strace did not attach"
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach strace; the processes go on."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            # strace may wait for ever for a process that was killed in the wrong moment.
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def lines(self) -> list[str]:
        """Return the trace so far."""
        return self._output.read_text(errors="replace").splitlines() if self._output.exists() else []

    def injected(self) -> list[str]:
        """Return the calls that failed on purpose, or at which the process was killed."""
        return [line for line in self.lines() if "(INJECTED)" in line or "+++ killed by SIGKILL" in line]
