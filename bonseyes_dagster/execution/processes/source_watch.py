"""Tells the run server when files of its loaded code have changed on disk."""

import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

__all__ = ["SourceWatch"]

# A project makes ops from these tool descriptions.
_DESCRIPTIONS = ("tool.yml", "containers/*/tool.yml", "components/*/containers/*/tool.yml")


class SourceWatch:
    """Remembers the times and sizes of the project's loaded modules and of its tool descriptions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._installed = {Path(path).resolve() for path in _installed_folders()}
        self._seen = self._stamps(self._files())

    def has_changed(self) -> bool:
        """Tell whether any file was changed, removed or, for tool descriptions, added."""
        return self._stamps(self._seen) != self._seen or bool(self._descriptions() - set(self._seen))

    def _files(self) -> set[Path]:
        modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        files = {Path(file).resolve() for file in modules if file}
        return {file for file in files if not self._installed & set(file.parents)} | self._descriptions()

    def _descriptions(self) -> set[Path]:
        return {path.resolve() for pattern in _DESCRIPTIONS for path in self._folder.glob(pattern)}

    def _stamps(self, files: Iterable[Path]) -> dict[Path, tuple[int, int] | None]:
        return {file: _stamp(file) for file in files}


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _installed_folders() -> set[str]:
    """Return the folders of the standard library and of installed packages; only an installation changes them."""
    paths = sysconfig.get_paths()
    return {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()}
