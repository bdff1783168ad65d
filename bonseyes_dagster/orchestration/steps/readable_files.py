"""The files that a run may read when its config names a path: below allowed folders, or uploaded with a run.

Whoever may launch a run may write any path into its config, in Dagster's launchpad for example, and gets the file's
bytes back as an input file of the artifact. `order.py` opens such files by this module.
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
# The folders that the definitions themselves name, such as an inbox.
_named_folders: set[Path] = set()


def allow_folder(folder: Path) -> None:
    """Let runs of this process's definitions read files below `folder`."""
    _named_folders.add(folder.expanduser().absolute())


@dataclass(frozen=True)
class ReadableFiles:
    """Which files runs may read. `folders` have no symbolic links."""

    folders: Sequence[str]

    @classmethod
    def from_settings(cls, settings: Settings) -> "ReadableFiles":
        """Return those that the settings and the definitions allow."""
        folders = [*(settings.files or (settings.project or Path.cwd(),)), *_named_folders]
        folders += [settings.inbox] if settings.inbox else []
        return cls([os.path.realpath(folder) for folder in folders])

    def open(self, parameter: str, value: str) -> BinaryIO:
        """Open the file that `value` names; raise Failure if there is none, or the run may not read it."""
        path = Path(os.path.expanduser(value)).absolute()  # noqa: PTH111 - Path.expanduser() fails for an unknown user
        # Before the file is opened: opening a device can do something, and nobody is to learn what exists elsewhere.
        self._check(parameter, path, os.path.realpath(path))
        try:
            # Not blocking: it may be a pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _refusal(f"{parameter}: {path} cannot be read where the run executes: {error.strerror}.") from error
        opened = open(path, "rb", opener=lambda *_: descriptor)  # noqa: SIM115 - the caller closes it
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refusal(f"{parameter}: {path} is not a regular file.")
            # A link may have been changed meanwhile: what counts is the file that is open.
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
    """Tell whether a pipeline's container keeps the file as an upload.

    It may be one of another run, whose config somebody launches once more. It is no secret from who may launch: the
    pipeline's container serves it as an input file of that run.
    """
    places = [each for each in real.parents if _TOKEN.fullmatch(each.name) and each.parent.name == "uploads"]
    return any((place / "files.json").is_file() for place in places)


def _is_visible_below(real: str, folder: str) -> bool:
    # Hidden are `.env`, `.git`, `.ssh` and `.bonseyes`.
    below = Path(os.path.relpath(real, folder)).parts
    return not any(part.startswith(".") for part in below)


def _refusal(description: str) -> Failure:
    return Failure(description, allow_retries=False)
