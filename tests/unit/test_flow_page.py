"""The pages of docs/ name the modules of these four packages: each module that is there, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bonseyes_dagster"
PACKAGES = ("execution", "orchestration", "pipeline", "tool")
UNNAMED = ("__init__.py", "dagster_internals.py")
_PATH = re.compile(rf"`(?:bonseyes_dagster/)?((?:{'|'.join(PACKAGES)})/[\w/]+\.py)`")


def _modules() -> set[str]:
    """Return the modules as the pages name them, such as `tool/worker/runner.py`."""
    files = {file for package in PACKAGES for file in (PACKAGE / package).rglob("*.py")}
    return {str(file.relative_to(PACKAGE)) for file in files if file.name not in UNNAMED}


def _named_modules() -> set[str]:
    return {path for page in (ROOT / "docs").glob("*.md") for path in _PATH.findall(page.read_text())}


def test_every_module_is_named_on_a_page() -> None:
    """The table at the end of docs/flow.md is the place for a module that no other text names."""
    assert _modules()
    assert sorted(_modules() - _named_modules()) == []


def test_every_named_module_exists() -> None:
    """A renamed or deleted module leaves no wrong path behind."""
    assert sorted(_named_modules() - _modules()) == []
