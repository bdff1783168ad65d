"""Call Linux's prctl(): end with the parent process, adopt orphans, set the name of a process."""

from __future__ import annotations

import ctypes
import os
import signal

__all__ = ["adopt_orphans", "end_with_parent", "set_process_name"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_NAME_BYTES = 15
# Loaded once: a forked child must not load anything.
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent(parent_pid: int, number: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent ends; exit at once if the parent has ended already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent_pid:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends, so that none escapes, in whatever session it is."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_process_name(name: str) -> None:
    """Set the name that `ps` and `top` show; the kernel keeps 15 bytes of it."""
    _prctl(_PR_SET_NAME, name.encode()[:_NAME_BYTES])


def _prctl(option: int, value: int | bytes) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
