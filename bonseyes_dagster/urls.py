"""Build every path of the HTTP contract.

A collection is `artifacts` (tools) or `runs` (pipelines). The paths below both are the same.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import quote

Collection = Literal["artifacts", "runs"]

NAME_LENGTH = 128
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
METRIC_CHARACTERS = 128
_NAME = re.compile(NAME_PATTERN)

HEALTHZ = "/healthz"
METRICS = "/metrics"
OPENAPI = "/openapi.json"


def is_name(text: str) -> bool:
    """Tell whether `text` can name an artifact, a run, a container or a pipeline."""
    return _NAME.fullmatch(text) is not None and ".." not in text and not text.endswith("\n")


def is_metric_name(text: str) -> bool:
    """Tell whether `text` can name a metric: slashes, blanks, `@`, brackets and letters of any alphabet are allowed.

    Every name that `is_name` accepts is valid. A part between slashes is not empty and does not begin with a dot.
    """
    if is_name(text):
        return True
    is_printable = text.isprintable() and "\\" not in text and text == text.strip()
    is_path = all(part and not part.startswith(".") for part in text.split("/"))
    return is_printable and is_path and len(text) <= METRIC_CHARACTERS


def collection(kind: Collection = "artifacts") -> str:
    """Return `/artifacts` or `/runs`."""
    return f"/{kind}"


def item(name: str, kind: Collection = "artifacts") -> str:
    """Return `/artifacts/NAME`."""
    return f"/{kind}/{quote(name, safe='')}"


def part(name: str, *segments: str, kind: Collection = "artifacts") -> str:
    """Return `/artifacts/NAME/SEGMENT/...`; a segment may hold slashes, as the paths in `data` do."""
    return "/".join([item(name, kind), *(quote(segment, safe="/") for segment in segments)])


def canonical(container: str, name: str) -> str:
    """Return the URL of an artifact for parameters and provenance; it does not depend on host and port."""
    return f"http://{container}{item(name)}"


def gateway_container(name: str) -> str:
    """Return the path under which the gateway publishes a container: `/containers/NAME`."""
    return f"/containers/{quote(name, safe='')}"


def dashboard_page(container: str, name: str, kind: Collection = "artifacts") -> str:
    """Return the dashboard's page of an artifact or a run: `/#/CONTAINER/artifacts/NAME`."""
    return f"/#/{quote(container, safe='')}{item(name, kind)}"
