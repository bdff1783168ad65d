"""The routes that only a pipeline container has: its task, its containers and their artifacts."""

from __future__ import annotations

from collections.abc import Collection

from flask import Blueprint, Response, request

from bonseyes_dagster.errors import BadRequestError
from bonseyes_dagster.pipeline.document import KINDS, STATUSES, UNREACHABLE_HEADER
from bonseyes_dagster.pipeline.runs import Runs
from bonseyes_dagster.pipeline.survey import ContainerSurvey
from bonseyes_dagster.web.app import json_response

__all__ = ["pipeline_blueprint"]


def pipeline_blueprint(runs: Runs) -> Blueprint:
    """Make the routes `/task`, `/containers` and `/artifacts` of a pipeline."""
    blueprint = Blueprint("pipeline", __name__)

    @blueprint.get("/task")
    def task() -> Response:
        return json_response(runs.pipeline.task.to_json())

    @blueprint.get("/containers")
    def containers() -> Response:
        wanted = _type()
        entries = ContainerSurvey(runs.pipeline, runs.requests).containers()
        return json_response([entry for entry in entries if wanted in (None, entry["type"])])

    @blueprint.get("/containers/<name>")
    def container(name: str) -> Response:
        return json_response(ContainerSurvey(runs.pipeline, runs.requests).container(name))

    @blueprint.get("/artifacts")
    def artifacts() -> Response:
        given = {"type": _type(), "output_type": _value("output_type"), "status": _value("status", STATUSES)}
        filters = {key: value for key, value in given.items() if value is not None}
        entries, missing = ContainerSurvey(runs.pipeline, runs.requests).artifacts(filters)
        return json_response(entries, headers={UNREACHABLE_HEADER: ", ".join(missing)} if missing else None)

    return blueprint


def _type() -> str | None:
    return _value("type", KINDS)


def _value(key: str, allowed: Collection[str] | None = None) -> str | None:
    values = request.args.getlist(key)
    if len(values) > 1:
        raise BadRequestError(f"The query parameter {key!r} is given {len(values)} times; give it once.")
    if values and allowed is not None and values[0] not in allowed:
        raise BadRequestError(
            f"The query parameter {key!r} must be one of {', '.join(allowed)}, not {values[0][:40]!r}."
        )
    return values[0] if values else None
