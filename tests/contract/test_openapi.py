"""The OpenAPI document is right: valid and complete, and schemathesis finds no contradiction to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from tests.contract import memory_app
from tests.contract.serving import ROOT, Server
from tests.wire_errors import wire_errors

HERE = Path(__file__).parent


@pytest.mark.parametrize("kind", ["artifacts", "runs"])
def test_document_is_valid_and_complete(kind: str) -> None:
    """It is OpenAPI 3.1, has each route of the app with its methods and no other, and each error code."""
    app = memory_app.create(kind)
    document = app.test_client().get("/openapi.json").json
    validate(document)
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule not in app.twins
    }
    documented = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert routes == documented
    codes = document["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    assert set(codes) == {cls.code for cls in wire_errors()}


def test_document_names_the_tools_parameters() -> None:
    """The body of a POST is exact for this tool, so that clients can be generated and requests be checked."""
    document = memory_app.create().test_client().get("/openapi.json").json
    form = document["components"]["schemas"]["CreateByForm"]["properties"]
    assert form["upload"]["format"] == "binary"
    assert form["data"]["properties"]["steps"]["maximum"] == 1000
    assert "upload" not in form["data"]["properties"]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the server may have to be built and started for this test
def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    """Every check of schemathesis over the real server: no 5xx, no undocumented status, shape or content type."""
    argv = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
    # Each POST that is accepted makes a run, which costs more than an artifact.
    argv += [f"{server.url}/openapi.json", f"--max-examples={4 if server.step else 8}"]
    argv += ["--seed=1", "--suppress-health-check=all", "--no-color"]
    argv += ["--continue-on-failure", "--request-timeout=20"]
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.contract.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=140, check=False)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert server.get("/healthz").status_code == 200
    # A valid request may start hours of work, and other tests on the same server would wait for it.
    for status in server.get(f"/{server.collection}?detail=1").json():
        if status["result"] == "in-progress":
            server.request("DELETE", status["name"])
