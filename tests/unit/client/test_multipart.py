"""Uploads arrive complete, whatever their size, and are never held in memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import pytest
from werkzeug.formparser import parse_form_data

from bonseyes_dagster.client import Container
from bonseyes_dagster.client._multipart import Multipart
from bonseyes_dagster.errors import InvalidError
from tests.unit.client.scripted_server import Answer, ScriptedServer


def parsed(content: bytes, content_type: str) -> tuple[dict[str, str], dict[str, tuple[str | None, bytes]]]:
    """Parse a body with the parser of the services' framework."""
    environ = {
        "wsgi.input": io.BytesIO(content),
        "CONTENT_LENGTH": str(len(content)),
        "CONTENT_TYPE": content_type,
        "REQUEST_METHOD": "POST",
    }
    _, fields, files = parse_form_data(environ)
    contents = {}
    for name, file in files.items():
        with file.stream as stream:
            contents[name] = (file.filename, stream.read())
    return fields.to_dict(), contents


def test_fields_and_files_arrive(tmp_path: Path) -> None:
    """A file may be a path, bytes, or an open file, which is sent from its current position."""
    path = tmp_path / 'naïve "x".gz'
    path.write_bytes(b"\r\n--not a boundary\r\n" * 1000)
    stream = io.BytesIO(b"skipped rest")
    stream.seek(8)
    body = Multipart([("name", "ä")], {"images": path, "labels": b"", "extra": stream})
    content = b"".join(body)
    assert len(content) == len(body)
    fields, files = parsed(content, body.content_type)
    assert fields == {"name": "ä"}
    assert files["images"][1] == path.read_bytes()
    assert files["labels"] == ("labels", b"")
    assert files["extra"][1] == b"rest"


def test_body_can_be_sent_twice(tmp_path: Path) -> None:
    """A retry sends the same bytes, also of open files."""
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    body = Multipart([], {"a": path, "b": io.BytesIO(b"678")})
    assert b"".join(body) == b"".join(body)


def test_unreadable_file_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """The error names the parameter and the path."""
    with pytest.raises(InvalidError, match=r"images: .* cannot be read"):
        Multipart([], {"images": tmp_path / "none"})
    with pytest.raises(InvalidError, match="cannot be read"):
        Multipart([], {"images": tmp_path})


def test_file_that_shrinks_fails_the_request(tmp_path: Path) -> None:
    """The client has promised a Content-Length, and must not send other bytes instead."""
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    body = Multipart([], {"f": path})
    path.write_bytes(b"x")
    with pytest.raises(InvalidError, match="shorter"):
        b"".join(body)


def test_large_upload_needs_little_memory(tmp_path: Path) -> None:
    """The client reads the file of 64 MB in pieces."""
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        assert sum(map(len, Multipart([], {"f": path}))) > 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_create_uploads_with_a_length_and_a_key(server: ScriptedServer, container: Container, tmp_path: Path) -> None:
    """A server can refuse an upload by its Content-Length, and recognizes a retry by the Idempotency-Key."""
    path = tmp_path / "images.gz"
    path.write_bytes(b"z" * 3_000_000)
    server.on("POST", "/artifacts", Answer({"result": "success", "name": "a", "url": "x"}))
    source = container.artifact("other")
    handle = container.create("a", {"size": 28, "dataset": source}, {"images": path}, reuse=True)
    call = server.calls[0]
    assert handle.name == "a"
    assert "Transfer-Encoding" not in call.headers
    assert call.query == {"reuse": "true"}
    assert call.headers["Idempotency-Key"]
    assert call.headers["Content-Length"] == str(len(call.body))
    fields, files = parsed(call.body, call.headers["Content-Type"])
    assert json.loads(fields["data"]) == {"size": 28, "dataset": "http://training/artifacts/other"}
    assert files["images"] == ("images.gz", path.read_bytes())


def test_create_without_files_is_json(server: ScriptedServer, container: Container) -> None:
    """A request without files needs no form."""
    server.on("POST", "/artifacts", Answer({"result": "success", "name": "a", "url": "x"}))
    container.create("a", {"x": 1}, idempotency_key="k")
    call = server.calls[0]
    assert json.loads(call.body) == {"name": "a", "parameters": {"x": 1}}
    assert (call.headers["Content-Type"], call.headers["Idempotency-Key"]) == ("application/json", "k")
