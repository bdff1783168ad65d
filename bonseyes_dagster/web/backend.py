"""The protocol between the artifact routes and a service; the store of a tool and the runs of a pipeline implement it.

Every method raises the errors of `bonseyes_dagster.errors` (NotFoundError for an unknown name). No method handles HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from bonseyes_dagster.model import FileEntry, Manifest, Status, ToolDescription
from bonseyes_dagster.urls import Collection

__all__ = ["Backend", "DataFile", "Draft", "Request"]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One readable file. `open` returns a binary file at position 0; with a real file, the server uses sendfile."""

    entry: FileEntry
    open: Callable[[], BinaryIO]


class Draft(Protocol):
    """The uploaded files of a creation in progress; no other request can see them."""

    def open(self, parameter: str, filename: str) -> BinaryIO:
        """Return a file for one uploaded part; writing to it may raise StorageFullError.

        The caller has checked that `parameter` is a name, given once, and that `filename` is safe as a file name.
        """

    def discard(self) -> None:
        """Remove the files; harmless after a successful `create` and after another `discard`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A POST to the collection, parsed but not validated. `parameters` is the part `data`, without the files."""

    name: str
    parameters: Mapping[str, Any]
    draft: Draft
    idempotency_key: str | None = None
    reuse: bool | None = None  # None, the default: a tool makes the artifact again, a pipeline reuses artifacts


class Backend(Protocol):
    """The artifacts of one container (or the runs of one pipeline)."""

    @property
    def kind(self) -> Collection:
        """Return `artifacts` or `runs`."""

    def describe(self) -> ToolDescription:
        """Return the content of `GET /`."""

    def check_health(self) -> None:
        """Raise UnavailableError with the reason if the service is not ready."""

    def gauges(self) -> Mapping[str, float]:
        """Return further Prometheus gauges by name, e.g. `queue_length` and `artifacts{phase="queued"}`."""

    def begin(self) -> Draft:
        """Begin a creation and return its draft."""

    def create(self, request: Request) -> str:
        """Create an artifact or a run durably and return its name; do not wait until it ends.

        Raises ConflictError, InvalidError (it names every bad parameter), QueueFullError, StorageFullError.
        """

    def names(self, *, limit: int | None = None, after: str | None = None) -> list[str]:
        """Return the names after the name `after`, oldest first, at most `limit`."""

    def statuses(self, *, limit: int | None = None, after: str | None = None) -> list[Status]:
        """Return the statuses of the same page as `names`."""

    def info(self, name: str) -> dict[str, Any]:
        """Return all facts about one artifact or run: `status`, `parameters`, `digest`, `size`, `provenance`, ..."""

    def status(self, name: str) -> Status:
        """Return the current status."""

    def when_final(self, name: str) -> Future[None]:
        """Return a future that is done when the artifact or run is final or deleted; the caller cancels it."""

    def cancel(self, name: str) -> Status:
        """Request the cancellation and return the current status; harmless after the end."""

    def rename(self, name: str, new_name: str) -> None:
        """Rename a final artifact; runs cannot be renamed, because their artifacts carry their names.

        Raises NotFinalError, and ConflictError for a name that is in use.
        """

    def delete(self, name: str, *, with_artifacts: bool = False) -> list[str]:
        """Cancel the artifact or run if it is in progress, hide it at once, then remove it.

        With `with_artifacts`, a run's artifacts are deleted, too. Returns the URLs of a run's artifacts that stay.
        """

    def log(self, name: str, *, offset: int = 0, follow: bool = False) -> Iterator[bytes]:
        """Yield the log from byte `offset`; with `follow`, until the artifact is final.

        A followed log yields b"" at once when it has no new bytes; the caller asks again a little later.
        """

    def manifest(self, name: str) -> Manifest:
        """Return the list of files; raise NotReadyError until the artifact is completed."""

    def data(self, name: str, prefix: str = "") -> list[DataFile]:
        """Return the file `prefix`, or all files below it; raise NotReadyError until the artifact is completed."""

    def input_parameters(self, name: str) -> Mapping[str, Any]:
        """Return the parameters with their defaults."""

    def input_files(self, name: str) -> list[str]:
        """Return the names of the uploaded files."""

    def input_file(self, name: str, file: str) -> DataFile:
        """Return one uploaded file."""

    def metrics(self, name: str) -> list[str]:
        """Return the names of the scalar metrics with at least one point."""

    def metric(self, name: str, metric: str, *, offset: int = 0) -> Iterable[bytes]:
        """Yield complete lines `UNIX_TIME STEP VALUE`, each with its newline, from byte `offset`."""
