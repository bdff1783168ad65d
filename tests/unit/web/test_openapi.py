"""The YAML documents say the same as the constants that the code checks with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import bonseyes_dagster
from bonseyes_dagster.model import NOT_SELECTED, PARAMETER_TYPES, TERMINAL_PHASES
from bonseyes_dagster.pipeline.document import KINDS, STATUSES, UNREACHABLE_HEADER
from bonseyes_dagster.urls import METRIC_CHARACTERS, is_metric_name, is_name
from bonseyes_dagster.web.openapi import merge_patch, read_document
from bonseyes_dagster.web.routes import METRIC_VIEWS, PAGE_MAX
from tests.wire_errors import wire_errors

PACKAGE = Path(bonseyes_dagster.__file__).parent
ARTIFACTS = read_document(PACKAGE / "web" / "openapi.yml")
RUNS = read_document(PACKAGE / "web" / "openapi_runs.yml")
PIPELINE = read_document(PACKAGE / "pipeline" / "openapi.yml")
SCHEMAS = ARTIFACTS["components"]["schemas"]
PHASES = ["queued", "running", *sorted(TERMINAL_PHASES)]


def parameter(document: Any, path: str, method: str, name: str) -> Any:
    """Return the schema of one parameter."""
    return next(each for each in document["paths"][path][method]["parameters"] if each["name"] == name)["schema"]


NAMES = ["a", "a.b", "a..b", ".a", "a.", "-a", "a-", "a_b", "", "a b", "é", "a" * 128, "a" * 129]


@pytest.mark.parametrize("name", NAMES)
def test_the_pattern_of_a_name_takes_what_the_code_takes(name):
    """The document's pattern has no look-ahead, which not every client can read."""
    schema = SCHEMAS["Created"]["properties"]["name"]
    assert (re.search(schema["pattern"], name) is not None and len(name) <= schema["maxLength"]) == is_name(name)


def test_each_error_has_its_answer_and_its_code():
    """A client generated from the document knows every error."""
    codes = SCHEMAS["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    assert codes == sorted({cls.code for cls in wire_errors()})
    answers = ARTIFACTS["components"]["responses"]
    assert set(answers) == {f"E{cls.http_status}" for cls in wire_errors()}
    for cls in wire_errors():
        assert f"`{cls.code}`: " in answers[f"E{cls.http_status}"]["description"]


def test_phases_and_types_are_those_of_the_model():
    """One list in the code, one in the document."""
    assert SCHEMAS["Status"]["properties"]["phase"]["enum"] == PHASES
    assert SCHEMAS["Parameter"]["properties"]["type"]["enum"] == list(PARAMETER_TYPES)
    assert RUNS["components"]["schemas"]["Step"]["properties"]["phase"]["enum"] == [*PHASES, NOT_SELECTED]


def test_paths_and_queries_are_those_of_the_routes():
    """Views, limits and names of metrics."""
    view = "/artifacts/{name}/metrics/{metric}/{view}"
    assert parameter(ARTIFACTS, view, "get", "view")["enum"] == list(METRIC_VIEWS)
    assert parameter(ARTIFACTS, "/artifacts", "get", "limit")["maximum"] == PAGE_MAX


def test_a_pipelines_lists_are_those_of_its_routes():
    """Kinds of containers, phases and results."""
    assert parameter(PIPELINE, "/containers", "get", "type")["enum"] == list(KINDS)
    assert parameter(PIPELINE, "/artifacts", "get", "status")["enum"] == list(STATUSES)
    assert UNREACHABLE_HEADER in PIPELINE["paths"]["/artifacts"]["get"]["responses"]["200"]["headers"]


def test_merge_patch_follows_its_standard():
    """The cases of RFC 7396, appendix A."""
    cases = [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, "bar", "bar"),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]
    for document, patch, merged in cases:
        assert merge_patch(document, patch) == merged


@pytest.mark.parametrize("name", ["loss", "a/b", "Ä b@c[0]", "1", "é" * 128, "a" * 129, ".a", "", " a", "\\a"])
def test_the_pattern_of_a_metric_takes_every_valid_name(name):
    """It also takes some invalid names: the full rule needs look-ahead, which not every client can read."""
    schema = parameter(ARTIFACTS, "/artifacts/{name}/metrics/{metric}", "get", "metric")
    assert schema["maxLength"] == METRIC_CHARACTERS
    is_described = re.search(schema["pattern"], name) is not None and len(name) <= schema["maxLength"]
    assert is_described or not is_metric_name(name)
