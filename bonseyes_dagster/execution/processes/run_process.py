"""A run's process as the run server holds it: by a descriptor that nothing else can take the place of."""

import logging
import os
import select
import signal
from pathlib import Path

__all__ = ["RunProcess"]

logger = logging.getLogger(__name__)


class RunProcess:
    """A child, or a process adopted from an earlier server."""

    def __init__(self, run_id: str, pid: int) -> None:
        self.run_id = run_id
        self.pid = pid
        self.kill_at: float | None = None
        # Readable when the process ends, also of one that is no child; and no other process can take its place.
        self.descriptor = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        try:
            signal.pidfd_send_signal(self.descriptor, number)
        except ProcessLookupError:
            logger.debug("run %s has ended before its signal", self.run_id)

    def kill_group(self) -> None:
        """Kill what it has started too: nothing of it may work on beside its successor."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.send(signal.SIGKILL)

    def reap(self) -> str:
        """Say how it ended, and let its group and its descriptor go."""
        try:
            status = os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # A zombie still has its pid, so this cannot be a stranger's group.
            self.kill_group()
            os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED)
        except ChildProcessError:  # adopted: its end is seen, its exit code is not
            status = None
            if self._has_its_number():
                self.kill_group()
        os.close(self.descriptor)
        if status is None or status.si_code == os.CLD_EXITED:
            return f"exited with code {status.si_status}" if status else "ended"
        return f"was killed by signal {status.si_status}"

    def _has_its_number(self) -> bool:
        """Tell whether no other process has its number, which none gets while there is a group of that number."""
        try:
            signal.pidfd_send_signal(self.descriptor, 0)
        except ProcessLookupError:
            return not Path(f"/proc/{self.pid}").exists()
        return True

    def is_running(self) -> bool:
        """Tell whether it has not ended yet."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return not poll.poll(0)
