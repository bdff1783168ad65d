"""Create the Flask application of a container: JSON errors, request ids, health, metrics, OpenAPI.

Each service adds its own blueprints to it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from bonseyes_dagster.errors import (
    BadRequestError,
    BonseyesError,
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    PreconditionFailedError,
    QueueFullError,
    RangeError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaError,
    request_id,
)
from bonseyes_dagster.formats.json_text import format_json
from bonseyes_dagster.urls import HEALTHZ, METRICS, OPENAPI
from bonseyes_dagster.web.caller_check import CallerCheck
from bonseyes_dagster.web.connection import Connection
from bonseyes_dagster.web.requests.queries import external_base
from bonseyes_dagster.web.telemetry import CONTENT_TYPE, Telemetry

__all__ = ["create_app", "json_response"]

_log = logging.getLogger(__name__)
_STARTED_KEY = "bonseyes.started"
_RETRY_AFTER_S = {QueueFullError: "5", UnavailableError: "2"}
_CLASS_OF_STATUS: dict[int, type[BonseyesError]] = {
    cls.http_status: cls
    for cls in (
        UnauthorizedError,
        ForbiddenError,
        NotFoundError,
        MethodNotAllowedError,
        PreconditionFailedError,
        TooLargeError,
        UnsupportedMediaError,
        RangeError,
    )
}
_SENTENCES = {
    404: "There is no route {path}; GET /openapi.json lists all routes.",
    405: "{path} does not take {method}; it takes {allow}.",
}


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `body` as a JSON answer; numbers that JSON does not have (NaN, infinity) become null."""
    try:
        data = format_json(body, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot encode
        data = format_json(body, default=str).encode()
    return Response(data, status, headers, mimetype="application/json")


class _Response(Response):
    default_mimetype = "application/json"


class _App(Flask):
    """A Flask application that also takes a trailing slash, and `_` instead of `-` in the fixed parts of a route."""

    response_class = _Response

    def __init__(self, name: str, **options: Any) -> None:
        self.twins: dict[str, str] = {}
        super().__init__(name, **options)

    def add_url_rule(
        self, rule: str, endpoint: str | None = None, view_func: Any = None, *args: Any, **options: Any
    ) -> None:
        super().add_url_rule(rule, endpoint, view_func, *args, **options)
        twin = re.sub(r"<[^>]*>|-", lambda match: "_" if match[0] == "-" else match[0], rule)
        if twin != rule:
            self.twins[twin] = rule
            super().add_url_rule(twin, endpoint, view_func, *args, **options)

    def route_of_request(self) -> str:
        """Return the rule of the current request; for a rule with `_`, return its twin with `-`."""
        rule = request.url_rule.rule if request.url_rule else "unmatched"
        return self.twins.get(rule, rule)


def create_app(
    name: str,
    *,
    description: Callable[[], Mapping[str, Any]] | None,
    check_health: Callable[[], None],
    gauges: Callable[[], Mapping[str, float]],
    openapi: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    notices: Callable[[], Sequence[str]] = tuple,
) -> Flask:
    """Return the application `name`, to which a service adds its blueprints.

    `description` returns the body of `GET /`; with None, the service answers `/`. `check_health` raises
    UnavailableError with the reason. `gauges` returns gauges for `/metrics`, for example `queue_length` or
    `artifacts{phase="queued"}`. `openapi` describes all routes of the application. `notices` returns sentences for
    the operator; `/healthz` of a ready container shows them.
    """
    app = _App(name, static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # werkzeug merges them by a redirect, which loses the body of a POST
    app.url_map.redirect_defaults = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    _add_observation(app, Telemetry(gauges))
    _add_errors(app)
    _add_base_routes(app, description, check_health, openapi, notices)
    app.wsgi_app = Connection(app.wsgi_app)  # type: ignore[method-assign]
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return app


def _add_observation(app: _App, telemetry: Telemetry) -> None:
    caller_check = CallerCheck(app.name)

    @app.before_request
    def begin() -> None:
        g.request_id = request_id(request.headers.get("X-Request-Id", ""))
        # The application gets a held request twice; its time counts from the first call.
        g.started = request.environ.setdefault(_STARTED_KEY, time.monotonic())
        caller_check.check()
        _refuse_other_sites()
        # PATH_INFO is decoded, and servers leave invalid escapes as they are; only the raw path shows them
        raw = request.environ.get("REQUEST_URI", "").partition("?")[0]
        if re.search(r"[\x00-\x20\x7f]", raw):
            raise BadRequestError("The path has a blank or a control character; write it as % and two digits.")
        if re.search(r"%(?![0-9A-Fa-f]{2})", raw):
            raise BadRequestError("The path has a % without two hexadecimal digits after it; write %25 for a %.")
        try:
            request.query_string.decode()
        except UnicodeDecodeError:
            raise BadRequestError("The query string must be UTF-8.") from None

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        if request.method == "OPTIONS" and response.content_length == 0:
            response.headers.pop("Content-Type", None)
        duration_s = time.monotonic() - g.started
        telemetry.record(request.method, app.route_of_request(), response.status_code, duration_s)
        return response

    @app.get(METRICS)
    def metrics() -> Response:
        return Response(telemetry.render(), content_type=CONTENT_TYPE)


def _refuse_other_sites() -> None:
    """Refuse a changing request of a browser that does not come through the gateway.

    A page of any site can make a browser send a form to a port of this machine, but it cannot set X-Forwarded-Host.
    Only the gateway knows which pages may change something.
    """
    is_safe = request.method in ("GET", "HEAD", "OPTIONS")
    if not is_safe and "Origin" in request.headers and "X-Forwarded-Host" not in request.headers:
        raise ForbiddenError("A web page must not send changes to a container directly; send them to the gateway.")


def _add_errors(app: Flask) -> None:
    @app.errorhandler(BonseyesError)
    def known(error: BonseyesError) -> Response:
        if error.http_status >= 500 and not isinstance(error, UnavailableError):
            _log.warning("request %s: %s", g.request_id, error.message)
        headers = {"Retry-After": _RETRY_AFTER_S[type(error)]} if type(error) in _RETRY_AFTER_S else {}
        size = (error.detail or {}).get("size") if isinstance(error, RangeError) else None
        if size is not None:
            headers["Content-Range"] = f"bytes */{size}"
        return json_response(error.to_json(g.request_id), error.http_status, headers)

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        allow = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        cls = _CLASS_OF_STATUS.get(error.code or 400, BadRequestError)
        sentence = _SENTENCES.get(cls.http_status, str(error.description))
        message = sentence.format(path=request.path, method=request.method, allow=allow)
        headers = {"Allow": allow} if allow else {}
        return json_response(cls(message).to_json(g.request_id), cls.http_status, headers)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        _log.exception("request %s: %s %s failed", g.request_id, request.method, ascii(request.path), exc_info=error)
        message = "The server failed; its log shows the reason with this request id."
        return json_response(BonseyesError(message).to_json(g.request_id), 500)


def _add_base_routes(
    app: Flask,
    description: Callable[[], Mapping[str, Any]] | None,
    check_health: Callable[[], None],
    openapi: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    notices: Callable[[], Sequence[str]],
) -> None:
    if description is not None:

        @app.get("/")
        def describe() -> Response:
            return json_response(description())

    @app.get(HEALTHZ)
    def healthz() -> Response:
        try:
            check_health()
            sentences = list(notices())
        except OSError as error:
            raise UnavailableError(f"The storage of this container does not work: {error}.") from error
        return json_response({"status": "ready", **({"notices": sentences} if sentences else {})})

    @app.get(OPENAPI)
    def document() -> Response:
        described = openapi() if callable(openapi) else openapi
        # Without `servers`, the paths would start at the root of the host, but behind the gateway they do not.
        return json_response({**described, "servers": [{"url": external_base() or "/"}]})
