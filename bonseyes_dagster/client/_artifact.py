"""A handle on one artifact or run, with a method for each call of the contract."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import requests

from bonseyes_dagster import urls
from bonseyes_dagster.client import _download
from bonseyes_dagster.client._transport import READ_TIMEOUT_S, iter_body, json_body
from bonseyes_dagster.errors import (
    ConnectionFailedError,
    DigestMismatchError,
    NotFoundError,
    UnavailableError,
    WaitTimeoutError,
)
from bonseyes_dagster.formats.metric_lines import parse_points
from bonseyes_dagster.model import FileEntry, Manifest, Point, Status

if TYPE_CHECKING:
    from bonseyes_dagster.client._container import Container

__all__ = ["Artifact", "names_of"]

LONG_POLL_S = 60.0
"""The longest wait of one request that the contract allows."""

# Ten million points fit into this. A program that shows points reads them from an offset.
_METRIC_LIMIT_BYTES = 1 << 30
_T = TypeVar("_T")
OnStatus = Callable[[Status], None]
OnProgress = Callable[[int, int], None]


class Artifact:
    """One artifact of a container (or run of a pipeline), by name. The constructor sends no request."""

    def __init__(self, container: Container, name: str) -> None:
        self.container = container
        self.name = name

    def __repr__(self) -> str:
        return f"<Artifact {self.name} of {self.container.base_url}>"

    @property
    def url(self) -> str:
        """Return the location-independent URL, as it stands in parameters and provenance."""
        return f"http://{self.container.name}{urls.item(self.name, self.container.kind)}"

    def info(self) -> dict[str, Any]:
        """Return all its facts: status, parameters, digest, size, provenance."""
        return self._get("", dict)

    def status(self, wait_s: float = 0.0) -> Status:
        """Return the status as soon as it is final, or after `wait_s` seconds (60 at most)."""
        wait_s = max(0.0, min(wait_s, LONG_POLL_S))
        params = {"wait": f"{wait_s:g}"} if wait_s else None
        return self._get("status", Status.from_json, params=params, read_timeout_s=READ_TIMEOUT_S + wait_s)

    def wait(
        self,
        timeout_s: float | None = None,
        on_status: OnStatus | None = None,
        *,
        poll_s: float = 0.5,
        patience_s: float = 60.0,
    ) -> Status:
        """Return the status once it is final, whatever the result is.

        With `on_status`, it asks every `poll_s` seconds and calls `on_status` with each changed status. Without it, it
        sends one request a minute. When the server does not answer, for example during a restart, it retries for up to
        `patience_s` seconds. Raises WaitTimeoutError after `timeout_s`.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        last_answer_s = time.monotonic()
        last: Status | None = None
        while True:
            left_s = LONG_POLL_S if deadline is None else deadline - time.monotonic()
            # The first request does not wait: `on_status` gets the status at once.
            pause_s = LONG_POLL_S if on_status is None else poll_s if last else 0.0
            try:
                status = self.status(min(pause_s, max(left_s, 0.0)))
            except (ConnectionFailedError, UnavailableError):
                is_late = deadline is not None and time.monotonic() > deadline
                if is_late or time.monotonic() - last_answer_s > patience_s:
                    raise
                time.sleep(poll_s)
                continue
            last_answer_s = time.monotonic()
            if on_status is not None and status != last:
                on_status(status)
            last = status
            if status.is_final:
                return status
            if left_s <= 0:
                raise WaitTimeoutError(f"{self.name} is still {status.phase} after {timeout_s:g} s.")

    def cancel(self) -> Status:
        """Request cancellation and return the current status. A final artifact stays as it is."""
        return self.container.transport.parsed(self._request("POST", "cancel"), Status.from_json)

    def rename(self, new_name: str) -> Artifact:
        """Give a final artifact another name and return its new handle. A run cannot be renamed.

        Raises NotFinalError, ConflictError when the name is taken, InvalidError when the name is not valid.
        """
        renamed = self.container.artifact(new_name)
        body, headers = json_body({"name": new_name}), {"Content-Type": "application/json"}
        try:
            self._request("PATCH", "", body=body, headers=headers, repeat=False)
        except (ConnectionFailedError, UnavailableError):
            # The answer was lost. If the artifact has its new name by now, the rename succeeded.
            try:
                self._request("PATCH", "", body=body, headers=headers)
            except NotFoundError:
                renamed.status()
        return renamed

    def delete(self, with_artifacts: bool = False) -> list[str]:
        """Cancel it if it is not final, and remove it; `with_artifacts` also removes the artifacts of a run.

        Returns the URLs of the run's artifacts that stay.
        """
        params = {"artifacts": "true"} if with_artifacts else None
        try:
            answer = self._request("DELETE", "", params=params, repeat=False)
        except (ConnectionFailedError, UnavailableError) as error:
            if isinstance(error.detail, dict) and error.detail.get("left"):
                raise  # the run is deleted already, but some of its artifacts are not
            # The answer was lost. If the artifact does not exist any more, the deletion succeeded.
            try:
                answer = self._request("DELETE", "", params=params)
            except NotFoundError:
                return []
        return self.container.transport.parsed(answer, lambda body: names_of(body.get("kept", [])))

    def manifest(self) -> Manifest:
        """Return its list of files; raise NotReadyError until it is completed."""
        return self._get("files", Manifest.from_json)

    def download(self, path: str | FileEntry, target: str | Path) -> Path:
        """Download the file `path`, verify its digest, and return the path of the local file.

        `target` is a file, or a folder to write into. With an entry of the manifest as `path`, no request for the
        manifest is sent.
        """
        entry = self._entry(path) if isinstance(path, str) else path
        target = Path(target)
        if target.is_dir():
            target = target / PurePosixPath(entry.path).name
        return self._download(entry, target)

    def download_all(self, folder: str | Path, on_progress: OnProgress | None = None) -> Manifest:
        """Download every file into `folder` and verify its digest. Files that are complete already stay.

        It calls `on_progress(done_bytes, total_bytes)` as bytes arrive.
        """
        manifest = self.manifest()
        done = 0

        def add(count: int) -> None:
            nonlocal done
            done += count
            if on_progress is not None:
                on_progress(done, manifest.size)

        Path(folder).mkdir(parents=True, exist_ok=True)
        for entry in manifest.files:
            target = _inside(Path(folder), entry.path)
            if _is_there(target, entry):
                add(entry.size)
            else:
                self._download(entry, target, add)
        return manifest

    def read(self, path: str) -> bytes:
        """Return the verified bytes of the file `path`, which must fit into memory."""
        entry = self._entry(path)
        content = self.container.transport.request(
            "GET", self._path("data", path), headers={"Accept": "*/*"}, limit_bytes=entry.size
        ).content
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise DigestMismatchError(f"{path} of {self.name} does not have the digest of its manifest.")
        return content

    def iter_log(self, offset: int = 0, follow: bool = False, *, patience_s: float = 60.0) -> Iterator[bytes]:
        """Yield the log from byte `offset` on; with `follow`, until the artifact is final.

        When a connection breaks, or brings nothing for a minute, it connects again and continues at the same byte.
        """
        last_answer_s = time.monotonic()
        while True:
            try:
                # Read the status before the log: if it is final, this pass reads the whole log.
                is_last = not follow or self.status().is_final
                last_answer_s = time.monotonic()
                for chunk in self._log_once(offset, follow=not is_last):
                    offset += len(chunk)
                    yield chunk
                if is_last:
                    return
            except (ConnectionFailedError, UnavailableError):
                if time.monotonic() - last_answer_s > patience_s:
                    raise
                time.sleep(0.5)

    def input_parameters(self) -> dict[str, Any]:
        """Return the parameters with their defaults filled in."""
        return self._get("input-parameters", dict)

    def input_files(self) -> list[str]:
        """Return the names of the uploaded files."""
        return self._get("input-files", names_of)

    def input_file(self, file: str, target: str | Path) -> Path:
        """Download one uploaded file to `target`, which is a file or a folder to write into."""
        target = Path(target)
        if target.is_dir():
            target = target / PurePosixPath(file).name
        return _download.fetch(self.container.transport, self._path("input-files", file), target)

    def metrics(self) -> list[str]:
        """Return the names of its metrics."""
        return self._get("metrics", names_of)

    def metric(self, name: str, offset: int = 0) -> tuple[list[Point], int]:
        """Return the points of a scalar metric from byte `offset` on, and the offset for the next call."""
        params = {"offset": str(offset)} if offset else None
        path = self._path("metrics", name, "scalar")
        request = self.container.transport.request
        headers = {"Accept": "text/plain"}
        text = request("GET", path, params=params, headers=headers, limit_bytes=_METRIC_LIMIT_BYTES).content
        whole = text[: text.rfind(b"\n") + 1]
        return parse_points(whole.splitlines()), offset + len(whole)

    def _entry(self, path: str) -> FileEntry:
        for entry in self.manifest().files:
            if entry.path == path:
                return entry
        raise NotFoundError(f"{self.name} has no file {path!r}.")

    def _download(self, entry: FileEntry, target: Path, on_bytes: Callable[[int], None] | None = None) -> Path:
        return _download.fetch(
            self.container.transport,
            self._path("data", entry.path),
            target,
            size_bytes=entry.size,
            sha256=entry.sha256,
            on_bytes=on_bytes,
        )

    def _log_once(self, offset: int, follow: bool) -> Iterator[bytes]:
        params = {"offset": str(offset)} | ({"follow": "1"} if follow else {})
        with self._request("GET", "log", params=params, headers={"Accept": "text/plain"}, stream=True) as response:
            yield from iter_body(response)

    def _get(self, segment: str, parse: Callable[[Any], _T], **options: Any) -> _T:
        return self.container.transport.get_json(self._path(*filter(None, [segment])), parse, **options)

    def _request(self, method: str, segment: str, **options: Any) -> requests.Response:
        return self.container.transport.request(method, self._path(*filter(None, [segment])), **options)

    def _path(self, *segments: str) -> str:
        return urls.part(self.name, *segments, kind=self.container.kind)


def names_of(body: Any) -> list[str]:
    """Return `body` if it is a list of names; raise TypeError otherwise."""
    if not isinstance(body, list) or not all(isinstance(name, str) for name in body):
        raise TypeError("not a list of names")
    return body


def _inside(folder: Path, path: str) -> Path:
    """Return the place of a manifest's `path` below `folder`; raise DigestMismatchError for a path that leads out."""
    relative = PurePosixPath(path)
    if relative.is_absolute() or not relative.parts or ".." in relative.parts or "\0" in path:
        raise DigestMismatchError(f"The manifest names {path!r}, which lies outside of the artifact.")
    return folder / relative


def _is_there(target: Path, entry: FileEntry) -> bool:
    return target.is_file() and target.stat().st_size == entry.size and _download.file_sha256(target) == entry.sha256
