"""A tool whose parameters are artifacts."""

from __future__ import annotations

from typing import Any


def create(artifact: Any, *, first: Any, second: Any, path: str) -> None:
    """Copy one file of the first artifact."""
    assert second is None or second.name
    artifact.path("copy").write_bytes(first.path(path).read_bytes())
    artifact.path("inode").write_text(str(first.path(path).stat().st_ino))
    artifact.path("about").write_text(f"{first.container}/{first.name} {first.url} {first.digest}")
