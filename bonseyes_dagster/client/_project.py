"""The client of a whole project: its containers and pipelines behind the gateway's port."""

from __future__ import annotations

from typing import Any

import requests

from bonseyes_dagster import urls
from bonseyes_dagster.client._container import Container, objects
from bonseyes_dagster.client._transport import RETRY_S, Transport
from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.model import ToolDescription
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import Collection

__all__ = ["Project"]


class Project:
    """A project at the URL of its gateway; `token` is the gateway's, if it has one."""

    def __init__(
        self,
        gateway_url: str,
        token: str | None = None,
        *,
        session: requests.Session | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self.transport = Transport(gateway_url, token=token, session=session, retry_s=retry_s)
        self._token = token
        self._session = session

    @classmethod
    def from_settings(cls, settings: Settings | None = None) -> Project:
        """Return the project of `BONSEYES_URL` and `BONSEYES_TOKEN`."""
        settings = settings or Settings.from_environ()
        return cls(settings.gateway_url, settings.token or None)

    def __repr__(self) -> str:
        return f"<Project {self.transport.base_url}>"

    def container(self, name: str, kind: Collection | None = None) -> Container:
        """Return the container `name`, whether it exists or not."""
        url = self.transport.url(urls.gateway_container(name))
        return Container(
            url, name=name, token=self._token, session=self._session, kind=kind, retry_s=self.transport.retry_s
        )

    def pipelines(self) -> list[dict[str, Any]]:
        """Return every pipeline's `name`, `container` and `description`."""
        return self.transport.get_json("/pipelines", objects)

    def pipeline(self, name: str) -> Container:
        """Return the container of the pipeline `name`, which is the pipeline's own name or its container's."""
        known = self.pipelines()
        for key in ("container", "name"):
            for entry in known:
                if entry.get(key) == name:
                    return self.container(str(entry["container"]), kind="runs")
        names = ", ".join(sorted(str(entry.get("container")) for entry in known)) or "none"
        raise NotFoundError(f"There is no pipeline {name!r}; the pipelines are: {names}.")

    def containers(self) -> dict[str, ToolDescription | None]:
        """Return the latest description of every registered container, by name; None if it never answered."""
        return self.transport.get_json("/containers", _descriptions)


def _descriptions(body: Any) -> dict[str, ToolDescription | None]:
    return {name: ToolDescription.from_json(entry) if entry else None for name, entry in body.items()}
