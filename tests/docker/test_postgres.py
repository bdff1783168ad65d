"""Dagster's runs in Postgres: the launcher's tests, and kills of the database during runs."""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as db
from dagster import AssetKey, DagsterInstance, DagsterRunStatus, RunsFilter

from bonseyes_dagster.errors import SettingsError, UnavailableError
from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.storage.migration import bring_up_to_date
from bonseyes_dagster.execution.storage.postgres_storage import PooledPostgresStorage
from tests.docker.postgres import Postgres, running_postgres
from tests.launching_project import wait_until
from tests.unit.execution.launching import LaunchingProject, launching_project
from tests.unit.execution.test_launcher import *  # noqa: F403 - all of them, with this database

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

OLDER_TABLES = Path(__file__).with_name("dagster_1_6.sql")
SUCCESS = DagsterRunStatus.SUCCESS


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One Postgres for all tests, with a database for each project."""
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="module")
def database(postgres) -> Callable[[], str]:
    """A function that makes the database of a project; the imported tests use this fixture."""
    return postgres.new_database


@pytest.fixture
def pooled(tmp_path, port, postgres) -> Iterator[LaunchingProject]:
    """A separate project with a run server."""
    with launching_project(tmp_path, port, postgres=postgres.new_database()) as project:
        project.serve_runs()
        yield project


def _connections(postgres: Postgres, project: LaunchingProject) -> int:
    name = project.instance.run_storage.postgres_url.rpartition("/")[2]
    return int(postgres.query(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"))


# --- a database that goes away


def test_runs_survive_a_kill_of_the_database(pooled, postgres):
    """Ops log all the time; every line is in the log once, in order."""
    run_ids = [pooled.launch("talkative") for _ in range(3)]
    wait_until(lambda: all("line 20 " in pooled.messages(run_id) for run_id in run_ids))
    postgres.away(4)
    for run_id in run_ids:
        assert pooled.wait(run_id, 120) == SUCCESS
        lines = [each for each in pooled.messages(run_id).splitlines() if each.startswith("line ")]
        assert lines == [f"line {number} of {run_id}" for number in range(400)]


def test_broken_statement_is_repeated_without_duplicates(pooled, postgres):
    """All connections break again and again while runs write; no event is lost or stored twice."""
    run_id = pooled.launch("talkative")
    wait_until(lambda: "line 10 " in pooled.messages(run_id))
    others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    while not pooled.run(run_id).is_finished:
        postgres.query(others)
    assert pooled.run(run_id).status == SUCCESS
    lines = [each for each in pooled.messages(run_id).splitlines() if each.startswith("line ")]
    assert lines == [f"line {number} of {run_id}" for number in range(400)]


def test_run_killed_while_the_database_is_down_is_resumed(pooled, postgres):
    """The run server cannot read the run's state at first, and does so later."""
    run_id = pooled.launch("waiting")
    pid = pooled.wait_for_pid()
    postgres.kill()
    os.kill(pid, 9)
    time.sleep(5)
    postgres.start()
    pooled.wait_for_pid(2)
    pooled.release()
    assert pooled.wait(run_id) == SUCCESS


def test_runs_survive_a_kill_of_run_server_and_database(pooled, postgres):
    """This is what happens when a machine fails; unfinished runs complete."""
    run_id = pooled.launch("waiting")
    os.kill(pooled.wait_for_pid(), 9)
    pooled.servers[-1].stop(9)
    postgres.away(1)
    pooled.serve_runs()
    pooled.wait_for_pid(2)
    pooled.release()
    assert pooled.wait(run_id) == SUCCESS


def test_query_without_the_database_raises_unavailable(pooled, postgres):
    """It raises after a while, neither at once nor never; web services answer 503 with its message."""
    assert pooled.instance.get_run_ids(limit=1) == []
    postgres.kill()
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="database of Dagster's runs does not answer"):
        pooled.instance.get_run_ids(limit=1)
    assert 5 < time.monotonic() - began < 15
    postgres.start()
    assert pooled.instance.get_run_ids(limit=1) == []


# --- connections


def test_forked_process_opens_its_own_connections(pooled):
    """Parent and child read and write at the same time without errors."""
    instance = pooled.instance
    run_id = pooled.launch("quick")
    assert pooled.wait(run_id) == SUCCESS
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in range(50):
                instance.add_run_tags(run_id, {"child": str(number)})
            code = 0
        finally:
            os._exit(code)
    for _ in range(50):
        assert instance.get_run_by_id(run_id).run_id == run_id
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pooled.run(run_id).tags["child"] == "49"


def test_waiting_runs_hold_no_connections(pooled, postgres):
    """The server allows a hundred connections, and there are a hundred runs."""
    assert postgres.query("SHOW max_connections") == "100"
    run_ids = [pooled.launch("waiting") for _ in range(100)]
    wait_until(lambda: len(pooled.pids()) == len(run_ids), timeout_s=200)
    wait_until(lambda: _connections(postgres, pooled) <= 10)
    pooled.release()
    assert {pooled.wait(run_id) for run_id in run_ids} == {SUCCESS}


def test_idle_connections_are_closed(postgres):
    """They are closed only after the idle time, and opened again on demand."""
    url = postgres.new_database()
    storage = PooledPostgresStorage(url, keep_s=5)
    open_ones = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{url.rpartition('/')[2]}'"

    def backend(seconds: float) -> int:
        with storage.run_storage.connect() as connection:
            return connection.execute(db.text(f"SELECT pg_backend_pid() FROM pg_sleep({seconds})")).scalar_one()

    first = backend(7)
    for _ in range(15):  # together longer than keep_s
        time.sleep(0.4)
        assert backend(0) == first
    wait_until(lambda: postgres.query(open_ones) == "0")
    assert backend(0) != first
    threads = [threading.Thread(target=backend, args=[0.5]) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: postgres.query(open_ones) == "0")


def test_threads_wait_for_a_free_connection(pooled, postgres):
    """A process has a fixed number of connections, however many threads it has."""
    most: list[int] = []
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(10):
                pooled.instance.get_runs_count()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most.append(_connections(postgres, pooled))
    assert not failed
    assert max(most) <= 20  # ten, and the run server's; without the limit, each thread would have one


def test_lists_of_runs_have_pages(pooled):
    """The runs are in order of creation, each once."""
    run_ids = [pooled.create("quick") for _ in range(7)]
    found: list[str] = []
    cursor = None
    while page := pooled.instance.get_run_records(RunsFilter(job_name="quick"), limit=3, cursor=cursor, ascending=True):
        found += [each.dagster_run.run_id for each in page]
        cursor = found[-1]
    assert found == run_ids


# --- tables


def test_tables_are_made_and_migrated_once(tmp_path, postgres):
    """Two processes prepare new and old tables at the same time, and again when nothing is to be done."""
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    call = f"bring_up_to_date(Path({str(tmp_path)!r}), postgres={url!r})"
    command = f"from pathlib import Path; from {bring_up_to_date.__module__} import bring_up_to_date; {call}"
    both = [subprocess.Popen([sys.executable, "-c", command]) for _ in range(2)]
    assert [each.wait(60) for each in both] == [0, 0]
    newest = _version(postgres, name)
    _set_version(postgres, name, "7e2f3204cf8e")
    bring_up_to_date(tmp_path, postgres=url)
    assert _version(postgres, name) == newest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> str:
    """The description of tables that were made without an interruption."""
    url = postgres.new_database()
    bring_up_to_date(tmp_path_factory.mktemp("whole"), postgres=url)
    return _tables(postgres, url)


def test_tables_of_an_older_dagster_are_migrated(tmp_path, postgres, whole):
    """They have the same columns as new tables, and their rows can be read."""
    url = postgres.new_database()
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(OLDER_TABLES.read_text(encoding="utf-8"))
    bring_up_to_date(tmp_path, postgres=url)
    # One index has another name after the migration than in new tables.
    differing = set(_tables(postgres, url).splitlines()) ^ set(whole.splitlines())
    assert differing == {"idx_run_tags_run_id", "idx_run_tags"}
    write_instance(tmp_path, postgres=url)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        [record] = instance.get_run_records()
        run = record.dagster_run
        assert (run.job_name, run.status, run.tags["bonseyes/name"]) == ("quick", SUCCESS, "old")
        assert "hello" in [each.user_message for each in instance.all_logs(run.run_id)]
        assert instance.get_latest_materialization_events([AssetKey("thing")])[AssetKey("thing")].run_id == run.run_id


@pytest.mark.parametrize("statements", [25, 60, 90])
def test_tables_are_complete_after_an_interrupted_creation(tmp_path, postgres, whole, statements):
    """After a kill, the next attempt makes the missing tables, and marks the schema as new."""
    url = postgres.new_database()
    count = itertools.count()

    def end(*_: object) -> None:
        if next(count) >= statements:
            raise KeyboardInterrupt

    db.event.listen(db.Engine, "before_cursor_execute", end)
    try:
        with pytest.raises(KeyboardInterrupt):
            bring_up_to_date(tmp_path, postgres=url)
    finally:
        db.event.remove(db.Engine, "before_cursor_execute", end)
    bring_up_to_date(tmp_path, postgres=url)
    assert _tables(postgres, url) == whole


def test_tables_of_a_newer_dagster_are_left_alone(tmp_path, postgres):
    """An older image after an upgrade reports the problem, and damages nothing."""
    url = postgres.new_database()
    bring_up_to_date(tmp_path, postgres=url)
    _set_version(postgres, url.rpartition("/")[2], "ffffffffffff")
    with pytest.raises(SettingsError, match="newer Dagster"):
        bring_up_to_date(tmp_path, postgres=url)


def test_wrong_database_password_is_reported(tmp_path: Path, postgres):
    """This happens when the volume with the password was removed, but not the database's volume."""
    url = postgres.new_database().replace("for-tests", "another")
    with pytest.raises(UnavailableError, match="another password"):
        bring_up_to_date(tmp_path, postgres=url)


def _tables(postgres: Postgres, url: str) -> str:
    columns = "SELECT table_name || column_name FROM information_schema.columns WHERE table_schema = 'public'"
    indices = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
    both = f"{columns} UNION ALL {indices} UNION ALL SELECT name FROM secondary_indexes ORDER BY 1"
    return postgres.query(both, database=url.rpartition("/")[2])


def _version(postgres: Postgres, database: str) -> str:
    return postgres.query("SELECT version_num FROM alembic_version", database=database)


def _set_version(postgres: Postgres, database: str, version: str) -> None:
    postgres.query(f"UPDATE alembic_version SET version_num = '{version}'", database=database)
