"""The parser of multipart forms: valid forms, compared with werkzeug's parser, and invalid forms."""

from __future__ import annotations

import contextlib
import io
import re
from random import Random

from werkzeug.formparser import MultiPartParser

from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.web.requests.multipart import read_parts
from tests.fuzz.cases import fuzz
from tests.fuzz.mutation import mutated_bytes

_NAMES = ("name", "data", "upload", "a.b-c", "ä", 'with "quotes"', "semi;colon")
_CONTENTS = (b"", b"x", b"\r\n", b"--", b"\r\n--", b"\r\n--b", b"--bb-", b"\n--bb", b"\r", b"\0\xff", b"x" * 3000)
_WORDS = (
    b"--bb",
    b"\r\n",
    b"--bb--",
    b"Content-Disposition: form-data",
    b'; name="a"',
    b"; filename*=UTF-8''%e4",
    b":",
)

_Part = tuple[str, str | None, bytes]


def make_form(random: Random) -> tuple[bytes, list[_Part]]:
    """Return a valid form and its parts."""
    parts: list[_Part] = []
    body = b""
    for _ in range(random.randrange(5)):
        name = random.choice(_NAMES)
        filename = random.choice((None, "", "a.bin", "ü.txt", "a b;c.txt"))
        content = b"".join(random.choices(_CONTENTS, k=random.randrange(4)))
        if b"\r\n--bb" in b"\r\n" + content:
            continue
        parts.append((name, filename, content))
        quoted = name.replace('"', '\\"')
        head = f'Content-Disposition: form-data; name="{quoted}"'
        head += "" if filename is None else f'; filename="{filename}"'
        lines = [head, "Content-Type: application/octet-stream"][: random.choice((1, 2))]
        body += b"--bb\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + b"--bb--\r\n", parts


def read(body: bytes, sizes: list[int]) -> list[_Part]:
    """Return the parts of a form. The parser receives it in pieces of these sizes."""
    stream, number = io.BytesIO(body), iter(range(10**9))
    found = read_parts(lambda: stream.read(sizes[next(number) % len(sizes)]), "bb")
    return [(part.name, part.filename, b"".join(part.content)) for part in found]


def werkzeug_read(body: bytes) -> list[_Part]:
    """Return the parts of a form from werkzeug's parser: first the fields, then the files."""
    fields, files = MultiPartParser(stream_factory=lambda *_, **__: io.BytesIO()).parse(
        io.BytesIO(body), b"bb", len(body)
    )
    found: list[_Part] = [(name, None, text.encode("utf-8", "replace")) for name, text in fields.items(multi=True)]
    return found + [(name, file.filename, file.read()) for name, file in files.items(multi=True)]


def by_name(parts: list[_Part]) -> list[tuple[str, bytes]]:
    """Return names and contents, sorted by name. Parts of the same name keep their order."""
    return sorted(((name, content) for name, _, content in parts), key=lambda part: part[0])


def test_a_valid_form_gives_its_parts() -> None:
    """This holds for any split into pieces. werkzeug's parser gives the same parts."""

    def make(random: Random) -> tuple[bytes, list[_Part], list[int]]:
        return (*make_form(random), random.choices((1, 2, 3, 7, 64, 4096), k=3))

    def check(case: tuple[bytes, list[_Part], list[int]]) -> None:
        body, parts, sizes = case
        assert read(body, sizes) == parts
        if any(re.search(rb"[\r\n]--bb", content) for _, _, content in parts):
            return  # for werkzeug a lone newline ends a line, for RFC 2046 it does not
        plain = [part for part in parts if part[1] is not None]
        theirs = [part for part in werkzeug_read(body) if part[1] is not None]
        assert by_name(theirs) == by_name(plain)

    fuzz("right forms", make, check)


def test_an_invalid_form_raises_bonseyes_error() -> None:
    """If the parser accepts a form, any split into pieces gives the same parts."""

    def check(body: bytes) -> None:
        results = []
        for sizes in ([1], [5], [1 << 18]):
            with contextlib.suppress(BonseyesError):
                results.append(read(body, sizes))
        # If a boundary is inside a line before the first part, the library's result depends on the split.
        assert results[1:] == results[:-1] or not body.startswith(b"--bb")

    fuzz("wrong forms", lambda random: mutated_bytes(random, make_form(random)[0][:6000], _WORDS), check)
