"""What the uniform artifact routes need of a service: the tool's store and the pipeline's runs both provide it.

Every method raises the errors of `bonseyes_dagster.errors` (NotFoundError for an unknown name); none knows HTTP.
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
    """One readable file. `open` gives a binary file positioned at 0; a real file lets the server use sendfile."""

    entry: FileEntry
    open: Callable[[], BinaryIO]


class Draft(Protocol):
    """The files of a creation while they are being uploaded; nothing of it is visible to others."""

    def open(self, parameter: str, filename: str) -> BinaryIO:
        """Return a file to stream one uploaded part into; raise StorageFullError as it fills.

        The caller has checked that `parameter` is a name, given once, and that `filename` is safe as a file's name.
        """

    def discard(self) -> None:
        """Remove everything; harmless after a successful create and when called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A POST to the collection, parsed but not validated. `parameters` are those of `data`, without the files."""

    name: str
    parameters: Mapping[str, Any]
    draft: Draft
    idempotency_key: str | None = None
    reuse: bool | None = None  # None: the client did not say; a tool then makes it anew, a pipeline reuses


class Backend(Protocol):
    """The artifacts of one container (or the runs of one pipeline)."""

    @property
    def kind(self) -> Collection:
        """`artifacts` or `runs`."""

    def describe(self) -> ToolDescription:
        """Return what `GET /` says."""

    def check_health(self) -> None:
        """Raise UnavailableError with the reason when not ready."""

    def gauges(self) -> Mapping[str, float]:
        """Return further Prometheus gauges by name, e.g. `queue_length` and `artifacts{phase="queued"}`."""

    def begin(self) -> Draft:
        """Begin a creation."""

    def create(self, request: Request) -> str:
        """Create durably and return the name; never wait for the work.

        Raises ConflictError, InvalidError (every bad parameter named), QueueFullError, StorageFullError.
        """

    def names(self, *, limit: int | None = None, after: str | None = None) -> list[str]:
        """Return names, oldest first; at most `limit`, those after the name `after`."""

    def statuses(self, *, limit: int | None = None, after: str | None = None) -> list[Status]:
        """Return the statuses of the same page as `names`."""

    def info(self, name: str) -> dict[str, Any]:
        """Return everything known about one: `status`, `parameters`, `digest`, `size`, `provenance`, ..."""

    def status(self, name: str) -> Status:
        """Return the status as it is now."""

    def when_final(self, name: str) -> Future[None]:
        """Return what is done once the one is final, or gone; it is cancelled when nobody waits any more."""

    def cancel(self, name: str) -> Status:
        """Ask for cancellation; harmless when final already. Return the status as it is now."""

    def rename(self, name: str, new_name: str) -> None:
        """Give what is final another name; of artifacts only, since a run's name is that of its artifacts, too.

        Raises NotFinalError, ConflictError for a name that is taken.
        """

    def delete(self, name: str, *, with_artifacts: bool = False) -> list[str]:
        """Cancel if need be, hide at once, remove. `with_artifacts` is of runs only.

        Returns the URLs of what a run made and what stays.
        """

    def log(self, name: str, *, offset: int = 0, follow: bool = False) -> Iterator[bytes]:
        """Yield the log from byte `offset`; with `follow` until the artifact is final.

        When there is nothing new, a followed log yields b"" at once; the caller asks again a little later.
        """

    def manifest(self, name: str) -> Manifest:
        """Return the files; raise NotReadyError until completed."""

    def data(self, name: str, prefix: str = "") -> list[DataFile]:
        """Return the file `prefix`, or every file below it; raise NotReadyError until completed."""

    def input_parameters(self, name: str) -> Mapping[str, Any]:
        """Return the parameters as used, defaults filled in."""

    def input_files(self, name: str) -> list[str]:
        """Return the names of the uploaded files."""

    def input_file(self, name: str, file: str) -> DataFile:
        """Return one uploaded file."""

    def metrics(self, name: str) -> list[str]:
        """Return the names of the scalar metrics that have points so far."""

    def metric(self, name: str, metric: str, *, offset: int = 0) -> Iterable[bytes]:
        """Yield the lines `UNIX_TIME STEP VALUE`, each ended by a newline, from byte `offset`; whole lines only."""
