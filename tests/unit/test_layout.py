"""The package stays easy to find one's way in: no folder holds more files than a reader takes in at a glance."""

from pathlib import Path

import bonseyes_dagster

PACKAGE = Path(bonseyes_dagster.__file__).parent
MOST_FILES = 16


def test_no_folder_has_more_than_sixteen_files():
    """A folder that grows beyond that becomes two, by what its modules import."""
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*/") if path.name != "__pycache__")]
    counts = {folder: sum(path.is_file() for path in folder.iterdir()) for folder in folders}
    assert {str(folder): count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_each_package_says_what_it_is():
    """`help(bonseyes_dagster.execution)` shows the docstring."""
    silent = [str(file) for file in PACKAGE.rglob("__init__.py") if not file.read_text().startswith('"""')]
    assert silent == []
