"""docs/http_api.md is complete: it has every route, parameter, error and header of the OpenAPI document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.contract import memory_app
from tests.wire_errors import wire_errors

PAGE = (Path(__file__).parents[3] / "docs" / "http_api.md").read_text(encoding="utf-8")


def operations(kind: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (method, path, operation) of all routes; the paths of runs are written as those of artifacts."""
    document = memory_app.create(kind).test_client().get("/openapi.json").json
    return [
        (method.upper(), path.replace("/runs", "/artifacts"), operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def section(method: str, path: str) -> str:
    """Return the text below a route's heading."""
    found = re.search(rf"^### `{re.escape(f'{method} {path}')}`\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
    assert found, f"docs/http_api.md has no heading `{method} {path}`"
    return found[1]


@pytest.mark.parametrize("kind", ["artifacts", "runs"])
def test_every_route_is_documented(kind: str) -> None:
    """A heading for each route, a row for each query and header parameter, and exactly its statuses."""
    for method, path, operation in operations(kind):
        text = section(method, path)
        for parameter in operation["parameters"]:
            if parameter["in"] != "path":
                row = rf"^\|[^|]*`{parameter['name']}`[^|]*\| {parameter['in']} \|"
                assert re.search(row, text, re.M), f"{method} {path} lacks {parameter['name']}"
        statuses = re.search(r"Answers\s+([0-9, \n]+)\.", text)
        assert statuses, f"{method} {path} does not tell its statuses"
        assert set(re.findall(r"\d+", statuses[1])) == set(operation["responses"]), f"{method} {path}"


def test_every_documented_route_exists() -> None:
    """A removed route must be removed from the page, too."""
    known = {f"{method} {path}" for kind in ("artifacts", "runs") for method, path, _ in operations(kind)}
    assert set(re.findall(r"^### `([A-Z]+ /[^`]*)`$", PAGE, re.M)) == known


def test_every_error_is_documented() -> None:
    """Each error of the contract has a row with its status, and no other error has one."""
    rows = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PAGE, re.M))
    assert rows == {(str(cls.http_status), cls.code) for cls in wire_errors()}


def test_every_header_is_documented() -> None:
    """The page names each header of an answer."""
    headers = memory_app.create().test_client().get("/openapi.json").json["components"]["headers"]
    assert [name for name in headers if f"`{name}" not in PAGE] == []


def test_every_key_of_a_status_is_documented() -> None:
    """Each key of the status object has a row."""
    document = memory_app.create("runs").test_client().get("/openapi.json").json
    text = section("GET", "/artifacts/{name}/status")
    keys = document["components"]["schemas"]["Status"]["properties"]
    assert [key for key in keys if not re.search(rf"^\|[^|]*`{key}`", text, re.M)] == []
