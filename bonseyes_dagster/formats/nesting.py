"""How deep a JSON text is nested, measured before anything parses it; the doors and the checks of values ask."""

from __future__ import annotations

from itertools import accumulate

__all__ = ["BODY_DEPTH_LIMIT", "VALUE_DEPTH_LIMIT", "depth_of"]

# Parsers, pickle and JSON Schema recurse, and all end at about 1,000. A body has its values two levels down.
VALUE_DEPTH_LIMIT = 64
BODY_DEPTH_LIMIT = 100

_BRACKETS = b"[]{}"
_REST = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_STEPS = {byte: 1 if byte in b"[{" else -1 for byte in _BRACKETS}


def depth_of(text: bytes) -> int:
    """Return how many arrays and objects of a JSON text lie inside each other, in linear time and without recursion."""
    # Without its escapes, a text has a string between every two quotes.
    outside = text.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2]
    brackets = b"".join(outside).translate(None, _REST)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
