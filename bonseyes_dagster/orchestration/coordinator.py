"""Where launches pass on their way, from Dagster's UI, its CLI, schedules and sensors: each run gets its name."""

from dagster import DagsterRun, QueuedRunCoordinator
from dagster._core.run_coordinator import DefaultRunCoordinator, SubmitRunContext

from bonseyes_dagster.orchestration.names import name_run

__all__ = ["NamingQueuedRunCoordinator", "NamingRunCoordinator"]


class NamingRunCoordinator(DefaultRunCoordinator):
    """Dagster's default coordinator, which launches at once, and a name for each run."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Name the run, then launch it."""
        name_run(self._instance, context.dagster_run)
        return super().submit_run(context)


class NamingQueuedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queued coordinator, which keeps limits and needs the daemon, and a name for each run."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Name the run, then queue it."""
        name_run(self._instance, context.dagster_run)
        return super().submit_run(context)
