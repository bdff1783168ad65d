"""Forms, against the reading of werkzeug's parser, and forms that are none."""

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


def a_form(random: Random) -> tuple[bytes, list[_Part]]:
    """Return a right form, and its parts."""
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
    """Return the parts of a form that comes in pieces of these sizes."""
    stream, number = io.BytesIO(body), iter(range(10**9))
    found = read_parts(lambda: stream.read(sizes[next(number) % len(sizes)]), "bb")
    return [(part.name, part.filename, b"".join(part.content)) for part in found]


def werkzeug_read(body: bytes) -> list[_Part]:
    """Return the same as werkzeug has it, which keeps fields and files apart."""
    fields, files = MultiPartParser(stream_factory=lambda *_, **__: io.BytesIO()).parse(
        io.BytesIO(body), b"bb", len(body)
    )
    found: list[_Part] = [(name, None, text.encode("utf-8", "replace")) for name, text in fields.items(multi=True)]
    return found + [(name, file.filename, file.read()) for name, file in files.items(multi=True)]


def by_name(parts: list[_Part]) -> list[tuple[str, bytes]]:
    """Return names and contents; of one name, in their order."""
    return sorted(((name, content) for name, _, content in parts), key=lambda part: part[0])


def test_a_form_is_read_as_it_was_written() -> None:
    """Wherever its pieces are cut; and as another parser reads it."""

    def make(random: Random) -> tuple[bytes, list[_Part], list[int]]:
        return (*a_form(random), random.choices((1, 2, 3, 7, 64, 4096), k=3))

    def check(case: tuple[bytes, list[_Part], list[int]]) -> None:
        body, parts, sizes = case
        assert read(body, sizes) == parts
        if any(re.search(rb"[\r\n]--bb", content) for _, _, content in parts):
            return  # werkzeug takes a lone newline for the end of a line, RFC 2046 does not
        plain = [part for part in parts if part[1] is not None]
        theirs = [part for part in werkzeug_read(body) if part[1] is not None]
        assert by_name(theirs) == by_name(plain)

    fuzz("right forms", make, check)


def test_a_form_that_is_none_is_refused() -> None:
    """With an error of ours; one that is taken has the same parts wherever its pieces are cut."""

    def check(body: bytes) -> None:
        results = []
        for sizes in ([1], [5], [1 << 18]):
            with contextlib.suppress(BonseyesError):
                results.append(read(body, sizes))
        # Of a boundary in the middle of a line before the first part, the library thinks now this, now that.
        assert results[1:] == results[:-1] or not body.startswith(b"--bb")

    fuzz("wrong forms", lambda random: mutated_bytes(random, a_form(random)[0][:6000], _WORDS), check)
