"""Restores the process state that all ops in the threads of a run's process share.

executor.py calls it when a step has ended. While other steps run, nothing is restored: one of them may have changed the
state and may need it. Signal handlers need no restoring, because Python lets only the main thread set them.
"""

import contextlib
import locale
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["ProcessState"]

_UMASK = re.compile(r"^Umask:\s*([0-7]+)$", re.MULTILINE)


class ProcessState:
    """The state of the process at the start of the run."""

    def __init__(self) -> None:
        self._steps: list[str] = []
        self._environment = dict(os.environ)
        self._state = _read()

    def begin(self, step: str) -> None:
        """Remember the name of a step that starts."""
        if step not in self._steps:
            self._steps.append(step)

    def restore(self) -> str | None:
        """Restore the state that steps have changed since the last call; return a warning, or None if nothing changed.

        Call it when no step runs.
        """
        steps, self._steps = self._steps, []
        changed = [*self._restore_state(), *self._restore_environment()]
        if not changed:
            return None
        # Without steps, the cause is a thread that an earlier step has left running.
        subject = f"One of the steps {', '.join(steps)}" if steps else "An earlier step"
        subject = f"The step {steps[0]}" if len(steps) == 1 else subject
        names = ", ".join(changed)
        return f"{subject} changed and did not restore {names}; the values from the run's start are set again."

    def _restore_state(self) -> list[str]:
        changed = [name for name, value in _read().items() if value != self._state[name]]
        for name in changed:
            # The folder or the locale may be gone.
            with contextlib.suppress(OSError, locale.Error):
                _write(name, self._state[name])
        return changed

    def _restore_environment(self) -> list[str]:
        if os.environ == self._environment:
            return []
        now = dict(os.environ)
        names = _differing(now, self._environment)
        for name in names:
            if name in self._environment:
                os.environ[name] = self._environment[name]
            else:
                del os.environ[name]
        # No values: they may be secrets.
        return [f"the environment variable {name}" for name in names]


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _read() -> dict[str, Any]:
    return {
        "the working directory": _working_directory(),
        "the umask": _umask(),
        "the locale": locale.setlocale(locale.LC_ALL),
        "the default timeout of sockets": socket.getdefaulttimeout(),
    }


def _write(name: str, value: Any) -> None:
    if name == "the working directory":
        os.chdir(value)
    elif name == "the umask":
        os.umask(value)
    elif name == "the locale":
        locale.setlocale(locale.LC_ALL, value)
    else:
        socket.setdefaulttimeout(value)


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # an op has removed it
        return ""


def _umask() -> int:
    """Return the umask. `os.umask` would change it for a moment, and another thread could see that."""
    match = _UMASK.search(Path("/proc/self/status").read_text())
    return int(match[1], 8) if match else 0o022
