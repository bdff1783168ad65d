"""Write text of servers to standard output: escaped on a terminal, so that it is harmless; unchanged elsewhere."""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator

__all__ = ["escape", "write_bytes"]

# A colour is a safe escape sequence. A piece of text may end inside of one.
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,24}m")
_BEGINNING = re.compile(r"(?:\x1b(?:\[[0-9;]{0,24})?|\r)\Z")
_RESET = "\x1b[0m"


def write_bytes(pieces: Iterable[bytes]) -> None:
    """Write bytes to standard output as they arrive: escaped on a terminal, unchanged elsewhere."""
    if not sys.stdout.isatty():
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return
    for text in _texts(pieces):
        sys.stdout.write(text)
        sys.stdout.flush()


def escape(text: str) -> str:
    r"""Return `text` with every control character written out, such as `\x1b`, except newlines, tabs and colours.

    A carriage return becomes a newline: on a terminal, it would hide the text before it.
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
