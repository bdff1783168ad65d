"""Gives each step its own `sys.stdout` and `sys.stderr`, while several steps share one process.

compute_logs.py opens a capture for each step. An object in `sys.stdout`, the front, forwards each write to the file of
the current step. A context variable names this step. An op that sets `sys.stdout`, as `contextlib.redirect_stdout`
does, sets it only for itself: this module gives `sys` a class whose `stdout` and `stderr` are properties. `print` reads
the dictionary of the module `sys` and finds the front. All other code reads the property.
"""

import contextvars
import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TextIO

__all__ = ["capture_streams", "route_streams"]


class _Capture:
    """The two open files of one step, and the streams that its op has set as `sys.stdout` and `sys.stderr`."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.files = {"stdout": out, "stderr": err}
        self.redirections: dict[str, Any] = {}


_capture: contextvars.ContextVar[_Capture | None] = contextvars.ContextVar("capture", default=None)
_open_captures: list[_Capture] = []
_lock = threading.Lock()


def _current() -> _Capture | None:
    """Return the capture of the step that writes.

    A thread that an op started has no context variable. It belongs to a step if only this step is captured.
    """
    # Copied, because other threads begin and end captures at the same time.
    captures = tuple(_open_captures)
    capture = _capture.get()
    if capture is None and len(captures) == 1:
        capture = captures[0]
    return capture if capture in captures else None


def _target(name: str) -> TextIO | None:
    capture = _current()
    return capture.files[name] if capture is not None else None


class _Router(io.TextIOBase):
    """The `sys.stdout` or `sys.stderr` of an op. It writes to the step's file, outside of steps to the original."""

    def __init__(self, name: str, original: TextIO) -> None:
        self._name = name
        self.original = original
        self.is_mirrored = False

    def _stream(self) -> TextIO:
        return _target(self._name) or self.original

    def write(self, text: str) -> int:
        target = _target(self._name)
        if target is not None:
            try:
                count = target.write(text)
            except ValueError:  # the step has ended, and this thread goes on
                return self.original.write(text)
            if self.is_mirrored:
                self.original.write(text)
            return count
        return self.original.write(text)

    def flush(self) -> None:
        try:
            self._stream().flush()
        except ValueError:
            self.original.flush()

    def fileno(self) -> int:
        return self._stream().fileno()

    def isatty(self) -> bool:
        return _target(self._name) is None and self.original.isatty()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream().encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream().errors

    @property
    def buffer(self) -> Any:
        """Return the binary stream, for code that writes bytes to `sys.stdout.buffer`."""
        stream = self._stream()
        stream.flush()
        return stream.buffer


class _Front:
    """The object that `print` finds in the dictionary of `sys`: it forwards to the current step's `sys.stdout`."""

    def __init__(self, router: _Router) -> None:
        self.router = router
        self.name = router._name

    def __getattr__(self, name: str) -> Any:
        return getattr(_read(self.name), name)


class _SteppedSys(ModuleType):
    """The class of the module `sys`, in which each step has its own `stdout` and `stderr`."""

    @property
    def stdout(self) -> Any:
        return _read("stdout")

    @stdout.setter
    def stdout(self, stream: Any) -> None:
        _set("stdout", stream)

    @property
    def stderr(self) -> Any:
        return _read("stderr")

    @stderr.setter
    def stderr(self, stream: Any) -> None:
        _set("stderr", stream)


def _read(name: str) -> Any:
    stream = vars(sys)[name]
    if not isinstance(stream, _Front):
        return stream
    capture = _current()
    return stream.router if capture is None else capture.redirections.get(name, stream.router)


def _set(name: str, stream: Any) -> None:
    front, capture = vars(sys)[name], _current()
    if isinstance(front, _Front) and capture is not None:
        if stream is front.router or stream is front:
            capture.redirections.pop(name, None)
        else:
            capture.redirections[name] = stream
    else:
        vars(sys)[name] = _fronts.get(name) if stream is _router(name) else stream


# Keeps a reference to each front: `print` has none, and another thread may put the original stream back.
_fronts: dict[str, _Front] = {}


def _router(name: str) -> _Router | None:
    return _fronts[name].router if name in _fronts else None


def route_streams(is_mirrored: bool = False) -> None:
    """Put the fronts in place, once. Log handlers that are created later and write to `sys.stderr` use them, too."""
    for name in ("stdout", "stderr"):
        stream = vars(sys)[name]
        if not isinstance(stream, _Front):
            if name not in _fronts or _fronts[name].router.original is not stream:
                _fronts[name] = _Front(_Router(name, stream))
            vars(sys)[name] = stream = _fronts[name]
        stream.router.is_mirrored = is_mirrored
    sys.__class__ = _SteppedSys


_is_routed_for_captures = False


def _begin_routing(is_mirrored: bool) -> None:
    global _is_routed_for_captures
    if not isinstance(vars(sys)["stdout"], _Front):
        _is_routed_for_captures = True
    route_streams(is_mirrored)


def _end_routing() -> None:
    """Put the original streams back when the last capture ends, if a capture had replaced them."""
    global _is_routed_for_captures
    if _open_captures or not _is_routed_for_captures:
        return
    _is_routed_for_captures = False
    sys.__class__ = ModuleType
    for name in ("stdout", "stderr"):
        stream = vars(sys)[name]
        if isinstance(stream, _Front):
            vars(sys)[name] = stream.router.original


@contextmanager
def capture_streams(out: TextIO, err: TextIO, *, is_mirrored: bool) -> Iterator[None]:
    """Write the output of the current context to these files; other contexts may be captured at the same time."""
    capture = _Capture(out, err)
    with _lock:
        _begin_routing(is_mirrored)
        _open_captures.append(capture)
    token = _capture.set(capture)
    try:
        yield
    finally:
        _capture.reset(token)
        with _lock:
            _open_captures.remove(capture)
            _end_routing()
