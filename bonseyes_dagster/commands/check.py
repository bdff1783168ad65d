"""`bonseyes check`: parse the options, and print the findings."""

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
    """Report the tools, images, services and pipelines of the project that do not fit together.

    Exits with 1 when it finds a problem. It needs no Docker; it checks the pipelines only if Dagster is installed.
    """
    folder = find_project().folder
    read_env_file(folder)  # the code must load with the same settings as in `bonseyes up`
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
    for part in report.skipped:
        print_note(f"Not checked: {part}.")
    if report.findings:
        print_note(f"{len(report.findings)} findings.")
        return
    subject = report.subject
    counts = [f"{len(subject.tools)} tools"]
    if subject.pipelines is not None:
        counts.append(f"{len(subject.pipelines)} pipelines")
    if subject.compose_model is None:
        click.echo(f"{', '.join(counts)}: no problems. There is no docker-compose.yml: the project runs embedded only.")
    else:
        counts += [f"{len(subject.images)} images", f"{len(subject.services)} services"]
        click.echo(f"{', '.join(counts)}: no problems.")
