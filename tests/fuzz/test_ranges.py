"""Range, If-Range and the other conditional headers, compared with RFC 9110."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from flask import Flask, Response

from bonseyes_dagster.model import FileEntry
from bonseyes_dagster.web.app import create_app
from bonseyes_dagster.web.backend import DataFile
from bonseyes_dagster.web.responses.downloads import send_file
from tests.fuzz.cases import fuzz
from tests.fuzz.mutation import mutated_text
from tests.fuzz.wsgi import Answer, check_answer, send_request

SIZE = 26
CONTENT = bytes(range(97, 97 + SIZE))
TAG = "0" * 64
_RANGES = (
    "bytes=0-4",
    "bytes=5-",
    "bytes=-3",
    "bytes=0-0",
    "bytes=25-25",
    "bytes=26-",
    "bytes=-0",
    "bytes=0-99",
    "bytes=0-1,3-4",
)
_TAGS = (
    f'"{TAG}"',
    f'W/"{TAG}"',
    TAG,
    '"other"',
    f'"other", "{TAG}"',
    "*",
    "Mon, 01 Jan 2024 00:00:00 GMT",
    f'"{TAG}", x',
    "",
)
_WORDS = (
    "-",
    "=",
    ",",
    "bytes=",
    " ",
    "\t",
    "0",
    "25",
    "26",
    "27",
    "1" * 19,
    "1" * 30,
    "BYTES",
    "\u0661",
    "\u00b2",
    '"',
    "W/",
)
_SPEC = re.compile(r"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.IGNORECASE)


@pytest.fixture(params=[SIZE, 0])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Flask:
    """Return an application with one file."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT[: request.param])
    file = DataFile(FileEntry("file", request.param, TAG), lambda: path.open("rb"))
    made = create_app("file", description=None, check_health=lambda: None, gauges=dict, openapi={})

    @made.get("/file")
    def send() -> Response:
        return send_file(file)

    return made


def spans(text: str, size: int) -> list[tuple[int, int] | None]:
    """Return the answers to a Range that RFC 9110 allows: (begin, end), None for the whole file, (0, 0) for a 416."""
    spec = _SPEC.fullmatch(re.sub(r"[0-9]{31,}", lambda digits: digits[0][-31:].replace("0", "9"), text))
    if spec is None:
        return [None]
    if spec[3] is not None:
        count = int(spec[3])
        # A suffix of an empty file is satisfiable, but Content-Range cannot express it.
        right: tuple[int, int] | None = (max(0, size - count), size) if count and size else None if count else (0, 0)
    elif spec[2] and int(spec[2]) < int(spec[1]):
        return [None]
    elif int(spec[1]) >= size:
        right = (0, 0)
    else:
        right = (int(spec[1]), min(size, int(spec[2]) + 1) if spec[2] else size)
    # A server may ignore any Range. This server ignores it only if a number has more than 18 digits.
    is_long = any(len(number or "") > 18 for number in spec.groups())
    return [right, None] if is_long else [right]


def check_span(answer: Answer, span: tuple[int, int] | None, size: int) -> bool:
    """Return whether the answer has this part of the file and the right headers."""
    if span is None:
        return (answer.status, answer.body) == (200, CONTENT[:size])
    if span == (0, 0):
        return answer.status == 416 and answer.headers["content-range"] == f"bytes */{size}"
    begin, end = span
    return (
        answer.status == 206
        and answer.body == CONTENT[:size][begin:end]
        and answer.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
        and answer.headers["content-length"] == str(end - begin)
    )


def size_of(app: Flask) -> int:
    """Return the size of the application's file."""
    return len(send_request(app, "GET", "/file").body)


def test_a_range_gets_an_answer_that_rfc_9110_allows(app: Flask) -> None:
    """The answer has the right bytes and headers, or the whole file, or the status 416."""
    size = size_of(app)

    def check(text: str) -> None:
        answer = send_request(app, "GET", "/file", [("Range", text)])
        check_answer(answer)
        seen = text if text.isascii() else "no range"
        assert any(check_span(answer, span, size) for span in spans(seen, size)), answer

    fuzz(f"ranges of {size} bytes", lambda random: mutated_text(random, random.choice(_RANGES), _WORDS), check)


def test_only_an_equal_etag_in_if_range_gets_a_part(app: Flask) -> None:
    """If-Range uses the strong comparison: a weak tag, an unquoted tag or a date never matches."""
    size = size_of(app)

    def check(text: str) -> None:
        answer = send_request(app, "GET", "/file", [("Range", "bytes=0-4"), ("If-Range", text)])
        check_answer(answer)
        is_match = text.strip(" \t") == f'"{TAG}"'
        [span] = spans("bytes=0-4", size) if is_match else [None]
        assert check_span(answer, span, size), answer

    fuzz(f"If-Range of {size} bytes", lambda random: mutated_text(random, random.choice(_TAGS), _WORDS), check)


@pytest.mark.parametrize("condition", [f'W/"{TAG}"', TAG, f'"{TAG}" x', "*"])
def test_if_range_without_a_strong_tag_gets_the_whole_file(condition: str, app: Flask) -> None:
    """With a weak tag, the bytes may differ."""
    assert send_request(app, "GET", "/file", [("Range", "bytes=0-4"), ("If-Range", condition)]).status == 200


def test_a_suffix_of_an_empty_file_is_the_whole_file(app: Flask) -> None:
    """A request for the last five bytes of an empty file is no error."""
    answer = send_request(app, "GET", "/file", [("Range", "bytes=-5")])
    assert answer.status == (206 if size_of(app) else 200)


def test_any_condition_gets_a_status_of_the_contract(app: Flask) -> None:
    """Two conditional headers may contradict each other."""

    def make(random: Random) -> list[tuple[str, str]]:
        names = random.sample(("If-Match", "If-None-Match", "If-Range", "Range"), 2)
        return [(name, mutated_text(random, random.choice(_TAGS + _RANGES), _WORDS)) for name in names]

    def check(headers: list[tuple[str, str]]) -> None:
        answer = send_request(app, "GET", "/file", headers)
        check_answer(answer)
        assert answer.status in (200, 206, 304, 412, 416)

    fuzz("conditions", make, check)
