"""Questions to the pipeline's containers: all asked at the same time, none waited for long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bonseyes_dagster.client import Addresses, Container
from bonseyes_dagster.errors import BonseyesError

__all__ = ["ContainerRequests"]

# A container that is starting anew is asked twice; one that is away is left out of the answer.
_RETRY_S = 0.5


class ContainerRequests:
    """Finds containers and asks many at once."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._pool = ThreadPoolExecutor(max_workers=32, thread_name_prefix="ask")

    def container(self, name: str) -> Container:
        """Return the client of a container, wherever it is now."""
        return Container(self._addresses.base_url(name), name=name, kind="artifacts", retry_s=_RETRY_S)

    def ask(self, questions: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Ask all; an answer is what was returned, or the BonseyesError that was raised."""
        return dict(zip(questions, self._pool.map(_attempt, questions.values()), strict=True))


def _attempt(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except BonseyesError as error:
        return error
