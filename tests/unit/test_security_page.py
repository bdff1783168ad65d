"""docs/security.md names a test for each row, and each of these tests exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()


def test_every_named_test_exists() -> None:
    """Without its test, a row would be an unproven claim."""
    files = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert files
    missing = [file for file, _ in files if not (ROOT / file).exists()]
    named = [(file, name) for file, name in files if name and file not in missing]
    missing += [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    bare = re.findall(r"`(test_\w+)`", PAGE)
    source = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert missing + [name for name in bare if f"def {name}(" not in source] == []


def test_every_row_names_a_test() -> None:
    """A test proves each row."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| cannot")]
    assert rows and [row for row in rows if "tests/" not in row] == []
