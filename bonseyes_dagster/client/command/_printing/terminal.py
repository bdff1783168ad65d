"""Text of servers on its way to a terminal: shown, and kept from steering it; other programs get the very bytes."""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator

__all__ = ["escape", "write_bytes"]

# A colour, which is safe, or the beginning of one at the end of a piece.
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,24}m")
_BEGINNING = re.compile(r"(?:\x1b(?:\[[0-9;]{0,24})?|\r)\Z")
_RESET = "\x1b[0m"


def write_bytes(pieces: Iterable[bytes]) -> None:
    """Write bytes to standard output as they come: as they are, or escaped when it is a terminal."""
    if not sys.stdout.isatty():
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return
    for text in _texts(pieces):
        sys.stdout.write(text)
        sys.stdout.flush()


def escape(text: str) -> str:
    """Return text with newlines, tabs and colours, and with every other control character in writing.

    A carriage return is a new line, as it would hide what is before it.
    """
    shown, end = [], 0
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for colour in _COLOUR.finditer(text):
        shown += [_escaped(text[end : colour.start()]), colour[0]]
        end = colour.end()
    shown.append(_escaped(text[end:]))
    return "".join(shown) + (_RESET if end else "")


def _texts(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for piece in pieces:
        text = rest + decoder.decode(piece)
        cut = _BEGINNING.search(text)
        text, rest = (text[: cut.start()], cut[0]) if cut else (text, "")
        yield escape(text)
    yield escape(rest + decoder.decode(b"", final=True))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else _written(c) for c in text
    )


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode()
