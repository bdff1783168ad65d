"""`bonseyes check`: parsing and printing."""

from __future__ import annotations

import click

from bonseyes_dagster.client.command import State, json_option, pass_state, print_json, print_note
from bonseyes_dagster.docker.check.rules import Report, check_project
from bonseyes_dagster.project.environment import read_env_file
from bonseyes_dagster.project.folder import find_project

__all__ = ["check"]


@click.command()
@json_option
@pass_state
def check(state: State) -> int:
    """Say what does not fit together in the project: tools, images, services and pipelines.

    Exits with 1 when something does not. Needs no Docker; the pipelines are compared where Dagster is installed.
    """
    folder = find_project().folder
    read_env_file(folder)  # the code is loaded with the settings that `bonseyes up` would give it
    report = check_project(folder)
    if state.json:
        print_json(
            {"findings": [finding.to_json() for finding in report.findings], "skipped": list(report.skipped)},
        )
    else:
        _print(report)
    return 1 if report.findings else 0


def _print(report: Report) -> None:
    for finding in report.findings:
        click.echo(str(finding))
    for what in report.skipped:
        print_note(f"Not checked: {what}.")
    if report.findings:
        print_note(f"{len(report.findings)} findings.")
        return
    subject = report.subject
    counts = [f"{len(subject.tools)} tools"]
    if subject.pipelines is not None:
        counts.append(f"{len(subject.pipelines)} pipelines")
    if subject.compose_model is None:
        click.echo(f"{', '.join(counts)}: all right. There is no docker-compose.yml: the project runs embedded only.")
    else:
        counts += [f"{len(subject.images)} images", f"{len(subject.services)} services"]
        click.echo(f"{', '.join(counts)}: all fit together.")
