"""A finding of a rule: the place, the problem and the remedy."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Finding", "line_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem. `line` counts from 1, and is None for the whole file; `rule` is the name of the rule."""

    file: Path
    line: int | None = None
    problem: str
    remedy: str
    rule: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON for programs."""
        return {**asdict(self), "file": str(self.file)}

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{place}: {self.problem} {self.remedy}"


def line_of(file: Path, name: str) -> int | None:
    """Return the number of the first line in a YAML file that begins an entry `name` below the top level."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    begins = re.compile(rf"\s+[\"']?{re.escape(name)}[\"']?\s*:")
    return next((number for number, line in enumerate(lines, 1) if begins.match(line)), None)
