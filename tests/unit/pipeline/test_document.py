"""The OpenAPI document of a pipeline is valid and has every route."""

from __future__ import annotations

from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator

from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.pipeline.app import create_app
from bonseyes_dagster.pipeline.document import pipeline_document
from bonseyes_dagster.pipeline.runs import Runs
from bonseyes_dagster.settings import Settings

PROJECT = Path(__file__).parents[3]


def test_document_is_valid_openapi() -> None:
    """By the specification's own validator."""
    pipeline = load_pipeline(PROJECT, "digits-cnn")
    document = pipeline_document(pipeline.describe(), pipeline.name_length)
    OpenAPIV31SpecValidator(document).validate()


def test_document_leaves_room_for_the_names_of_steps() -> None:
    """A client that goes by the document is not refused for the length of a name."""
    pipeline = load_pipeline(PROJECT, "digits-cnn")
    document = pipeline_document(pipeline.describe(), pipeline.name_length)
    name, empty = document["components"]["schemas"]["CreateByJson"]["properties"]["name"]["anyOf"]
    assert name["maxLength"] == 128 - len("_process_train")
    assert empty["maxLength"] == 0


def test_document_has_every_route(tmp_path: Path) -> None:
    """And no others."""
    settings = Settings(volume=tmp_path)
    runs = Runs(load_pipeline(PROJECT, "digits-cnn"), settings, volume=tmp_path, workspace=tmp_path / "w.yaml")
    app = create_app(runs, settings)
    routes = {rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}") for rule in app.url_map.iter_rules()}
    twins = {route.replace("input_", "input-") for route in routes}
    assert twins == set(pipeline_document(runs.describe(), runs.pipeline.name_length)["paths"])


def test_task_and_description_need_no_dagster(tmp_path: Path) -> None:
    """The task and the description are the definition's own."""
    settings = Settings(volume=tmp_path, url="http://gateway:8000/")
    pipeline = load_pipeline(PROJECT, "digits-mlp")
    runs = Runs(pipeline, settings, volume=tmp_path, workspace=tmp_path / "w.yaml")
    client = create_app(runs, settings).test_client()
    assert client.get("/task").json == pipeline.task.to_json()
    described = client.get("/").json
    assert described["artifacts"] == ["/runs"]
    assert described["dagster"] == {
        "job": "digits_mlp",
        "url": "http://gateway:8000/dagster/locations/definitions/jobs/digits_mlp",
    }
    assert client.get("/containers/nobody").status_code == 404
    assert client.get("/containers?type=nothing").status_code == 400
