"""docs/security.md names a test for each line, and each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()


def test_every_test_that_the_page_names_is_there() -> None:
    """Else a line would claim what nothing shows."""
    files = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert files
    missing = [file for file, _ in files if not (ROOT / file).exists()]
    named = [(file, name) for file, name in files if name and file not in missing]
    missing += [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    bare = re.findall(r"`(test_\w+)`", PAGE)
    source = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert missing + [name for name in bare if f"def {name}(" not in source] == []


def test_every_row_names_a_test() -> None:
    """Each thing that somebody cannot do is shown."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| cannot")]
    assert rows and [row for row in rows if "tests/" not in row] == []
