"""What the command's exit codes mean, and which error ends in which."""

from __future__ import annotations

from bonseyes_dagster import errors

__all__ = ["EXITS", "FAILED", "INTERNAL", "INTERRUPTED", "PIPE_CLOSED", "UNREACHABLE", "exit_code"]

OK = 0
FAILED = 1
INVALID = 2
NOT_FOUND = 3
CONFLICT = 4
UNREACHABLE = 5
REFUSED = 6
FULL = 7
DAMAGED = 8
TIMED_OUT = 9
INTERNAL = 70
INTERRUPTED = 130
PIPE_CLOSED = 141

EXITS: dict[int, str] = {
    OK: "done",
    FAILED: "the artifact or the run failed, or was cancelled or interrupted; `bonseyes check` found something",
    INVALID: "wrong usage, parameters, files or settings; nothing was started",
    NOT_FOUND: "there is no such container, pipeline, artifact, run or file",
    CONFLICT: "the name is taken",
    UNREACHABLE: "no answer, or none that makes sense, from the project",
    REFUSED: "the project refuses: token, host or policy",
    FULL: "no room now: queue or disk full, or the upload is too large",
    DAMAGED: "what came has not the digest that was promised",
    TIMED_OUT: "--timeout passed before the result was final",
    INTERNAL: "a fault inside the project; its log knows more",
    INTERRUPTED: "interrupted with Ctrl-C; what was started goes on",
    PIPE_CLOSED: "whoever read the output stopped reading",
}

_BY_ERROR: tuple[tuple[type[errors.BonseyesError], int], ...] = (
    (errors.ToolError, FAILED),
    (errors.NotFoundError, NOT_FOUND),
    (errors.ConflictError, CONFLICT),
    (errors.ConnectionFailedError, UNREACHABLE),
    (errors.UnavailableError, UNREACHABLE),
    (errors.UnexpectedAnswerError, UNREACHABLE),
    (errors.MethodNotAllowedError, UNREACHABLE),
    (errors.UnauthorizedError, REFUSED),
    (errors.ForbiddenError, REFUSED),
    (errors.QueueFullError, FULL),
    (errors.StorageFullError, FULL),
    (errors.TooLargeError, FULL),
    (errors.DigestMismatchError, DAMAGED),
    (errors.WaitTimeoutError, TIMED_OUT),
    (errors.InvalidError, INVALID),
    (errors.BadRequestError, INVALID),
    (errors.UnsupportedMediaError, INVALID),
    (errors.RangeError, INVALID),
    (errors.SettingsError, INVALID),
)


def exit_code(error: errors.BonseyesError) -> int:
    """Return the exit code that an error ends in."""
    return next((code for cls, code in _BY_ERROR if isinstance(error, cls)), INTERNAL)
