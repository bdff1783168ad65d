"""The names of Dagster's services in every project, and the kinds of services that are containers."""

__all__ = ["CODE", "CONTAINER_KINDS", "DAEMON", "RUNS", "WEB"]

CODE = "code-server"
WEB = "dagster-webserver"
RUNS = "run-server"
DAEMON = "dagster-daemon"
# The kinds that serve the HTTP contract.
CONTAINER_KINDS = frozenset({"tool", "pipeline", "dashboard", "visualization"})
