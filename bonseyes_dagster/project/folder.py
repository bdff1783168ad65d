"""The folder of a project: find it, and the paths of the files in its state folder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bonseyes_dagster.description import find_tools
from bonseyes_dagster.errors import SettingsError

__all__ = ["Project", "find_project"]

STATE = ".bonseyes"
_SIGNS = ("definitions.py", "workspace.yaml")


@dataclass(frozen=True, slots=True)
class Project:
    """A project folder. Its data lies in `.bonseyes/`, which only its owner can read."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def state_folder(self) -> Path:
        """`.bonseyes/`."""
        return self.folder / STATE

    @property
    def definitions(self) -> Path:
        """The file that Dagster loads."""
        return self.folder / "definitions.py"

    @property
    def dagster_home(self) -> Path:
        """`.bonseyes/dagster/`, Dagster's DAGSTER_HOME."""
        return self.state_folder / "dagster"

    @property
    def logs(self) -> Path:
        """`.bonseyes/logs/`."""
        return self.state_folder / "logs"

    @property
    def addresses(self) -> Path:
        """`.bonseyes/addresses.json`: the base URL of each container."""
        return self.state_folder / "addresses.json"

    @property
    def sockets(self) -> Path:
        """`.bonseyes/sockets/`: the sockets of the services, if the path is not too long."""
        return self.state_folder / "sockets"

    @property
    def socket_place(self) -> Path:
        """`.bonseyes/socket-folder`: a file with the path of the sockets' folder, if it lies elsewhere."""
        return self.state_folder / "socket-folder"

    @property
    def pipelines(self) -> Path:
        """`.bonseyes/pipelines.json`: the names of the pipelines when the definitions were last loaded."""
        return self.state_folder / "pipelines.json"

    @property
    def storage_made(self) -> Path:
        """`.bonseyes/dagster/storage-made`: exists if Dagster's storage exists; holds the version of Dagster."""
        return self.dagster_home / "storage-made"

    @property
    def state_file(self) -> Path:
        """`.bonseyes/supervisor.json`: the state of the project while its supervisor runs."""
        return self.state_folder / "supervisor.json"

    @property
    def lock(self) -> Path:
        """`.bonseyes/supervisor.lock`, which a supervisor holds as long as it runs."""
        return self.state_folder / "supervisor.lock"

    @property
    def volumes(self) -> Path:
        """`.bonseyes/volumes`: a folder for each container."""
        return self.state_folder / "volumes"

    def volume(self, container: str) -> Path:
        """The folder for all data of a container."""
        return self.volumes / container

    def tools(self) -> dict[str, Path]:
        """The tools' folders by container name."""
        return find_tools(self.folder)

    def prepare(self) -> None:
        """Make the folders, for the owner only; raise SettingsError when the user cannot write there."""
        self.make_folders(self.volumes, self.dagster_home, self.logs)

    def make_folders(self, *folders: Path) -> None:
        """Make `.bonseyes/` and folders in it; raise SettingsError when the user cannot write there."""
        try:
            for folder in (self.state_folder, *folders):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_folder(folder)
            self.state_folder.chmod(0o700)
            for file in (self.lock, *self.logs.glob("*.log")):
                _check_file(file)
        except OSError as error:
            raise SettingsError(
                f"{self.name} cannot write {error.filename}: {error.strerror}. "
                "Copy the project to a folder that you own, or let its owner run it."
            ) from error

    def sources(self) -> Iterator[Path]:
        """Yield the Python files on which the definitions may depend."""
        yield from sorted(self.folder.glob("*.py"))
        for folder in ("components", "pipelines", "containers"):
            yield from sorted((self.folder / folder).rglob("*.py"))


def _check_folder(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _check_file(file: Path) -> None:
    # Do not use os.access: for a log that is renamed meanwhile, it gives the same answer as for an unwritable file.
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def find_project(start: Path | None = None) -> Project:
    """Return the project around `start`, which is the working folder by default; raise SettingsError without one."""
    start = (start or Path.cwd()).absolute()
    folders = (start, *start.parents)
    for folder in folders:
        if any((folder / sign).exists() for sign in _SIGNS):
            return Project(folder)
    # Without pipelines, use the outermost folder with tools: a component has tools, too.
    for folder in reversed(folders):
        if any(folder.glob("containers/*/tool.yml")):
            return Project(folder)
    raise SettingsError(
        f"{start} is not in a project: no folder above it has definitions.py or containers/. "
        "Change to the project's folder."
    )
