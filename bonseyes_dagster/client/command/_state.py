"""What every command is given: the project that was addressed and whether JSON is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import click

from bonseyes_dagster.client import Container, Project
from bonseyes_dagster.errors import InvalidError, NotFoundError
from bonseyes_dagster.settings import Settings

__all__ = ["State", "json_option", "pass_state"]

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass
class State:
    """The root's options, for all commands below it."""

    url: str | None = None
    token: str | None = None
    json: bool = False
    # A person waits for the answer: nobody there should be said soon.
    retry_s: float = 1.0

    @cached_property
    def settings(self) -> Settings:
        """Return what the environment sets."""
        return Settings.from_environ()

    @cached_property
    def project(self) -> Project:
        """Return the project at `--url`."""
        token = self.token or self.settings.token or None
        return Project(self.url or self.settings.gateway_url, token, retry_s=self.retry_s)

    def pipeline(self, name: str) -> Container:
        """Return a pipeline's container by its own name or the pipeline's; InvalidError when it is a tool's."""
        container = self.project.container(name)
        try:
            is_pipeline = container.kind == "runs"
        except NotFoundError:
            return self.project.pipeline(name)
        if not is_pipeline:
            raise InvalidError(f"{name} is a tool, not a pipeline: bonseyes artifact create {name}/NAME")
        return container


pass_state = click.make_pass_decorator(State, ensure=True)


def json_option(command: _F) -> _F:
    """Let a command take `--json`; it finds it in `State.json`."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        help="Print one JSON document and nothing else.",
        callback=_set_json,
    )(command)


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(State).json = True
