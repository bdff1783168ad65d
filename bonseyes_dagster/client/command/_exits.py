"""The meaning of the command's exit codes, and the exit code of each error."""

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
    FAILED: "an artifact, a run or a build failed, was cancelled or interrupted; `bonseyes check` found something",
    INVALID: "wrong usage, parameters, files or settings; nothing was started",
    NOT_FOUND: "there is no such container, pipeline, artifact, run or file",
    CONFLICT: "the name or the folder is taken, the artifact is not final, or `bonseyes restore` would replace data",
    UNREACHABLE: "the project or Docker does not answer, a service is not healthy, or an answer breaks the contract",
    REFUSED: "the project refuses the request: token, host or policy",
    FULL: "no room now: the queue or the disk is full, or the upload is too large",
    DAMAGED: "downloaded bytes, or a part of a backup, do not have the promised digest",
    TIMED_OUT: "--timeout passed before the result was final",
    INTERNAL: "a fault inside the project; its log has the details",
    INTERRUPTED: "interrupted with Ctrl-C; the artifact or the run goes on",
    PIPE_CLOSED: "the reader of the output stopped reading",
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
    """Return the exit code of an error."""
    return next((code for cls, code in _BY_ERROR if isinstance(error, cls)), INTERNAL)
