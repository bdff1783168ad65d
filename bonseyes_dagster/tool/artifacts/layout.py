"""Where everything of a tool container lies on its volume; each path is named here and nowhere else."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bonseyes_dagster.tool.files.disk import sync_folder

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
        """Uploaded and fetched files, a folder for each parameter."""
        return self.path / "inputs"

    @property
    def artifacts(self) -> Path:
        """Files of input artifacts, a folder for each parameter; only while it runs."""
        return self.path / "artifacts"

    @property
    def staging(self) -> Path:
        """What the tool writes; becomes `data` by one rename."""
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
        """The row as it was when the artifact became final, for the day when the index is lost."""
        return self.path / "row.json"

    @property
    def file_states(self) -> Path:
        """The states of the published files when their digests were last known to be right; not of small artifacts."""
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
        """How far the tool is; replaced, never rewritten."""
        return self.path / "progress.json"

    @property
    def process(self) -> Path:
        """Who runs it, so that a later worker can end what is left of it."""
        return self.path / "process.json"

    @property
    def parameters(self) -> Path:
        """What a command tool gets: its parameters with paths for files and artifacts."""
        return self.path / "parameters.json"

    @property
    def given_files(self) -> Path:
        """What the files were that the tool was given; only while it runs."""
        return self.path / "given.jsonl"

    @property
    def temporary(self) -> Path:
        """A folder for temporary files. Outside of the volume, because sockets in it need short paths."""
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
        """The highest number that the index has given to a row; an index that does not know it is an older one."""
        return self.path / "index.mark"

    @property
    def index_doubt(self) -> Path:
        """Why folders without a row are set aside and not removed; there until the worker has looked at all."""
        return self.path / "index.doubt"

    @property
    def lost_and_found(self) -> Path:
        """What nobody could name: damaged indexes, and folders whose rows are lost."""
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
        """Rung when the worker has something to look at."""
        return self.path / "queue.bell"

    @property
    def final_bell(self) -> Path:
        """Rung after each commit of a final phase."""
        return self.path / "final.bell"

    @property
    def worker_lock(self) -> Path:
        """Held by the one worker."""
        return self.path / "worker.lock"

    @property
    def worker_state(self) -> Path:
        """Whether the tool's code could be loaded."""
        return self.path / "worker.json"

    def folder(self, artifact_id: str) -> Folder:
        """Return the folder of one artifact."""
        return Folder(self.artifacts / artifact_id)

    def make(self) -> None:
        """Make what is missing, durably."""
        is_new = not self.path.exists()
        for path in (self.artifacts, self.drafts, self.trash):
            path.mkdir(parents=True, exist_ok=True)
        for bell in (self.queue_bell, self.final_bell):
            os.close(os.open(bell, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o644))
        sync_folder(self.path)
        if is_new:
            sync_folder(self.path.parent)
