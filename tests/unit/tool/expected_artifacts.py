"""A volume with artifacts, made by the same steps as in store and worker, but without their processes."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bonseyes_dagster.model import Manifest, Phase, ToolDescription, now
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.artifacts.publishing import publish
from bonseyes_dagster.tool.artifacts.rebuild import ensure_index, write_mark
from bonseyes_dagster.tool.artifacts.row_copies import write_row_copy
from bonseyes_dagster.tool.store import Store
from bonseyes_dagster.tool.worker.recovery import recover

TOOL = "tool"


@dataclass
class ExpectedArtifacts:
    """A volume, and the rows that must be in it, by name: the container has acknowledged these artifacts."""

    volume: Volume
    expected: dict[str, ArtifactRow] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path) -> ExpectedArtifacts:
        """Make an empty volume."""
        volume = Volume(path)
        volume.make()
        ensure_index(volume, TOOL)
        return cls(volume)

    def start(self) -> Index:
        """Check the volume and recover it, as the start of a container does."""
        self.volume.make()
        ensure_index(self.volume, TOOL)
        index = Index(self.volume.index)
        recover(index, self.volume, TOOL)
        return index

    def queued(self, name: str, *, upload: str | None = None, **values: Any) -> ArtifactRow:
        """Create a queued artifact."""
        row = ArtifactRow(
            id=uuid.uuid4().hex,
            name=name,
            created=now(),
            tool=TOOL,
            version="1",
            parameters={"text": name},
            files={},
            inputs={},
        )
        if upload is not None:
            folder = self.volume.folder(row.id)
            (folder.inputs / "file").mkdir(parents=True)
            (folder.inputs / "file/upload").write_text(upload)
            row = replace(row, files={"file": {"filename": "upload", "size": len(upload), "sha256": "0"}})
        row = replace(row, fingerprint=f"of {name}", idempotency_key=f"key of {name}", **values)
        with closing(Index(self.volume.index)) as index:
            write_mark(self.volume, index.insert(row, queue_limit=1000))
            self.expected[name] = index.get(name)
        return self.expected[name]

    def running(self, name: str) -> ArtifactRow:
        """Create an artifact and claim it from the queue."""
        self.queued(name)
        with closing(Index(self.volume.index)) as index:
            claimed = index.claim()
            assert claimed is not None and claimed.name == name
            folder = self.volume.folder(claimed.id)
            folder.staging.mkdir(parents=True)
            folder.log.write_text(f"log of {name}")
            self.expected[name] = claimed
        return claimed

    def completed(self, name: str, **files: str) -> ArtifactRow:
        """Make a completed artifact with files."""
        row = self.running(name)
        with closing(Index(self.volume.index)) as index:
            self._publish(row, files or {"file": f"content of {name}"})
            final = self.expected[name]
            index.finish(row.id, "completed", size=final.size, digest=final.digest, finished=final.finished)
        return final

    def published(self, name: str) -> ArtifactRow:
        """Publish an artifact as a worker that is killed before it writes the row."""
        self._publish(self.running(name), {"file": f"content of {name}"})
        return self.expected[name]

    def _publish(self, row: ArtifactRow, files: dict[str, str]) -> None:
        folder = self.volume.folder(row.id)
        for path, content in files.items():
            (folder.staging / path).parent.mkdir(parents=True, exist_ok=True)
            (folder.staging / path).write_text(content)

        def row_of(manifest: Manifest) -> ArtifactRow:
            values = {"phase": "completed", "finished": now(), "size": manifest.size, "digest": manifest.digest}
            self.expected[str(row.name)] = replace(row, **values)  # type: ignore[arg-type]
            return self.expected[str(row.name)]

        publish(folder, lambda: None, row_of)

    def ended(self, name: str, phase: Phase = "failed") -> ArtifactRow:
        """Make an artifact that ends without data."""
        row = self.running(name)
        folder = self.volume.folder(row.id)
        folder.staging.rmdir()
        final = replace(row, phase=phase, reason="Because.", finished=now())
        write_row_copy(folder, final)
        with closing(Index(self.volume.index)) as index:
            index.finish(row.id, phase, reason=final.reason, finished=final.finished)
        self.expected[name] = final
        return final

    def folder(self, name: str) -> Folder:
        """Return the folder of the artifact `name`."""
        return self.volume.folder(self.expected[name].id)

    def check(self, index: Index, *names: str) -> None:
        """Check rows and data of the artifacts `names`, by default of all."""
        for name in names or self.expected:
            found, expected = index.get(name), self.expected[name]
            assert replace(found, seq=0) == replace(expected, seq=0), name
            if expected.phase == "completed":
                assert (self.folder(name).data / "file").read_text() == f"content of {name}"

    def set_aside(self) -> list[str]:
        """Return the names of the files and folders in lost+found."""
        return sorted(path.name for path in self.volume.lost_and_found.glob("*/*") if path.name != "why.txt")

    def why(self) -> str:
        """Return all reasons in lost+found."""
        return "\n".join(path.read_text() for path in self.volume.lost_and_found.glob("*/why.txt"))


def store_of(artifacts: ExpectedArtifacts) -> Store:
    """Return a store on the volume."""
    tool = ToolDescription(name=TOOL, description="", parameters=(), output_type="com.bonseyes.probe", version="1")
    return Store(tool, artifacts.volume, Settings(container="tool", disk_reserve_bytes=0))


def tick() -> None:
    """Let the clock of the file system advance, so that the next writes get a later time."""
    time.sleep(0.02)
