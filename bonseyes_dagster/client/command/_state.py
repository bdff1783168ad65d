"""The options of the root command, for every sub-command: the project's address and token, and `--json`."""

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
    """The options of the root command."""

    url: str | None = None
    token: str | None = None
    json: bool = False
    # Fail fast: a person is waiting for this answer.
    retry_s: float = 1.0

    @cached_property
    def settings(self) -> Settings:
        """Return the settings of the environment."""
        return Settings.from_environ()

    @cached_property
    def project(self) -> Project:
        """Return the project at `--url`."""
        token = self.token or self.settings.token or None
        return Project(self.url or self.settings.gateway_url, token, retry_s=self.retry_s)

    def pipeline(self, name: str) -> Container:
        """Return a pipeline's container by its own name or the pipeline's; raise InvalidError for a tool's."""
        container = self.project.container(name)
        try:
            is_pipeline = container.kind == "runs"
        except NotFoundError:
            return self.project.pipeline(name)
        if not is_pipeline:
            raise InvalidError(f"{name} is a tool, not a pipeline: use `bonseyes artifact create {name}/NAME`.")
        return container


pass_state = click.make_pass_decorator(State, ensure=True)


def json_option(command: _F) -> _F:
    """Add the option `--json` to a command, which finds its value in `State.json`."""
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
