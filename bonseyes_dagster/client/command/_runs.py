"""`bonseyes run` launches a pipeline; `bonseyes runs` lists runs, and its sub-commands show and change one."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from bonseyes_dagster.client.command._completion import complete_pipeline
from bonseyes_dagster.client.command._existing import SHARED
from bonseyes_dagster.client.command._extensions import ExtensibleGroup
from bonseyes_dagster.client.command._launching import ask_all, launch, launch_options
from bonseyes_dagster.client.command._printing.output import age, duration, print_json, print_table
from bonseyes_dagster.client.command._state import State, json_option, pass_state
from bonseyes_dagster.model import Status

__all__ = ["COMMANDS"]


@click.command(
    epilog="\b\nbonseyes run digits-cnn --name first --wait \\\n"
    "    -f train-images=train-images.gz -f train-labels=train-labels.gz \\\n"
    "    -f test-images=test-images.gz -f test-labels=test-labels.gz -p epochs=3\n\n"
    "\b\nEach parameter has a type (bonseyes pipelines PIPELINE). Values are, for example:\n"
    "true, false, 3, 0.5, JSON, or @FILE with JSON in it.\n\n"
    "Ctrl-C only stops the wait: the run goes on."
)
@click.argument("pipeline", shell_complete=complete_pipeline)
@click.option("--name", help="The run's name; by default, the pipeline makes one.")
@launch_options
@click.option("--no-reuse", is_flag=True, help="Make all artifacts anew, even if equal ones exist.")
@json_option
@pass_state
def run(
    state: State,
    pipeline: str,
    name: str | None,
    values: Sequence[str],
    files: Sequence[str],
    waits: bool,
    timeout_s: float | None,
    no_reuse: bool,
) -> None:
    """Run a pipeline.

    Prints the run's address at once; with --wait, prints its result.
    """
    container = state.pipeline(pipeline)
    launch(state, container, name, (values, files), reuse=not no_reuse, waits=waits, timeout_s=timeout_s)


class _RunsGroup(ExtensibleGroup):
    """The group `runs`: without a sub-command, it calls `list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_listing = not args or (args[0] not in ("-h", "--help") and self.get_command(ctx, args[0]) is None)
        if is_listing and not ctx.resilient_parsing:
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete sub-commands and pipelines: without `list`, the next word may be either."""
        return [*super().shell_complete(ctx, incomplete), *complete_pipeline(ctx, click.Argument(["x"]), incomplete)]


@click.group(
    cls=_RunsGroup,
    words=("runs",),
    subcommand_metavar="[PIPELINE] | COMMAND [ARGS]...",
    epilog="\b\nbonseyes runs\nbonseyes runs digits-cnn\nbonseyes runs log digits-cnn/first --follow",
)
def runs() -> None:
    """List runs, or show and change one.

    Without a COMMAND, lists the runs of PIPELINE or of all pipelines. COMMANDs take a run as PIPELINE/NAME.
    """


@runs.command("list")
@click.argument("pipeline", required=False, shell_complete=complete_pipeline)
@json_option
@pass_state
def list_runs(state: State, pipeline: str | None) -> None:
    """List runs, the newest last."""
    if pipeline is not None:
        container = state.pipeline(pipeline)
        found = [(container.name, container.statuses())]
    else:
        names = [str(entry["container"]) for entry in state.project.pipelines()]
        found = ask_all(names, lambda name: state.project.container(name, "runs").statuses())
    rows = sorted(
        ((name, status) for name, statuses in found for status in statuses), key=lambda row: row[1].created or ""
    )
    if state.json:
        print_json([{"pipeline": name, **status.to_json()} for name, status in rows])
        return
    print_table(
        ("RUN", "PHASE", "STEPS", "CREATED", "TOOK"),
        (
            (f"{name}/{status.name}", status.phase, _steps(status), age(status.created),
             duration(status.started, status.finished))
            for name, status in rows
        ),
    )  # fmt: skip


def _steps(status: Status) -> str:
    steps = [step for step in status.steps or () if step.is_selected]
    done = sum(step.phase == "completed" for step in steps)
    return f"{done}/{len(steps)}" if steps else ""


for _command in SHARED:
    runs.add_command(_command)

COMMANDS: tuple[click.Command, ...] = (run, runs)
