"""How an engine learns that Dagster's daemon works: `python -m bonseyes_dagster.docker.inside.heartbeat`.

Dagster's own command for this imports all of Dagster each time. The daemon writes down when it was last at work; this
reads it in the database that dagster.yaml names. Like the other looks at containers (docker-compose.yml) it waits for
the first heartbeat, and when there was one takes its time, but is over before the engine's timeout.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["main"]

# The daemon writes every 30 s.
LATELY_S = 180.0
_PAUSE_S = 60.0
_WAIT_S = 30.0
_WELL = Path("/tmp/.well")  # noqa: S108 - the container's own


def main() -> int:
    """Return 0 after a heartbeat; print what is wrong and return 1 when there is none."""
    if _WELL.exists():
        time.sleep(_PAUSE_S)
        _WELL.unlink()
    until_s = time.monotonic() + _WAIT_S
    while (wrong := _look()) and time.monotonic() < until_s:
        time.sleep(1)
    if not wrong:
        _WELL.touch()
        return 0
    sys.stdout.write(f"{wrong}\n")
    return 1


def _look() -> str | None:
    try:
        last = _last_heartbeat()
    except Exception as error:  # whatever the database or its driver finds
        return f"the database cannot be asked: {error}"
    # That of an earlier daemon says nothing of this one.
    since = max(time.time() - LATELY_S, Path("/proc/1").stat().st_mtime)
    return None if last is not None and last.timestamp() >= since else "no heartbeat"


def _last_heartbeat() -> datetime | None:
    import psycopg2  # here, as is yaml: who only waits needs neither
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
