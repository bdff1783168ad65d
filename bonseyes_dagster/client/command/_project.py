"""`bonseyes containers`, `pipelines` and `task`: the parts of the project."""

from __future__ import annotations

import click

from bonseyes_dagster.client.command._completion import complete_pipeline
from bonseyes_dagster.client.command._launching import ask_all
from bonseyes_dagster.client.command._printing.output import print_fields, print_json, print_note, print_table
from bonseyes_dagster.client.command._state import State, json_option, pass_state

__all__ = ["COMMANDS"]


@click.command()
@json_option
@pass_state
def containers(state: State) -> None:
    """List the containers, and whether they answer."""
    known = state.project.containers()
    # Ask each container: the dashboard's answer may be old.
    healthy = dict(ask_all(sorted(known), lambda name: state.project.container(name).is_healthy()))
    rows = [
        {
            "name": name,
            "status": "started" if healthy.get(name) else "missing",
            "description": described.description if described else "",
            "code_changed": bool(described and described.code_changed),
        }
        for name, described in sorted(known.items())
    ]
    if state.json:
        print_json(rows)
        return
    columns = ("name", "status", "description")
    print_table(("CONTAINER", "STATUS", "DESCRIPTION"), ([str(row[key]) for key in columns] for row in rows))
    for row in rows:
        if row["code_changed"]:
            print_note(f"The code of {row['name']} changed since it started; restart the container to use it.")


@click.command()
@click.argument("pipeline", required=False, shell_complete=complete_pipeline)
@json_option
@pass_state
def pipelines(state: State, pipeline: str | None) -> None:
    """List the pipelines, or the parameters of one."""
    if pipeline is not None:
        description = state.pipeline(pipeline).describe()
        if state.json:
            print_json(description.to_json())
            return
        rows = (
            (p.name, p.type, "required" if p.required else str(p.default), p.description or p.label)
            for p in description.parameters
        )
        print_table(("PARAMETER", "TYPE", "DEFAULT", "DESCRIPTION"), rows)
        return
    entries = state.project.pipelines()
    if state.json:
        print_json(entries)
    else:
        columns = ("container", "name", "description")
        print_table(("PIPELINE", "NAME", "DESCRIPTION"), ([str(e.get(key, "")) for key in columns] for e in entries))


@click.command()
@click.argument("pipeline", shell_complete=complete_pipeline)
@json_option
@pass_state
def task(state: State, pipeline: str) -> None:
    """Show the task of a pipeline's model.

    Its eight fields describe the purpose of the model and the criteria for it.
    """
    body = state.pipeline(pipeline).task().to_json()
    if state.json:
        print_json(body)
    else:
        print_fields(body.items())


COMMANDS: tuple[click.Command, ...] = (containers, pipelines, task)
