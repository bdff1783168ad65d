"""The client of one container: its description, its artifacts, and the routes that only pipelines have."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

from bonseyes_dagster import urls
from bonseyes_dagster.client._artifact import Artifact, names_of
from bonseyes_dagster.client._bounds import DESCRIPTION_LIMIT_BYTES
from bonseyes_dagster.client._multipart import FileSource, Multipart
from bonseyes_dagster.client._transport import RETRY_S, Transport, json_body
from bonseyes_dagster.errors import BonseyesError, InvalidError
from bonseyes_dagster.formats.json_text import format_json
from bonseyes_dagster.model import Status, Task, ToolDescription
from bonseyes_dagster.urls import Collection

__all__ = ["Container", "objects"]

# The server syncs the uploaded files to its disk before it answers.
_CREATE_TIMEOUT_S = 300.0
_HEALTH_TIMEOUT_S = 5.0
_UNREACHABLE_HEADER = "X-Bonseyes-Unreachable"


class Container:
    """One container at a base URL: a tool's (`kind` "artifacts") or a pipeline's ("runs").

    Many threads and forked processes may use it. If `name` and `kind` are not given and the URL does not contain
    them, it asks the container. When a server does not answer, calls that are safe to repeat are retried for
    `retry_s` seconds.
    """

    def __init__(
        self,
        base_url: str,
        *,
        name: str | None = None,
        token: str | None = None,
        session: requests.Session | None = None,
        kind: Collection | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self.transport = Transport(base_url, token=token, session=session, retry_s=retry_s)
        self._name = name or _name_in(self.base_url)
        self._kind = kind

    def __repr__(self) -> str:
        return f"<Container {self.base_url}>"

    @property
    def base_url(self) -> str:
        """Return the container's base URL, without a trailing slash."""
        return self.transport.base_url

    @property
    def name(self) -> str:
        """Return the name that other containers use for it."""
        if self._name is None:
            self._name = self.describe().name
        return self._name

    @property
    def kind(self) -> Collection:
        """Return the name of its collection: `artifacts` or `runs`."""
        if self._kind is None:
            self._kind = "runs" if self.describe().collection == "/runs" else "artifacts"
        return self._kind

    def describe(self) -> ToolDescription:
        """Return its name, parameters, output type and version."""
        return self.transport.get_json("/", ToolDescription.from_json, limit_bytes=DESCRIPTION_LIMIT_BYTES)

    def is_healthy(self) -> bool:
        """Tell whether it answers and is ready. It sends one request and never raises."""
        try:
            self.transport.request("GET", urls.HEALTHZ, read_timeout_s=_HEALTH_TIMEOUT_S, repeat=False)
        except BonseyesError:
            return False
        return True

    def names(self, limit: int | None = None, after: str | None = None) -> list[str]:
        """Return the names of its artifacts, oldest first: at most `limit`, and only those after the name `after`."""
        return self.transport.get_json(self._collection, names_of, params=_page(limit, after))

    def statuses(self, limit: int | None = None, after: str | None = None) -> list[Status]:
        """Return the statuses of the artifacts that `names` returns for the same arguments."""
        params = {"detail": "1", **_page(limit, after)}
        return self.transport.get_json(
            self._collection, lambda body: [Status.from_json(entry) for entry in body], params=params
        )

    def artifact(self, name: str) -> Artifact:
        """Return a handle on the artifact (or run) `name`, whether it exists or not."""
        return Artifact(self, name)

    def create(
        self,
        name: str | None,
        parameters: Mapping[str, Any] | None = None,
        files: Mapping[str, FileSource] | None = None,
        *,
        idempotency_key: str | None = None,
        reuse: bool | None = None,
    ) -> Artifact:
        """Create an artifact (or launch a run) and return its handle as soon as the container has stored it.

        The name of a run may be None: the pipeline then makes one.
        `parameters` takes Artifact handles for artifact parameters. `files` maps `file` parameters to the files to
        upload, which are streamed from disk. Without an `idempotency_key` the client makes one up, so that it can
        safely repeat the call after a lost connection. With `reuse`, the result of an equal artifact is taken, if there
        is one. Without `reuse`, a tool makes the artifact anew and a pipeline reuses.
        Raises ConflictError, InvalidError (`detail` names every bad parameter), QueueFullError, TooLargeError.
        """
        values = {key: _value(value) for key, value in (parameters or {}).items()}
        _refuse_infinite(values)
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        body: Multipart | bytes
        if files:
            fields = [("name", name or ""), ("data", json.dumps(values, allow_nan=False))]
            body = Multipart(fields, files)
            headers["Content-Type"] = body.content_type
        else:
            body = json_body({"name": name or "", "parameters": values})
            headers["Content-Type"] = "application/json"
        response = self.transport.request(
            "POST",
            self._collection,
            params=None if reuse is None else {"reuse": str(reuse).lower()},
            headers=headers,
            body=body,
            read_timeout_s=_CREATE_TIMEOUT_S,
        )
        return Artifact(self, self.transport.parsed(response, lambda answer: str(answer["name"])))

    def openapi(self) -> dict[str, Any]:
        """Return its OpenAPI document."""
        return self.transport.get_json(urls.OPENAPI, dict)

    # Only pipeline containers have the routes below.

    def task(self) -> Task:
        """Return the task of the pipeline's model."""
        return self.transport.get_json("/task", Task.from_json)

    def containers(self, type: str | None = None) -> list[dict[str, Any]]:
        """Return the containers that the pipeline uses: `name`, `type`, `status`, `info`."""
        return self.transport.get_json("/containers", objects, params={"type": type} if type else None)

    def artifacts(self, **filters: str) -> list[dict[str, Any]]:
        """Return the artifacts of all the pipeline's containers; the filters are `type`, `output_type`, `status`."""
        return self.survey(**filters)[0]

    def survey(self, **filters: str) -> tuple[list[dict[str, Any]], list[str]]:
        """Return (the list that `artifacts` returns, the names of the containers that did not answer).

        The list lacks the artifacts of the containers that did not answer.
        """
        response = self.transport.request("GET", "/artifacts", params=filters)
        header = response.headers.get(_UNREACHABLE_HEADER, "")
        return self.transport.parsed(response, objects), [name for name in header.replace(",", " ").split() if name]

    @property
    def _collection(self) -> str:
        return urls.collection(self.kind)


def _name_in(base_url: str) -> str | None:
    """Return the container's name in a base URL of the form `http://NAME` or `.../containers/NAME`."""
    parts = urlsplit(base_url)
    segments = parts.path.strip("/").split("/")
    if len(segments) >= 2 and segments[-2] == "containers":
        return segments[-1]
    is_bare = not parts.path and "." not in parts.netloc and parts.netloc != "localhost"
    return parts.netloc if is_bare and urls.is_name(parts.netloc) else None


def _page(limit: int | None, after: str | None) -> dict[str, str]:
    return ({} if limit is None else {"limit": str(limit)}) | ({} if after is None else {"after": after})


def _value(value: Any) -> Any:
    return value.url if isinstance(value, Artifact) else value


def _refuse_infinite(values: Mapping[str, Any]) -> None:
    wrong = {
        name: "It must hold finite numbers only; JSON has no others."
        for name, value in values.items()
        if format_json(value) != json.dumps(value)
    }
    if wrong:
        message = "; ".join(f"{name!r}: {sentence}" for name, sentence in wrong.items())
        raise InvalidError(f"Nothing was sent: {message}", detail=wrong)


def objects(body: Any) -> list[dict[str, Any]]:
    """Return `body` if it is a list of JSON objects; raise TypeError otherwise."""
    if not isinstance(body, list) or not all(isinstance(entry, dict) for entry in body):
        raise TypeError("not a list of objects")
    return body
