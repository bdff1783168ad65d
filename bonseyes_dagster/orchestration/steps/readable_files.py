"""Opens the files that a run's config names by path. They must be below allowed folders, or uploads of a run.

A user who may launch runs can write any path into the config, for example in Dagster's launchpad. The file's bytes
become an input file of the artifact, which that user can read. `artifact_request.py` opens these files.
"""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dagster import Failure

from bonseyes_dagster.settings import Settings

__all__ = ["ReadableFiles", "allow_folder"]

_TOKEN = re.compile(r"[0-9a-f]{32}")
# Folders that the definitions name, such as an inbox.
_named_folders: set[Path] = set()


def allow_folder(folder: Path) -> None:
    """Let runs of this process's definitions read files below `folder`."""
    _named_folders.add(folder.expanduser().absolute())


@dataclass(frozen=True)
class ReadableFiles:
    """The files that runs may read: those below `folders`, which are paths without symbolic links, and uploads."""

    folders: Sequence[str]

    @classmethod
    def from_settings(cls, settings: Settings) -> "ReadableFiles":
        """Return the files that the settings and the definitions allow."""
        folders = [*(settings.files or (settings.project or Path.cwd(),)), *_named_folders]
        folders += [settings.inbox] if settings.inbox else []
        return cls([os.path.realpath(folder) for folder in folders])

    def open(self, parameter: str, value: str) -> BinaryIO:
        """Open the file at the path `value`; raise Failure if it does not exist or the run may not read it."""
        path = Path(os.path.expanduser(value)).absolute()  # noqa: PTH111 - Path.expanduser() fails for an unknown user
        # Check before opening: opening a device can have effects, and an error would tell which files exist elsewhere.
        self._check(parameter, path, os.path.realpath(path))
        try:
            # Do not block: the path may be a pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _refusal(f"{parameter}: {path} cannot be read where the run executes: {error.strerror}.") from error
        opened = open(path, "rb", opener=lambda *_: descriptor)  # noqa: SIM115 - the caller closes it
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refusal(f"{parameter}: {path} is not a regular file.")
            # A link may have changed since the first check: check the open file.
            self._check(parameter, path, str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        except BaseException:
            opened.close()
            raise
        return opened

    def _check(self, parameter: str, path: Path, real: str) -> None:
        if not any(_is_visible_below(real, folder) for folder in self.folders) and not _is_upload(Path(real)):
            shown = ":".join(self.folders)
            raise _refusal(
                f"{parameter}: {path} is outside the folders that runs may read files from, or hidden there ({shown}); "
                "put it into one of them, or name its folder in BONSEYES_FILES."
            )


def _is_upload(real: Path) -> bool:
    """Tell whether the file is an upload that a pipeline's container keeps.

    It may belong to another run whose config is launched again. Users who may launch runs can read it anyway: the
    pipeline's container serves it as an input file of that run.
    """
    places = [each for each in real.parents if _TOKEN.fullmatch(each.name) and each.parent.name == "uploads"]
    return any((place / "files.json").is_file() for place in places)


def _is_visible_below(real: str, folder: str) -> bool:
    # This excludes `.env`, `.git`, `.ssh` and `.bonseyes`.
    below = Path(os.path.relpath(real, folder)).parts
    return not any(part.startswith(".") for part in below)


def _refusal(description: str) -> Failure:
    return Failure(description, allow_retries=False)
