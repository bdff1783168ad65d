"""A Postgres for tests, in a container that can be killed."""

import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tests.launching_project import free_port, wait_until

_PASSWORD = "for-tests"
IMAGE = "postgres:15"


class Postgres:
    """A Postgres in a container; it keeps its port after a restart."""

    def __init__(self) -> None:
        self.name = f"test-postgres-{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        environ = ["-e", "POSTGRES_USER=dagster", "-e", "POSTGRES_DB=dagster", "-e", f"POSTGRES_PASSWORD={_PASSWORD}"]
        limits = ["--memory", "1g", "--shm-size", "256m", "-p", f"127.0.0.1:{self.port}:5432"]
        docker("run", "-d", "--name", self.name, *environ, *limits, IMAGE)
        try:
            # The image first starts a server that makes the database, and listens at no port.
            wait_until(lambda: self.query("SELECT 1", is_checked=False), every_s=0.3)
        except BaseException:
            self.remove()
            raise

    def query(self, statement: str, *, database: str = "dagster", is_checked: bool = True) -> str:
        """Return the result of a statement; without `is_checked`, return "" when it fails."""
        command = ["psql", "-h", "127.0.0.1", "-U", "dagster", "-d", database, "-tA", "-c", statement]
        return docker("exec", "-e", f"PGPASSWORD={_PASSWORD}", self.name, *command, is_checked=is_checked)

    def address(self, network: str) -> str:
        """Return its host and port in a network; this machine and containers can use them."""
        template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return f"{docker('inspect', '-f', template, self.name)}:5432"

    def new_database(self, address: str | None = None) -> str:
        """Make a database and return its URL."""
        name = f"d{uuid.uuid4().hex[:12]}"
        self.query(f"CREATE DATABASE {name}")
        return f"postgresql://dagster:{_PASSWORD}@{address or f'127.0.0.1:{self.port}'}/{name}"

    def kill(self) -> None:
        """Kill it, as in a power cut."""
        docker("kill", self.name)

    def start(self) -> None:
        """Start it again."""
        docker("start", self.name)

    def away(self, for_s: float) -> None:
        """Kill it, and start it again after `for_s`."""
        self.kill()
        time.sleep(for_s)
        self.start()

    def remove(self) -> None:
        """Remove the container and its volume."""
        docker("rm", "-fv", self.name)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Yield a Postgres; remove it afterwards."""
    postgres = Postgres()
    try:
        yield postgres
    finally:
        postgres.remove()


def docker(*arguments: str, is_checked: bool = True) -> str:
    """Return the output of `docker ARGUMENTS`."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 or not is_checked, done.stderr
    return done.stdout.strip() if done.returncode == 0 else ""
