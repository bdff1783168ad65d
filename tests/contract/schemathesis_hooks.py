"""Keep generated requests valid where their schema cannot say so."""

from __future__ import annotations

import uuid
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Avoid requests whose validity depends on more than the request, so that the server must accept the rest."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and 1 <= len(key) <= 200 and key.isascii() and key.isprintable():
        # The server refuses a key that was used with another body.
        case.headers["Idempotency-Key"] = f"{key}{uuid.uuid4().hex}"
    parameters = case.body.get("parameters") if isinstance(case.body, dict) else None
    if isinstance(parameters, dict) and isinstance(parameters.get("upload"), str):
        # The server refuses to fetch a file from a foreign host.
        del parameters["upload"]
    if case.query and "wait" in case.query:
        # An artifact may be in progress for hours, and a wait of a minute is longer than a request may take here.
        case.query["wait"] = _short(case.query["wait"])


def _short(wait: Any) -> Any:
    return min(wait, 1) if isinstance(wait, int | float) and not isinstance(wait, bool) else wait
