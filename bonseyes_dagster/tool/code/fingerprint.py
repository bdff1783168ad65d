"""Two digests: one of a request (for idempotency), one of everything that the result depends on (for re-use)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bonseyes_dagster.model import ToolDescription

__all__ = ["fingerprint", "request_digest"]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def request_digest(name: str, parameters: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the digest of a client's request: the name, the parameters as sent, and the file contents."""
    return _digest([name, dict(parameters), {parameter: file["sha256"] for parameter, file in files.items()}])


def fingerprint(
    tool: ToolDescription,
    parameters: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]],
    inputs: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """Return the fingerprint; None while a URL is not fetched yet, because its content is unknown.

    Only the digest of a file or an artifact counts, not its source.
    """
    values: dict[str, Any] = {}
    for parameter in tool.parameters:
        name = parameter.name
        if name in files:
            values[name] = {"sha256": files[name]["sha256"]}
        elif name in inputs:
            values[name] = {"digest": inputs[name]["digest"]}
        elif parameter.type in ("file", "url") and parameters.get(name) is not None:
            return None
        else:
            values[name] = parameters.get(name)
    return _digest({"tool": tool.name, "version": tool.version, "parameters": values})
