"""Makes inputs that are almost valid: valid inputs with a few changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from random import Random
from typing import Any

__all__ = ["mutated_bytes", "mutated_json", "mutated_text", "odd_text", "odd_value"]

_TEXTS = (
    "",
    " ",
    "\0",
    "\n",
    "\r\n",
    "\r\nX: y",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "%2e%2e",
    "%",
    "%00",
    "%zz",
    "{",
    "{0}",
    "{path.__class__}",
    "[",
    "]",
    "[::1",
    "\\",
    "//",
    ";",
    ",",
    ":",
    "@",
    "#",
    "?",
    '"',
    "'",
    "<b>",
    "é",
    "\u0661",
    "\u00b2",
    "\uff0e",
    "\u3002",
    "\u2028",
    "\ufeff",
    "\U0001f600",
    "~nobody",
    "nan",
    "inf",
    "-0",
    "1_0",
    "0x10",
    "1e999",
    "9" * 19,
    "9" * 40,
    "9" * 5000,
    "a" * 70,
    "a" * 300,
)
_NUMBERS = (0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"))
_EDGE_BYTES = b'\0\x01\x7f\x80\xff\r\n-"%/{}[]:, 09azAZ'


def odd_text(random: Random) -> str:
    """Return a text that many parsers fail on. Sometimes it is not valid Unicode."""
    if random.random() < 0.02:
        return "\ud800"
    if random.random() < 0.2:
        return "".join(chr(random.choice((random.randrange(128), random.randrange(0xD800)))) for _ in range(3))
    return random.choice(_TEXTS)


def odd_value(random: Random) -> Any:
    """Return a JSON value that is rarely valid."""
    kind = random.randrange(6)
    if kind == 0:
        return random.choice(_NUMBERS)
    if kind == 1:
        return random.choice((None, True, False, [], {}, [[]], {"": {}}, [None]))
    if kind == 2:
        value: Any = 1
        for _ in range(random.choice((3, 50, 400))):
            value = [value] if random.random() < 0.5 else {"a": value}
        return value
    return odd_text(random)


def mutated_bytes(random: Random, data: bytes, words: Sequence[bytes] = ()) -> bytes:
    """Return `data` with up to four changes. A change may insert one of `words` or an odd byte."""
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        data = _changed_bytes(random, data, words)
    return data


def _changed_bytes(random: Random, data: bytes, words: Sequence[bytes]) -> bytes:
    begin = random.randrange(len(data) + 1)
    end = min(len(data), begin + random.choice((0, 0, 1, 1, 2, 4, 16, 64)))
    match random.randrange(5):
        case 0:
            return data[:begin]
        case 1:
            return data[:begin] + data[end:]
        case 2:
            return data[:end] + data[begin:]
        case 3 if words:
            return data[:begin] + random.choice(words) + data[end:]
        case _:
            return (
                data[:begin] + bytes([random.choice((random.choice(_EDGE_BYTES), random.randrange(256)))]) + data[end:]
            )


def mutated_text(random: Random, text: str, words: Sequence[str] = ()) -> str:
    """Return `text` with up to four changes. A change may insert one of `words` or an odd text."""
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        begin = random.randrange(len(text) + 1)
        end = min(len(text), begin + random.choice((0, 0, 1, 1, 2, 4, 16)))
        word = random.choice(words) if words and random.random() < 0.5 else odd_text(random)
        text = text[:begin] + random.choice((word, word, "", text[begin:end] * 2)) + text[end:]
    return text


def mutated_json(random: Random, value: Any) -> Any:
    """Return a copy of a JSON value with up to three parts changed, removed or added."""
    value = copy.deepcopy(value)
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        value = _changed(random, value)
    return value


def _changed(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        match random.randrange(6):
            case 0:
                del value[key]
            case 1:
                value[odd_text(random)] = value[key]
            case _:
                value[key] = _changed(random, value[key])
        return value
    if isinstance(value, list) and value and random.random() < 0.9:
        place = random.randrange(len(value))
        match random.randrange(6):
            case 0:
                del value[place]
            case 1:
                value.insert(place, odd_value(random))
            case _:
                value[place] = _changed(random, value[place])
        return value
    if isinstance(value, str) and random.random() < 0.4:
        return mutated_text(random, value)
    return odd_value(random)
