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
        # a key that was used with another body is rightly refused
        case.headers["Idempotency-Key"] = f"{key}{uuid.uuid4().hex}"
    parameters = case.body.get("parameters") if isinstance(case.body, dict) else None
    if isinstance(parameters, dict) and isinstance(parameters.get("upload"), str):
        # so is a file that is to be fetched from somewhere outside
        del parameters["upload"]
