"""The shortest tool."""

from typing import Any


def create(artifact: Any) -> None:
    """Do nothing."""
