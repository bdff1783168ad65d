"""The Flask application that every container starts from: errors as JSON, request ids, health, metrics, OpenAPI."""

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
from bonseyes_dagster.web.connection import Connection
from bonseyes_dagster.web.own_host import OwnHost
from bonseyes_dagster.web.requests.queries import external_base
from bonseyes_dagster.web.telemetry import CONTENT_TYPE, Telemetry

__all__ = ["create_app", "json_response"]

_log = logging.getLogger(__name__)
_STARTED_KEY = "bonseyes.started"
_RETRY_AFTER_S = {QueueFullError: "5", UnavailableError: "2"}
_OF_STATUS: dict[int, type[BonseyesError]] = {
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
    404: "there is no such route: {path}; GET /openapi.json lists them",
    405: "{method} is not a method of {path}; it has {allow}",
}


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `body` as a JSON answer; numbers that JSON does not have (NaN, infinity) become null."""
    try:
        data = format_json(body, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:  # text that is no Unicode
        data = format_json(body, default=str).encode()
    return Response(data, status, headers, mimetype="application/json")


class _Response(Response):
    default_mimetype = "application/json"


class _App(Flask):
    """Flask whose routes answer with and without a trailing slash, and with `_` for `-` in their fixed parts."""

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
        """Return the rule that the current request matched, without regard to twins."""
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
    """Make the application `name`, to which a service adds its blueprints.

    `description` is the body of `GET /` (None leaves `/` to the service), `check_health` raises UnavailableError with
    the reason, `gauges` are added to `/metrics` (`queue_length`, `artifacts{phase="queued"}`), `openapi` is the
    document of all the app's routes, `notices` are sentences for the operator of a container that is ready.
    """
    app = _App(name, static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # merging is a redirect, and a POST does not survive one
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
    own_host = OwnHost(app.name)

    @app.before_request
    def begin() -> None:
        g.request_id = request_id(request.headers.get("X-Request-Id", ""))
        # A request that is held is asked twice, and has begun once.
        g.started = request.environ.setdefault(_STARTED_KEY, time.monotonic())
        own_host.check()
        _refuse_pages_of_others()
        # servers decode what they can and leave the rest; only the raw path tells
        raw = request.environ.get("REQUEST_URI", "").partition("?")[0]
        if re.search(r"[\x00-\x20\x7f]", raw):
            raise BadRequestError("the path has a blank or a control character; write it as % and two digits")
        if re.search(r"%(?![0-9A-Fa-f]{2})", raw):
            raise BadRequestError("the path has a % that two hexadecimal digits do not follow")
        try:
            request.query_string.decode()
        except UnicodeDecodeError:
            raise BadRequestError("the query string is not UTF-8") from None

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


def _refuse_pages_of_others() -> None:
    """Refuse a browser that changes something past the gateway, which alone knows whose pages may do so.

    A page of any site can make a browser send a form to a port of this machine; it cannot set this header.
    """
    is_safe = request.method in ("GET", "HEAD", "OPTIONS")
    if not is_safe and "Origin" in request.headers and "X-Forwarded-Host" not in request.headers:
        raise ForbiddenError("a web page changes things only through the gateway, not in a container directly")


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
        cls = _OF_STATUS.get(error.code or 400, BadRequestError)
        sentence = _SENTENCES.get(cls.http_status, str(error.description))
        message = sentence.format(path=request.path, method=request.method, allow=allow)
        headers = {"Allow": allow} if allow else {}
        return json_response(cls(message).to_json(g.request_id), cls.http_status, headers)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        _log.exception("request %s: %s %s failed", g.request_id, request.method, ascii(request.path), exc_info=error)
        message = "the server failed; its log has the reason beside this request id"
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
            told = list(notices())
        except OSError as error:
            raise UnavailableError(f"The storage of this container does not work: {error}.") from error
        return json_response({"status": "ready", **({"notices": told} if told else {})})

    @app.get(OPENAPI)
    def document() -> Response:
        described = openapi() if callable(openapi) else openapi
        # By default a document's paths are those of its host, which they are not behind the gateway.
        return json_response({**described, "servers": [{"url": external_base() or "/"}]})
