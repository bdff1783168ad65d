"""Read the artifact API of one container without retries: the catalogue repeats failed requests at its next refresh."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from bonseyes_dagster import urls
from bonseyes_dagster.client import Container
from bonseyes_dagster.model import Status

__all__ = ["PAGE", "Source"]

PAGE = 1000
READ_TIMEOUT_S = 10.0
# The size limit of one answer: a page of statuses, or the parameters of one artifact.
_ANSWER_LIMIT_BYTES = 1 << 25
_PAGES_LIMIT = 1000
# A read of a long metric stops at these limits and continues at the next refresh.
_LINES_LIMIT_BYTES = 1 << 28
_LINES_LIMIT_S = 60.0
_T = TypeVar("_T")


class Source:
    """The artifacts (or the runs) of one container.

    Each call sends one request without retries: the next refresh comes soon, and a container that is down must not
    delay the others.
    """

    def __init__(self, base_url: str, kind: urls.Collection = "artifacts") -> None:
        self._container = Container(base_url, retry_s=0.0)
        self.kind = kind

    def change_address(self, base_url: str) -> None:
        """Use another address from now on: after a restart, a project may have other addresses."""
        if base_url.rstrip("/") != self._container.base_url:
            self._container = Container(base_url, retry_s=0.0)

    def describe_kind(self) -> urls.Collection | None:
        """Return the collection in the container's description; None if it has none."""
        description = self._get("/", dict)
        collections = description.get("artifacts")
        if not isinstance(collections, list):
            return None
        return next((kind for kind in ("runs", "artifacts") if f"/{kind}" in collections), None)

    def statuses(self, after: str | None = None) -> Iterator[Status]:
        """Yield all statuses after the artifact `after`, oldest first; each request reads one page."""
        for _ in range(_PAGES_LIMIT):
            params = {"detail": "1", "limit": str(PAGE), **({"after": after} if after else {})}
            page = self._get(
                urls.collection(self.kind), lambda body: [Status.from_json(entry) for entry in body], params
            )
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].name

    def metrics(self, name: str) -> list[str]:
        """Return the names of the metrics with at least one point."""
        return self._get(urls.part(name, "metrics", kind=self.kind), _names)

    def parameters(self, name: str) -> Mapping[str, Any]:
        """Return the parameters of an artifact, with defaults."""
        return self._get(urls.part(name, "input-parameters", kind=self.kind), dict)

    def lines(self, name: str, metric: str, offset: int = 0) -> Iterator[bytes]:
        """Yield the metric's text from byte `offset`, in pieces."""
        path = urls.part(name, "metrics", metric, "scalar", kind=self.kind)
        transport = self._container.transport
        with transport.request(
            "GET", path, params={"offset": str(offset)}, stream=True, read_timeout_s=READ_TIMEOUT_S
        ) as response:
            until, size_bytes = time.monotonic() + _LINES_LIMIT_S, 0
            for piece in transport.pieces(response):
                yield piece
                size_bytes += len(piece)
                if size_bytes > _LINES_LIMIT_BYTES or time.monotonic() > until:
                    return

    def _get(self, path: str, parse: Callable[[Any], _T], params: Mapping[str, str] | None = None) -> _T:
        return self._container.transport.get_json(
            path, parse, params=params, read_timeout_s=READ_TIMEOUT_S, limit_bytes=_ANSWER_LIMIT_BYTES
        )


def _names(body: Any) -> list[str]:
    return [str(name) for name in body]
