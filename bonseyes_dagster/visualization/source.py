"""One container's artifact API, read without patience: what does not answer now is asked again at the next look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import requests

from bonseyes_dagster import sockets, urls
from bonseyes_dagster.client import Container
from bonseyes_dagster.errors import ConnectionFailedError
from bonseyes_dagster.model import Status

__all__ = ["PAGE", "Source"]

PAGE = 1000
READ_TIMEOUT_S = 10.0
_CHUNK_BYTES = 256 * 1024
_T = TypeVar("_T")


class Source:
    """The artifacts (or the runs) of one container.

    Calls are tried once: the catalogue comes round again soon, and one that is down must not hold up the others.
    """

    def __init__(self, base_url: str, kind: urls.Collection = "artifacts") -> None:
        self._container = Container(base_url, retry_s=0.0)
        self.kind = kind

    def move(self, base_url: str) -> None:
        """Go on at another address: a project that was started again may have other addresses."""
        if base_url.rstrip("/") != self._container.base_url:
            self._container = Container(base_url, retry_s=0.0)

    def describe_kind(self) -> urls.Collection | None:
        """Return the collection that the container says it has; None when it has none."""
        description = self._get("/", dict)
        collections = description.get("artifacts")
        if not isinstance(collections, list):
            return None
        return next((kind for kind in ("runs", "artifacts") if f"/{kind}" in collections), None)

    def statuses(self, after: str | None = None) -> Iterator[Status]:
        """Yield every status after the artifact `after`, oldest first, a page at a time."""
        while True:
            params = {"detail": "1", "limit": str(PAGE), **({"after": after} if after else {})}
            page = self._get(
                urls.collection(self.kind), lambda body: [Status.from_json(entry) for entry in body], params
            )
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].name

    def metrics(self, name: str) -> list[str]:
        """Return the names of the metrics that have points so far."""
        return self._get(urls.part(name, "metrics", kind=self.kind), _names)

    def parameters(self, name: str) -> Mapping[str, Any]:
        """Return the parameters as used."""
        return self._get(urls.part(name, "input-parameters", kind=self.kind), dict)

    def lines(self, name: str, metric: str, offset: int = 0) -> Iterator[bytes]:
        """Yield the metric's text from byte `offset`, in pieces."""
        path = urls.part(name, "metrics", metric, "scalar", kind=self.kind)
        request = self._container.transport.request
        with request(
            "GET", path, params={"offset": str(offset)}, stream=True, read_timeout_s=READ_TIMEOUT_S
        ) as response:
            try:
                yield from response.iter_content(_CHUNK_BYTES)
            except requests.RequestException as error:
                raise ConnectionFailedError(f"{sockets.plain_url(response.url)} broke off: {error}") from error

    def _get(self, path: str, parse: Callable[[Any], _T], params: Mapping[str, str] | None = None) -> _T:
        return self._container.transport.get_json(path, parse, params=params, read_timeout_s=READ_TIMEOUT_S)


def _names(body: Any) -> list[str]:
    return [str(name) for name in body]
