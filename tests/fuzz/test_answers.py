"""The client and the charts read the answers of a container. Any server may have sent them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests

from bonseyes_dagster.client import Container
from bonseyes_dagster.client._artifact import _inside
from bonseyes_dagster.errors import BonseyesError, DigestMismatchError, UnexpectedAnswerError, error_from_json
from bonseyes_dagster.model import FileEntry, Manifest, Parameter, Progress, Status, Step, Task, ToolDescription
from bonseyes_dagster.visualization.series import Series
from tests.fuzz.cases import CASES, fuzz
from tests.fuzz.mutation import mutated_bytes, mutated_json, mutated_text

_STEP = Step(name="a", container="training", artifact="x", phase="running", progress=Progress(1, 2, "s", "m"))
_STATUS = Status(
    name="a", phase="running", reason="r", position=1, created="2024-01-01T00:00:00.000Z", size=3, steps=(_STEP,)
)
_PARAMETER = Parameter(name="p", type="choice", choices=("a", "b"), default="a")
_TOOL = ToolDescription(name="t", description="d", parameters=(_PARAMETER,), output_type="o", version="1")
_TASK = Task(name="t", description="d", output="o", constraints=({"metric": "m", "minimum": 1},), archives={"a": "b"})
_MANIFEST = Manifest((FileEntry("a/b.txt", 3, "0" * 64), FileEntry("c.bin", 0, "1" * 64)))


def use_status(status: Status) -> None:
    """Read the properties of a status."""
    assert status.is_final in (True, False)
    assert status.result
    json.dumps(status.to_json())
    for step in status.steps or ():
        assert step.is_selected in (True, False)


def use_manifest(manifest: Manifest) -> None:
    """Compute the paths of its files in a folder, as a download does."""
    assert manifest.size >= 0
    for entry in manifest.files:
        try:
            target = _inside(Path("/tmp/folder"), entry.path)
        except DigestMismatchError:
            continue
        assert target.resolve().is_relative_to("/tmp/folder")
        assert target != Path("/tmp/folder")


def use_tool(tool: ToolDescription) -> None:
    """Convert the description to JSON."""
    json.dumps(tool.to_json())


_READERS = {
    "status": (_STATUS.to_json(), Status.from_json, use_status),
    "manifest": (_MANIFEST.to_json(), Manifest.from_json, use_manifest),
    "description": (_TOOL.to_json(), ToolDescription.from_json, use_tool),
    "task": (_TASK.to_json(), Task.from_json, lambda task: json.dumps(task.to_json())),
}


def make_response(content: bytes) -> requests.Response:
    """Return a response with this body."""
    response = requests.Response()
    response.status_code, response._content, response.url = 200, content, "http://training/x"
    return response


@pytest.mark.parametrize("kind", _READERS)
def test_an_answer_is_parsed_or_raises_unexpected_answer_error(kind: str) -> None:
    """A parsed object works without further checks."""
    whole, parse, use = _READERS[kind]
    transport = Container("http://training").transport

    def make(random: Random) -> bytes:
        if random.random() < 0.3:
            return mutated_bytes(random, json.dumps(whole).encode(), (b"null", b"[" * 100_000, b"NaN", b"9" * 5000))
        return json.dumps(mutated_json(random, whole)).encode()

    def check(content: bytes) -> None:
        try:
            found: Any = transport.parsed(make_response(content), parse)
        except UnexpectedAnswerError:
            return
        use(found)

    fuzz(f"answers with a {kind}", make, check)


@pytest.mark.parametrize("change", [{"path": "\ud800"}, {"path": 1}, {"size": "3"}, {"size": -1}, {"sha256": None}])
def test_a_manifest_with_a_wrong_type_raises_unexpected_answer_error(change: dict[str, Any]) -> None:
    """The parser raises it, not a later download of the files."""
    body = json.dumps([{"path": "a", "size": 3, "sha256": "0" * 64, **change}]).encode()
    with pytest.raises(UnexpectedAnswerError):
        Container("http://training").transport.parsed(make_response(body), Manifest.from_json)


def test_any_error_body_becomes_an_error_with_a_message() -> None:
    """A proxy may send any body."""
    whole = {"error": {"code": "not_found", "message": "m", "detail": {"a": "b"}, "request_id": "r"}}

    def check(case: tuple[int, Any]) -> None:
        error = error_from_json(*case)
        assert isinstance(error, BonseyesError)
        assert str(error)

    fuzz("errors", lambda random: (random.choice((400, 404, 422, 500, 503, 599)), mutated_json(random, whole)), check)


def test_a_chart_has_the_points_of_every_valid_line() -> None:
    """This holds for any split of the text into pieces, and for any invalid lines."""

    def make(random: Random) -> tuple[bytes, list[int]]:
        lines = [f"{1700000000 + i}.5 {i} {random.choice((0.5, -1e300, math.inf, math.nan, 3))}" for i in range(8)]
        words = (" ", "\n", "nan", "1e999", "9" * 5000, "\t", "-", "_", "\x85", "\u0661")
        text = "\n".join(mutated_text(random, line, words) if random.random() < 0.3 else line for line in lines) + "\n"
        return text.encode("utf-8", "surrogatepass"), sorted(random.choices(range(len(text)), k=3))

    def check(case: tuple[bytes, list[int]]) -> None:
        text, cuts = case
        whole, cut = Series(), Series()
        whole.feed([text])
        cut.feed([text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)])
        assert repr(cut.points(100)) == repr(whole.points(100))
        assert cut.offset == whole.offset <= len(text)

    fuzz("metric lines", make, check, cases=CASES)
