"""What a pipeline container answers beside the uniform routes: its task, its containers and their artifacts."""

from __future__ import annotations

from flask import Blueprint, Response, request

from bonseyes_dagster.errors import BadRequestError
from bonseyes_dagster.pipeline.document import KINDS, UNREACHABLE_HEADER
from bonseyes_dagster.pipeline.runs import Runs
from bonseyes_dagster.pipeline.survey import Survey
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
        entries = Survey(runs.pipeline, runs.asker).containers()
        return json_response([entry for entry in entries if wanted in (None, entry["type"])])

    @blueprint.get("/containers/<name>")
    def container(name: str) -> Response:
        return json_response(Survey(runs.pipeline, runs.asker).container(name))

    @blueprint.get("/artifacts")
    def artifacts() -> Response:
        _type()
        filters = {key: request.args[key] for key in ("type", "output_type", "status") if key in request.args}
        entries, missing = Survey(runs.pipeline, runs.asker).artifacts(filters)
        return json_response(entries, headers={UNREACHABLE_HEADER: ", ".join(missing)} if missing else None)

    return blueprint


def _type() -> str | None:
    wanted = request.args.get("type")
    if wanted is not None and wanted not in KINDS:
        raise BadRequestError(f"query parameter 'type' must be one of {', '.join(KINDS)}, not {wanted[:40]!r}")
    return wanted
