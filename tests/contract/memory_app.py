"""The in-memory sample tool as a WSGI application for a real server: `memory_app:from_environ()`."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from flask import Flask

from bonseyes_dagster.description import load_description
from bonseyes_dagster.errors import ToolError
from bonseyes_dagster.urls import Collection, collection
from bonseyes_dagster.web.app import create_app
from bonseyes_dagster.web.openapi import service_document
from bonseyes_dagster.web.routes import artifact_blueprint
from tests.contract.memory import Job, MemoryBackend

SAMPLE = Path(__file__).parent / "tools" / "sample"


def make(job: Job) -> None:
    """Do the same as the function in tools/sample/sample.py."""
    parameters = job.parameters
    job.log("begin")
    for step in range(parameters["steps"]):
        job.scalar("loss", step, 1.0 / (step + 1))
        job.progress(step + 1, parameters["steps"], "step")
        job.log(f"step {step}")
        job.sleep(parameters["pause"])
    if parameters["fail"]:
        raise ToolError(parameters["fail"])
    for path in parameters["files"]:
        job.path(path).write_bytes(parameters["text"].encode() * parameters["repeat"])
    if "upload" in job.uploads:
        shutil.copyfile(job.uploads["upload"], job.path("upload.bin"))
    job.log("end")


def create(kind: str = "artifacts", upload_limit_bytes: int | None = None, folder: Path | None = None) -> Flask:
    """Return the application; its files are below `folder`."""
    of: Collection = "runs" if kind == "runs" else "artifacts"
    description = replace(load_description(SAMPLE), collection=collection(of))
    backend = MemoryBackend(description, make, kind=of, folder=folder)
    app = create_app(
        description.name,
        description=lambda: backend.describe().to_json(),
        check_health=backend.check_health,
        gauges=backend.gauges,
        openapi=service_document(description, backend.kind),
    )
    app.register_blueprint(artifact_blueprint(backend, upload_limit_bytes=upload_limit_bytes))
    return app


def from_environ() -> Flask:
    """Return the application for $SAMPLE_KIND, with its files below the working folder."""
    return create(os.environ.get("SAMPLE_KIND", "artifacts"), folder=Path.cwd() / "memory")
