"""The health check of Dagster's daemon for the engine: `python -m bonseyes_dagster.docker.inside.heartbeat`.

Dagster's own command for this imports all of Dagster each time. The daemon stores the time of its last heartbeat; this
program reads it from the database in dagster.yaml. Like the other health checks (docker-compose.yml), it waits for the
first heartbeat. After a success, the next check pauses first, but always ends before the engine's timeout.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["main"]

# The daemon stores a heartbeat every 30 s.
MAX_AGE_S = 180.0
_PAUSE_S = 60.0
_WAIT_S = 30.0
_HEALTHY_FILE = Path("/tmp/.well")  # noqa: S108 - the container's own


def main() -> int:
    """Return 0 after a recent heartbeat; otherwise print the problem and return 1."""
    if _HEALTHY_FILE.exists():
        time.sleep(_PAUSE_S)
        _HEALTHY_FILE.unlink()
    until_s = time.monotonic() + _WAIT_S
    while (problem := _find_problem()) and time.monotonic() < until_s:
        time.sleep(1)
    if not problem:
        _HEALTHY_FILE.touch()
        return 0
    sys.stdout.write(f"{problem}\n")
    return 1


def _find_problem() -> str | None:
    try:
        last = _last_heartbeat()
    except Exception as error:  # the database and its driver have many errors
        return f"the database does not answer: {error}"
    # The heartbeat of an earlier daemon does not count: process 1 of this container started later.
    since = max(time.time() - MAX_AGE_S, Path("/proc/1").stat().st_mtime)
    return None if last is not None and last.timestamp() >= since else "no heartbeat"


def _last_heartbeat() -> datetime | None:
    import psycopg2  # psycopg2 and yaml are imported late: a check that only pauses needs neither
    import yaml

    config = yaml.safe_load(Path(os.environ["DAGSTER_HOME"], "dagster.yaml").read_text(encoding="utf-8"))
    connection: Any = psycopg2.connect(config["storage"]["custom"]["config"]["postgres_url"], connect_timeout=5)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT max(timestamp) FROM daemon_heartbeats")
            (last,) = cursor.fetchone()
    finally:
        connection.close()
    return last.replace(tzinfo=UTC) if last is not None else None


if __name__ == "__main__":
    sys.exit(main())
