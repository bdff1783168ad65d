"""The run server's handle on a run's process: a pidfd, which never names another process."""

import logging
import os
import select
import signal
from pathlib import Path

__all__ = ["RunProcess"]

logger = logging.getLogger(__name__)


class RunProcess:
    """A child of the server, or a process adopted from an earlier server."""

    def __init__(self, run_id: str, pid: int) -> None:
        self.run_id = run_id
        self.pid = pid
        self.kill_at: float | None = None
        # The pidfd gets readable when the process ends, even if the process is not a child.
        self.descriptor = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal, if it has not ended."""
        try:
            signal.pidfd_send_signal(self.descriptor, number)
        except ProcessLookupError:
            logger.debug("Run %s ended before its signal.", self.run_id)

    def kill_group(self) -> None:
        """Kill the whole process group: nothing of it may go on beside the run's next process."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.send(signal.SIGKILL)

    def reap(self) -> str:
        """Reap the process, kill its group, close the descriptor; return how the process ended, for a sentence."""
        try:
            status = os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # A zombie still has its pid, so this group cannot belong to another process.
            self.kill_group()
            os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED)
        except ChildProcessError:  # adopted: the exit code is unknown
            status = None
            if self._has_its_pid():
                self.kill_group()
        os.close(self.descriptor)
        if status is None or status.si_code == os.CLD_EXITED:
            return f"exited with code {status.si_status}" if status else "ended"
        return f"was killed by signal {status.si_status}"

    def _has_its_pid(self) -> bool:
        """Tell whether no other process has its pid; the kernel does not reuse a pid while a group has it."""
        try:
            signal.pidfd_send_signal(self.descriptor, 0)
        except ProcessLookupError:
            return not Path(f"/proc/{self.pid}").exists()
        return True

    def is_running(self) -> bool:
        """Tell whether the process has not ended."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return not poll.poll(0)
