"""The dashboard's routes: the registry as JSON and the page of the project."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from flask import Blueprint, Response, make_response, render_template, request

from bonseyes_dagster.dashboard.containers import Containers, makes_runs
from bonseyes_dagster.dashboard.registry import Registry, check_name
from bonseyes_dagster.errors import InvalidError, UnsupportedMediaError
from bonseyes_dagster.formats.json_text import format_json
from bonseyes_dagster.web.app import json_response
from bonseyes_dagster.web.connection import body_of
from bonseyes_dagster.web.requests.json_text import parse_json
from bonseyes_dagster.web.requests.queries import external_base

__all__ = ["dashboard_blueprint"]

_BODY_LIMIT_BYTES = 64 * 1024
_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'self'"
)


def dashboard_blueprint(registry: Registry, containers: Containers) -> Blueprint:
    """Return the blueprint with all routes of the dashboard."""
    blueprint = Blueprint("dashboard", __name__, template_folder="templates", static_folder="static")

    @blueprint.get("/")
    def page() -> Response:
        return _page(containers)

    @blueprint.get("/pipelines")
    def pipelines() -> Response:
        return json_response(containers.pipelines())

    @blueprint.get("/containers")
    def list_containers() -> Response:
        return json_response(containers.descriptions())

    @blueprint.post("/containers")
    def register() -> Response:
        name = _posted_name()
        containers.check_known(name)
        registry.add(name)
        return json_response({"result": "success", "name": name, "url": f"{external_base()}/containers/{name}"})

    @blueprint.delete("/containers/<name>")
    def remove(name: str) -> Response:
        registry.remove(name)
        return json_response({"result": "success"})

    return blueprint


def _posted_name() -> str:
    if request.mimetype != "application/json":
        raise UnsupportedMediaError('The body must be JSON such as {"name": "training"}.')
    body = body_of(request.environ)
    body.limit(_BODY_LIMIT_BYTES)
    value = parse_json(b"".join(iter(body.read, b"")), "the body")
    if not isinstance(value, dict) or "name" not in value:
        sentence = "It is missing; it must be the container's name."
        raise InvalidError(f"name: {sentence}", detail={"name": sentence})
    return check_name(value["name"])


def _page(containers: Containers) -> Response:
    descriptions = containers.descriptions()
    pipelines = {name: text for name, text in descriptions.items() if makes_runs(text)}
    answer = make_response(
        render_template(
            "dashboard.html",
            root=_root(),
            asset=_asset,
            pipelines=pipelines,
            tasks={name: containers.task(name) for name in pipelines},
            containers=descriptions,
            known=format_json(descriptions),  # not Jinja's `tojson`, which sorts the parameters
        )
    )
    answer.mimetype = "text/html"
    answer.headers["Content-Security-Policy"] = _POLICY
    answer.headers["Cache-Control"] = "no-cache"
    return answer


def _root() -> str:
    """Return the path of the gateway's root; the browser may open the page below /containers/dashboard/, too."""
    base = urlsplit(external_base()).path
    parts = base.rsplit("/containers/", 1)
    return parts[0] if len(parts) == 2 and "/" not in parts[1] else base


@cache
def _asset(name: str) -> str:
    """Return the URL of a static file; its digest makes browsers load a new version at once."""
    content = (Path(__file__).parent / "static" / name).read_bytes()
    return f"static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
