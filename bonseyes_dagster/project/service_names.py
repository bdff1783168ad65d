"""What the services of Dagster are called in every project, and which kinds of services are containers."""

__all__ = ["CODE", "CONTAINER_KINDS", "DAEMON", "RUNS", "WEB"]

CODE = "code-server"
WEB = "dagster-webserver"
RUNS = "run-server"
DAEMON = "dagster-daemon"
# Those that speak the HTTP contract.
CONTAINER_KINDS = frozenset({"tool", "pipeline", "dashboard", "visualization"})
