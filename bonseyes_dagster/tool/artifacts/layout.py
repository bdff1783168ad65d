"""The paths of all files of a tool container on its volume; no other module spells them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bonseyes_dagster.system.storage import sync_folder

__all__ = ["Folder", "Volume"]


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one artifact, named by its id."""

    path: Path

    @property
    def id(self) -> str:
        """Return the artifact's id."""
        return self.path.name

    @property
    def inputs(self) -> Path:
        """Uploaded and fetched files, in a folder for each parameter."""
        return self.path / "inputs"

    @property
    def artifacts(self) -> Path:
        """Files of input artifacts, in a folder for each parameter; only while the tool runs."""
        return self.path / "artifacts"

    @property
    def staging(self) -> Path:
        """The output folder of the running tool; one rename makes it `data`."""
        return self.path / "staging"

    @property
    def data(self) -> Path:
        """The published files, never changed again."""
        return self.path / "data"

    @property
    def manifest(self) -> Path:
        """The list of the published files."""
        return self.path / "manifest.json"

    @property
    def row_copy(self) -> Path:
        """A copy of the row from when the artifact became final, in case the index is lost."""
        return self.path / "row.json"

    @property
    def file_states(self) -> Path:
        """The states of the published files when their digests were last right; small artifacts have no such file."""
        return self.path / "file-states"

    @property
    def log(self) -> Path:
        """All that the tool printed or logged."""
        return self.path / "log"

    @property
    def metrics(self) -> Path:
        """One append-only file for each scalar metric."""
        return self.path / "metrics"

    @property
    def progress(self) -> Path:
        """The progress of the tool; each write replaces the file."""
        return self.path / "progress.json"

    @property
    def process(self) -> Path:
        """The server that runs the tool, so that a later worker can end the processes that are left."""
        return self.path / "process.json"

    @property
    def parameters(self) -> Path:
        """The parameters for a command tool, with paths for files and artifacts."""
        return self.path / "parameters.json"

    @property
    def given_files(self) -> Path:
        """The states of the input files before the tool runs; only while it runs."""
        return self.path / "given.jsonl"

    @property
    def temporary(self) -> Path:
        """A folder for temporary files. It lies outside the volume, because sockets in it need short paths."""
        return Path(tempfile.gettempdir()) / f"bonseyes-{self.id}"


@dataclass(frozen=True, slots=True)
class Volume:
    """The folder that holds all that a container keeps."""

    path: Path

    @property
    def index(self) -> Path:
        """The SQLite file with a row for each artifact."""
        return self.path / "index.sqlite"

    @property
    def index_mark(self) -> Path:
        """The mark: the highest number that the index has used. An index with a lower number is an older one."""
        return self.path / "index.mark"

    @property
    def index_doubt(self) -> Path:
        """The reason why folders without a row are set aside, not removed; it exists until the worker checked all."""
        return self.path / "index.doubt"

    @property
    def lost_and_found(self) -> Path:
        """Damaged indexes, and folders whose rows are lost."""
        place = self.path / "lost+found"
        # A file system's own folder of this name belongs to root.
        is_usable = not place.exists() or os.access(place, os.W_OK | os.X_OK)
        return place if is_usable else self.path / "lost+found.bonseyes"

    @property
    def artifacts(self) -> Path:
        """The folders of all artifacts."""
        return self.path / "artifacts"

    @property
    def drafts(self) -> Path:
        """Folders of artifacts whose creation is not acknowledged yet."""
        return self.path / "drafts"

    @property
    def trash(self) -> Path:
        """Folders that are being removed."""
        return self.path / "trash"

    @property
    def queue_bell(self) -> Path:
        """A server process rings this bell when the worker has work."""
        return self.path / "queue.bell"

    @property
    def final_bell(self) -> Path:
        """The worker rings this bell after each commit of a final phase."""
        return self.path / "final.bell"

    @property
    def worker_lock(self) -> Path:
        """The lock that the one worker holds."""
        return self.path / "worker.lock"

    @property
    def worker_state(self) -> Path:
        """The state of the worker: whether it could load the tool's code."""
        return self.path / "worker.json"

    def folder(self, artifact_id: str) -> Folder:
        """Return the folder of one artifact."""
        return Folder(self.artifacts / artifact_id)

    def make(self) -> None:
        """Make missing folders and files, durably."""
        is_new = not self.path.exists()
        for path in (self.artifacts, self.drafts, self.trash):
            path.mkdir(parents=True, exist_ok=True)
        for bell in (self.queue_bell, self.final_bell):
            os.close(os.open(bell, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o644))
        sync_folder(self.path)
        if is_new:
            sync_folder(self.path.parent)
