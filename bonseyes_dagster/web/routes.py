"""The artifact routes: HTTP for a Backend. A tool's artifacts and a pipeline's runs have the same routes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import collection, is_name, item
from bonseyes_dagster.web import backend as protocol
from bonseyes_dagster.web.app import json_response
from bonseyes_dagster.web.backend import Backend
from bonseyes_dagster.web.connection import body_of
from bonseyes_dagster.web.requests.queries import external_base, flag, idempotency_key, integer, name_of, seconds
from bonseyes_dagster.web.requests.uploads import read_creation, read_new_name
from bonseyes_dagster.web.responses.downloads import send_file, send_zip
from bonseyes_dagster.web.responses.points import as_csv, as_json
from bonseyes_dagster.web.responses.sending import send_followed, wait_for

__all__ = ["METRIC_VIEWS", "PAGE_MAX", "WAIT_MAX_S", "artifact_blueprint"]

PAGE_MAX = 10_000
WAIT_MAX_S = 60.0
OFFSET_MAX = 2**62
METRIC_VIEWS = ("scalar", "json", "csv")
_SIZED_LOG_BYTES = 1 << 20
_HELD_POINTS_BYTES = 1 << 20
_CHANGE_LIMIT_BYTES = 1 << 20


def artifact_blueprint(backend: Backend, *, upload_limit_bytes: int | None = None) -> Blueprint:
    """Return the routes of `backend` below `/artifacts` or `/runs`.

    `upload_limit_bytes` is the size limit of a POST body; the default comes from the environment.
    """
    limit = upload_limit_bytes or Settings.from_environ().upload_limit_bytes
    kind = backend.kind
    blueprint = Blueprint(kind, __name__)
    routes = _Routes(backend, limit)
    base = collection(kind)

    def add(rule: str, view: Callable[..., Response], *methods: str) -> None:
        endpoint = view.__name__.strip("_")
        blueprint.add_url_rule(base + rule, endpoint, view, methods=list(methods or ("GET",)))

    blueprint.before_request(_check_name)
    add("", routes.list)
    add("", routes.create, "POST")
    add("/<name>", routes.info)
    add("/<name>", routes.delete, "DELETE")
    if kind == "artifacts":
        add("/<name>", routes.rename, "PATCH")
    add("/<name>/cancel", routes.cancel, "POST")
    add("/<name>/status", routes.status)
    add("/<name>/data", routes.data)
    add("/<name>/data/<path:path>", routes.data)
    add("/<name>/files", routes.files)
    add("/<name>/log", routes.log)
    add("/<name>/input-parameters", routes.input_parameters)
    add("/<name>/input-files", routes.input_files)
    add("/<name>/input-files/<file>", routes.input_file)
    add("/<name>/metrics", routes.metrics)
    add("/<name>/metrics/<metric>", routes.metric)
    add("/<name>/metrics/<path:metric>/<view>", routes.metric_view)
    return blueprint


def _check_name() -> None:
    """Raise NotFoundError for an invalid name, before a backend gets it."""
    name = (request.view_args or {}).get("name")
    if name is not None and not is_name(name):
        raise NotFoundError(
            f"The name {name[:128]!r} is not valid; it may have 128 letters, digits, `.`, `_`, `-`, and no `..`."
        )


class _Routes:
    def __init__(self, backend: Backend, upload_limit_bytes: int) -> None:
        self._backend = backend
        self._upload_limit_bytes = upload_limit_bytes

    # The collection

    def list(self) -> Response:
        limit = integer("limit", minimum=1, maximum=PAGE_MAX)
        after = name_of("after")
        # Ask for one more, to learn whether there is a next page.
        asked = None if limit is None else limit + 1
        entries: list[Any]
        if flag("detail"):
            statuses = list(self._backend.statuses(limit=asked, after=after))
            names, entries = [s.name for s in statuses], [s.to_json() for s in statuses]
        else:
            names = list(self._backend.names(limit=asked, after=after))
            entries = names
        headers = {}
        if limit is not None and len(names) > limit:
            headers["Link"] = f'<{self._next_page(limit, names[limit - 1])}>; rel="next"'
            entries = entries[:limit]
        return json_response(entries, headers=headers)

    def _next_page(self, limit: int, last: str) -> str:
        query = {"limit": limit, "after": last} | ({"detail": 1} if flag("detail") else {})
        return f"{external_base()}{collection(self._backend.kind)}?{urlencode(query)}"

    def create(self) -> Response:
        body = body_of(request.environ)
        body.limit(self._upload_limit_bytes)
        key = idempotency_key()
        reuse = flag("reuse") if "reuse" in request.args else None
        draft = self._backend.begin()
        try:
            name, parameters = read_creation(body, draft, is_name_optional=self._backend.kind == "runs")
            created = self._backend.create(
                protocol.Request(name=name, parameters=parameters, draft=draft, idempotency_key=key, reuse=reuse)
            )
        finally:
            draft.discard()
        url = external_base() + item(created, self._backend.kind)
        return json_response({"result": "success", "name": created, "url": url}, headers={"Location": url})

    # One artifact or run

    def info(self, name: str) -> Response:
        return json_response(self._backend.info(name))

    def rename(self, name: str) -> Response:
        body = body_of(request.environ)
        body.limit(_CHANGE_LIMIT_BYTES)
        new_name = read_new_name(body)
        self._backend.rename(name, new_name)
        url = external_base() + item(new_name, self._backend.kind)
        return json_response({"result": "success", "name": new_name, "url": url}, headers={"Location": url})

    def delete(self, name: str) -> Response:
        kept = self._backend.delete(name, with_artifacts=flag("artifacts"))
        return json_response({"result": "success"} | ({"kept": kept} if self._backend.kind == "runs" else {}))

    def cancel(self, name: str) -> Response:
        return json_response(self._backend.cancel(name).to_json())

    def status(self, name: str) -> Response:
        wait_s = seconds("wait", maximum=WAIT_MAX_S)
        status = self._backend.status(name)
        if wait_s > 0 and not status.is_final:
            wait_for(self._backend.when_final(name), wait_s, request.environ)
            status = self._backend.status(name)
        return json_response(status.to_json())

    # Its files and inputs

    def data(self, name: str, path: str = "") -> Response:
        path = _inside(path)
        files = self._backend.data(name, path)
        if len(files) == 1 and (path == "" or files[0].entry.path == path):
            return send_file(files[0])
        if not files and path:
            raise NotFoundError(
                f"{name} has no file or folder {path!r}; GET {item(name, self._backend.kind)}/files lists all files."
            )
        return send_zip(files, path.rpartition("/")[2] or name, path)

    def files(self, name: str) -> Response:
        manifest = self._backend.manifest(name)
        return json_response(manifest.to_json(), headers={"ETag": f'"{manifest.digest}"'})

    def input_parameters(self, name: str) -> Response:
        return json_response(dict(self._backend.input_parameters(name)))

    def input_files(self, name: str) -> Response:
        return json_response(list(self._backend.input_files(name)))

    def input_file(self, name: str, file: str) -> Response:
        return send_file(self._backend.input_file(name, _inside(file)))

    # Its log and metrics

    def log(self, name: str) -> Response:
        offset = integer("offset", minimum=0, maximum=OFFSET_MAX) or 0
        follow = flag("follow")
        self._backend.status(name)  # raises NotFoundError now, not in the middle of the answer
        lines = iter(self._backend.log(name, offset=offset, follow=follow))
        content: Iterable[bytes] = send_followed(lines) if follow else _log_so_far(lines)
        response = Response(content, content_type="text/plain; charset=utf-8")
        response.headers["X-Accel-Buffering"] = "no"  # nginx must not buffer lines
        return response

    def metrics(self, name: str) -> Response:
        return json_response(list(self._backend.metrics(name)))

    def metric(self, name: str, metric: str) -> Response:
        _check_metric(name, metric, self._backend.metrics(name))
        return json_response(list(METRIC_VIEWS))

    def metric_view(self, name: str, metric: str, view: str) -> Response:
        known = self._backend.metrics(name)
        if (view not in METRIC_VIEWS or metric not in known) and f"{metric}/{view}" in known:
            # `view` is not a view, but the last part of a metric name with slashes.
            return self.metric(name, f"{metric}/{view}")
        _check_metric(name, metric, known)
        if view not in METRIC_VIEWS:
            raise NotFoundError(f"There is no view {view[:40]!r}; the views are {', '.join(METRIC_VIEWS)}.")
        offset = integer("offset", minimum=0, maximum=OFFSET_MAX) or 0
        size_bytes, pieces = self._points_so_far(name, metric, offset)
        headers = {"X-Next-Offset": str(offset + size_bytes)}
        if view == "json":
            return Response(_short(as_json(pieces), size_bytes), headers=headers, content_type="application/json")
        if view == "csv":
            content = _short(as_csv(pieces), size_bytes)
            return Response(content, headers=headers, content_type="text/csv; charset=utf-8")
        headers["Content-Length"] = str(size_bytes)
        return Response(pieces, headers=headers, content_type="text/plain; charset=utf-8")

    def _points_so_far(self, name: str, metric: str, offset: int) -> tuple[int, Iterable[bytes]]:
        """Return the size of all complete lines, and the lines; read many lines again during the sending."""
        held: list[bytes] = []
        size_bytes = 0
        for piece in self._backend.metric(name, metric, offset=offset):
            size_bytes += len(piece)
            if size_bytes <= _HELD_POINTS_BYTES:
                held.append(piece)
        if size_bytes <= _HELD_POINTS_BYTES:
            return size_bytes, held
        return size_bytes, _first(self._backend.metric(name, metric, offset=offset), size_bytes)


def _check_metric(name: str, metric: str, known: Collection[str]) -> None:
    if metric not in known:
        raise NotFoundError(f"{name} has no metric {metric[:128]!r}.")


def _inside(path: str) -> str:
    """Return the path without a trailing slash; raise NotFoundError if it could lead out of an artifact."""
    path = path.removesuffix("/")
    if path and (not path.isprintable() or "\\" in path or {"", ".", ".."} & set(path.split("/"))):
        raise NotFoundError(f"{path[:128]!r} is not a valid path inside an artifact.")
    return path


def _log_so_far(lines: Iterator[bytes]) -> Iterable[bytes]:
    """Return a short log as one piece, so that its length is known, and a long log piece by piece."""
    pieces: list[bytes] = []
    size = 0
    for piece in lines:
        pieces.append(piece)
        size += len(piece)
        if size > _SIZED_LOG_BYTES:
            return _chain(pieces, lines)
    return [b"".join(pieces)]


def _chain(pieces: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    yield from pieces
    yield from rest


def _first(pieces: Iterable[bytes], size_bytes: int) -> Iterator[bytes]:
    """Yield the first `size_bytes`; a growing file may have more lines meanwhile."""
    for piece in pieces:
        yield piece[:size_bytes]
        size_bytes -= len(piece)
        if size_bytes <= 0:
            return


def _short(pieces: Iterator[bytes], size_bytes: int) -> Iterable[bytes]:
    """Return few points as one piece, so that the length is known."""
    return [b"".join(pieces)] if size_bytes <= _HELD_POINTS_BYTES else pieces
