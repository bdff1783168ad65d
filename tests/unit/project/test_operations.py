"""docs/operations.md describes every setting."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

from bonseyes_dagster.settings import Settings

DOCS = Path(__file__).parents[3] / "docs" / "operations.md"


def _documented() -> dict[str, list[str]]:
    # The next sections have other tables, for example of Compose's variables, which no process reads.
    settings = DOCS.read_text(encoding="utf-8").partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(BONSEYES_[A-Z_]+)` \|(.*)\|$", settings, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}


def test_every_setting_is_documented() -> None:
    """No row describes a setting that does not exist."""
    assert set(_documented()) == {field.metadata["name"] for field in fields(Settings)}


def test_documented_defaults_are_the_defaults() -> None:
    """Each default is written as in the environment."""
    for field in fields(Settings):
        default = field.default
        assert default is not MISSING
        text = "" if default in (None, "", ()) else f"`{default}`"
        assert _documented()[field.metadata["name"]][0] == text, field.metadata["name"]
