"""Sends requests to many containers at the same time. A container that does not answer soon is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bonseyes_dagster.client import Addresses, Container
from bonseyes_dagster.errors import BonseyesError

__all__ = ["ContainerRequests"]

# So long a request is retried: enough for a container that restarts, too short to wait for one that is away.
_RETRY_S = 0.5


class ContainerRequests:
    """Makes clients of containers, and calls many of them at once."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._pool = ThreadPoolExecutor(max_workers=32, thread_name_prefix="container-request")

    def container(self, name: str) -> Container:
        """Return a client of the container at its current address."""
        return Container(self._addresses.base_url(name), name=name, kind="artifacts", retry_s=_RETRY_S)

    def call_all(self, calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Make all calls at once; return for each its result, or the BonseyesError that it raised."""
        return dict(zip(calls, self._pool.map(_attempt, calls.values()), strict=True))


def _attempt(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except BonseyesError as error:
        return error
