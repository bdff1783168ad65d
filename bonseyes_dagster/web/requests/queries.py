"""Read query values and headers of a request; refuse a wrong value with a message about the right one."""

from __future__ import annotations

import math
import re
from urllib.parse import urlsplit

from flask import request

from bonseyes_dagster.errors import BadRequestError
from bonseyes_dagster.urls import is_name

__all__ = ["external_base", "flag", "idempotency_key", "integer", "name_of", "seconds"]

_TRUE = {"", "1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_KEY_MAX = 255
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")


def _single(key: str) -> str | None:
    values = request.args.getlist(key)
    if len(values) > 1:
        raise BadRequestError(f"The query parameter {key!r} is given {len(values)} times; give it once.")
    return values[0] if values else None


def flag(key: str) -> bool:
    """Return a boolean; `?key` alone is true."""
    text = _single(key)
    if text is None:
        return False
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise BadRequestError(f"The query parameter {key!r} must be true or false, not {text[:40]!r}.")


def integer(key: str, *, minimum: int, maximum: int) -> int | None:
    """Return a whole number in the range; None if the parameter is missing."""
    text = _single(key)
    if text is None:
        return None
    # Plain digits only: int() would also take "1_0", " 1" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,19}", text) or not minimum <= int(text) <= maximum:
        raise BadRequestError(
            f"The query parameter {key!r} must be a whole number from {minimum} to {maximum}, not {text[:40]!r}."
        )
    return int(text)


def seconds(key: str, *, maximum: float) -> float:
    """Return a duration, at most `maximum`; 0 if the parameter is missing."""
    text = _single(key)
    if text is None:
        return 0.0
    # Like a JSON number: float() would also take "inf", "1_0" and digits of other scripts.
    value = float(text) if re.fullmatch(r"[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", text) else math.nan
    if math.isnan(value):
        raise BadRequestError(f"The query parameter {key!r} must be a number of seconds such as 30, not {text[:40]!r}.")
    return min(value, maximum)


def name_of(key: str) -> str | None:
    """Return a name; None if the parameter is missing."""
    text = _single(key)
    if text is not None and not is_name(text):
        raise BadRequestError(f"The query parameter {key!r} must be a name, not {text[:40]!r}.")
    return text


def idempotency_key() -> str | None:
    """Return the Idempotency-Key header; None if it is missing."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= _KEY_MAX or not all(" " <= character <= "~" for character in key):
        raise BadRequestError(f"Idempotency-Key must have 1 to {_KEY_MAX} printable ASCII characters.")
    return key


def _is_host(text: str) -> bool:
    """Tell whether a Location header can hold this host: werkzeug splits and encodes it, and must not fail."""
    try:
        parts = urlsplit(f"//{text}")
        (parts.hostname or "").encode("idna")
        return _HOST.fullmatch(text) is not None and parts.port != 0
    except ValueError:
        return False


def external_base() -> str:
    """Return the base URL of this service for clients: scheme, host and prefix from the gateway's headers."""
    headers = request.headers
    scheme = headers.get("X-Forwarded-Proto", "").lower()
    host = headers.get("X-Forwarded-Host", "") or headers.get("Host", "")
    prefix = headers.get("X-Forwarded-Prefix", "")
    prefix = prefix.rstrip("/") if _PREFIX.fullmatch(prefix) else ""
    if not _is_host(host):
        return prefix
    return f"{scheme if scheme in ('http', 'https') else request.scheme}://{host}{prefix}"
