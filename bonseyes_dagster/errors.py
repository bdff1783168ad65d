"""Every error that crosses an interface, with its HTTP status and its code.

BonseyesError                      500  internal
├── BadRequestError                400  bad_request            the request cannot be understood
├── UnauthorizedError              401  unauthorized           no or a wrong token
├── ForbiddenError                 403  forbidden              Host, Origin or outbound policy
├── NotFoundError                  404  not_found
│   └── NotReadyError              404  not_ready              the artifact exists, but has no result (yet)
├── MethodNotAllowedError          405  method_not_allowed
├── ConflictError                  409  name_taken
│   └── NotFinalError              409  not_final              the artifact is in progress; wait until it ends
├── PreconditionFailedError        412  precondition_failed
├── TooLargeError                  413  too_large
├── UnsupportedMediaError          415  unsupported_media_type
├── RangeError                     416  range_not_satisfiable
├── InvalidError                   422  invalid                `detail` maps each bad field to a sentence
├── QueueFullError                 429  queue_full
├── UnavailableError               503  unavailable            try again later
├── StorageFullError               507  storage_full
└── (never on the wire)
    ├── SettingsError                   a wrong environment variable or project file
    ├── ConnectionFailedError           no answer from a container
    ├── DigestMismatchError             the received bytes do not have the announced digest
    ├── UnexpectedAnswerError           an answer that is not in the contract: another server answers there
    ├── WaitTimeoutError                the artifact did not end before the caller's timeout
    └── ToolError                       raised by a tool's author: its message becomes the artifact's reason
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "REQUEST_ID",
    "BadRequestError",
    "BonseyesError",
    "ConflictError",
    "ConnectionFailedError",
    "DigestMismatchError",
    "ForbiddenError",
    "InvalidError",
    "MethodNotAllowedError",
    "NotFinalError",
    "NotFoundError",
    "NotReadyError",
    "PreconditionFailedError",
    "QueueFullError",
    "RangeError",
    "SettingsError",
    "StorageFullError",
    "TooLargeError",
    "ToolError",
    "UnauthorizedError",
    "UnavailableError",
    "UnexpectedAnswerError",
    "UnsupportedMediaError",
    "WaitTimeoutError",
    "error_from_json",
    "request_id",
]

# The allowed values of X-Request-Id.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(given: str) -> str:
    """Return the id that logs show for a request: `given` if it is valid, else a new id."""
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class BonseyesError(Exception):
    """A failure with a message for the user.

    `message` says what is wrong and what would be right. `detail` holds further facts and is JSON-serialisable.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, detail: Any = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.request_id = request_id

    def to_json(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the contract's error body."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "detail": self.detail,
                "request_id": request_id or self.request_id,
            }
        }


class BadRequestError(BonseyesError):
    """The request is not well-formed: its JSON, its multipart framing, a query value."""

    code = "bad_request"
    http_status = 400


class UnauthorizedError(BonseyesError):
    """The gateway has a token and the request does not carry it."""

    code = "unauthorized"
    http_status = 401


class ForbiddenError(BonseyesError):
    """A policy refuses the request: its Host, its Origin, or the host that this process would connect to."""

    code = "forbidden"
    http_status = 403


class NotFoundError(BonseyesError):
    """The artifact, run, file or route does not exist."""

    code = "not_found"
    http_status = 404


class NotReadyError(NotFoundError):
    """The artifact exists, but it is not completed, so the requested part of it does not exist."""

    code = "not_ready"


class MethodNotAllowedError(BonseyesError):
    """The route exists, but it does not take this method."""

    code = "method_not_allowed"
    http_status = 405


class ConflictError(BonseyesError):
    """The name is taken."""

    code = "name_taken"
    http_status = 409


class NotFinalError(ConflictError):
    """The artifact is in progress; the request can succeed after it has ended."""

    code = "not_final"


class PreconditionFailedError(BonseyesError):
    """The file does not have the ETag in If-Match."""

    code = "precondition_failed"
    http_status = 412


class TooLargeError(BonseyesError):
    """The body is larger than this container takes."""

    code = "too_large"
    http_status = 413


class UnsupportedMediaError(BonseyesError):
    """The body is neither multipart/form-data nor JSON."""

    code = "unsupported_media_type"
    http_status = 415


class RangeError(BonseyesError):
    """The Range lies outside the file."""

    code = "range_not_satisfiable"
    http_status = 416


class InvalidError(BonseyesError):
    """The request is well-formed, but its values are wrong; `detail` is `{field: sentence}` for every bad field."""

    code = "invalid"
    http_status = 422


class QueueFullError(BonseyesError):
    """The container's queue has no room now."""

    code = "queue_full"
    http_status = 429


class UnavailableError(BonseyesError):
    """A server that the request needs does not answer; the same request may succeed later."""

    code = "unavailable"
    http_status = 503


class StorageFullError(BonseyesError):
    """The volume has no room beyond its reserve."""

    code = "storage_full"
    http_status = 507


class SettingsError(BonseyesError):
    """An environment variable or a project file is wrong; nothing was started."""

    code = "settings"


class ConnectionFailedError(BonseyesError):
    """A container cannot be reached, or it closed the connection before its answer was complete."""

    code = "connection_failed"


class DigestMismatchError(BonseyesError):
    """The received bytes do not have the announced digest."""

    code = "digest_mismatch"


class UnexpectedAnswerError(BonseyesError):
    """The answer is not in the contract; the server is probably not a container of this project."""

    code = "unexpected_answer"


class WaitTimeoutError(BonseyesError):
    """The artifact or run did not end before the caller's timeout."""

    code = "wait_timeout"


class ToolError(BonseyesError):
    """Raise it in a tool to fail the artifact with this message and without a traceback."""

    code = "tool_error"


_BY_CODE: dict[str, type[BonseyesError]] = {
    cls.code: cls
    for cls in (
        BadRequestError,
        UnauthorizedError,
        ForbiddenError,
        NotFoundError,
        NotReadyError,
        MethodNotAllowedError,
        ConflictError,
        NotFinalError,
        PreconditionFailedError,
        TooLargeError,
        UnsupportedMediaError,
        RangeError,
        InvalidError,
        QueueFullError,
        UnavailableError,
        StorageFullError,
    )
}


def error_from_json(http_status: int, body: object) -> BonseyesError:
    """Return the exception for an HTTP error answer; the body may be anything."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        error = {}
    code = str(error.get("code", ""))
    by_status = {cls.http_status: cls for cls in _BY_CODE.values() if cls not in (NotReadyError, NotFinalError)}
    cls = _BY_CODE.get(code) or by_status.get(http_status, BonseyesError)
    message = str(error.get("message") or f"HTTP {http_status}")
    return cls(message, detail=error.get("detail"), request_id=error.get("request_id"))
