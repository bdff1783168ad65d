"""Rules about tools: each folder has a valid tool.yml, and each tool has an image and a service of its name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bonseyes_dagster.description import load_tool
from bonseyes_dagster.docker.check.finding import Finding, line_of
from bonseyes_dagster.docker.check.subject import SOCKET_PROXY, Subject, Tool
from bonseyes_dagster.docker.compose.files import COMPOSE_FILE
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.urls import is_name

__all__ = ["RULES"]

# The names of the services that every project has; a tool must not have the same name.
_OWN = frozenset(
    {
        "access",
        "code-server",
        "dagster-daemon",
        "dagster-webserver",
        "dashboard",
        "gateway",
        "postgres",
        "prepare",
        "run-server",
        "secrets",
        SOCKET_PROXY,
        "visualization",
    }
)


def _at_tool(subject: Subject, tool: Tool, problem: str, remedy: str) -> Finding:
    return Finding(file=subject.shown(tool.folder), problem=problem, remedy=remedy)


def tool_description(subject: Subject) -> Iterator[Finding]:
    """Each folder holds a valid tool.yml."""
    for tool in subject.tools:
        file = subject.shown(tool.folder) / "tool.yml"
        if not (tool.folder / "tool.yml").exists():
            yield Finding(file=file, problem="There is no such file.", remedy="Describe the tool in it.")
            continue
        try:
            load_tool(tool.folder)
        except SettingsError as error:
            line, problem = _place(error.message.removeprefix(str(tool.folder / "tool.yml")))
            yield Finding(file=file, line=line, problem=problem, remedy="docs/authoring.md lists the keys.")


def _place(message: str) -> tuple[int | None, str]:
    """Return the line number in a message about a file, and the rest of the message as a sentence."""
    found = re.match(r"(?:, line (\d+))?:? ?(.*)", message, re.DOTALL)
    assert found is not None  # the pattern matches every text
    return int(found[1]) if found[1] else None, f"{found[2].rstrip('.')}."


def tool_name(subject: Subject) -> Iterator[Finding]:
    """A tool's folder has a valid and unique name, because it is the container's name, too."""
    taken = dict.fromkeys(_OWN, "a service of every project")
    for tool in subject.tools:
        if not is_name(tool.name):
            yield _at_tool(
                subject,
                tool,
                f"{tool.name!r} cannot be a container's name.",
                "Use letters, digits, '.', '_' and '-', and begin with a letter or a digit.",
            )
        elif tool.name in taken:
            yield _at_tool(
                subject, tool, f"{tool.name!r} is already the name of {taken[tool.name]}.", "Rename the folder."
            )
        taken.setdefault(tool.name, f"the tool {subject.shown(tool.folder)}")


def tool_has_service(subject: Subject) -> Iterator[Finding]:
    """Each tool has a service."""
    run_tools = {tool.inner for tool in subject.tool_services.values() if tool}
    for tool in subject.tools:
        # If a service of its name runs something else, the rules below report it.
        if subject.compose_model and tool.inner not in run_tools and tool.name not in subject.tool_services:
            yield _at_tool(
                subject, tool, f"No service of {COMPOSE_FILE} runs it.", f"Add a service {tool.name!r} there."
            )


def service_runs_its_tool(subject: Subject) -> Iterator[Finding]:
    """BONSEYES_TOOL of a service, or of its image, is the path of the tool of the same name."""
    by_name = {tool.name: tool for tool in subject.tools}
    for name, tool in subject.tool_services.items():
        path = subject.tool_path(subject.services[name])
        if tool and tool.name != name:
            yield subject.at_service(
                name,
                f"it runs the tool in {subject.shown(tool.folder)}.",
                f"Give the service the name of its tool's folder: {tool.name!r}.",
            )
        elif tool is None and name in by_name:
            yield subject.at_service(
                name,
                f"BONSEYES_TOOL, here or in its image, is {path!r}.",
                f"The tool of this name is in {by_name[name].inner!r}.",
            )
        elif tool is None:
            yield subject.at_service(
                name,
                f"BONSEYES_TOOL, here or in its image, is {path!r}.",
                "There is no such folder in containers/ or components/: remove the service, or add the tool.",
            )


def tool_has_image(subject: Subject) -> Iterator[Finding]:
    """Each tool has an entry of its name in the build file of its component or of the project."""
    if not subject.compose_model and not subject.images:
        return
    # Of two tools with one name, check the first: `tool_name` reports the other.
    for tool in {tool.name: tool for tool in reversed(subject.tools)}.values():
        image = subject.images.get(tool.name)
        where = subject.shown(tool.build_file)
        if image is None:
            yield _at_tool(subject, tool, "No build file makes its image.", f"Add {tool.name!r} to {where}.")
        elif image.file != tool.build_file:
            yield Finding(
                file=subject.shown(image.file),
                line=line_of(image.file, tool.name),
                problem=f"{tool.name}: its tool is in {subject.shown(tool.folder)}.",
                remedy=f"Move the entry to {where}.",
            )


RULES = (tool_description, tool_name, tool_has_service, service_runs_its_tool, tool_has_image)
