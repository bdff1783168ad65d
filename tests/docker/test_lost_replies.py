"""Each write to Postgres happens once, also when the connection breaks before the server's reply arrives."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from dagster import AssetKey, AssetMaterialization, DagsterEvent, DagsterInstance, DagsterRun, RunsFilter
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import DagsterRunAlreadyExists
from dagster._core.events import DagsterEventType, JobFailureData, RunFailureReason, StepMaterializationData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._daemon.types import DaemonHeartbeat

from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.storage.migration import bring_up_to_date
from tests.docker.postgres import Postgres, running_postgres
from tests.docker.relay import Relay, relay_to
from tests.flow.tiny_project import running_dagster, running_tools
from tests.launching_project import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

ORIGIN = RemoteInstigatorOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "these"), "each-day")


@dataclass(frozen=True)
class Storage:
    """An instance that connects through the relay, and the database behind it."""

    instance: DagsterInstance
    relay: Relay
    postgres: Postgres
    database: str
    url: str  # the URL of the database, without the relay

    def rows(self, table: str, condition: str = "true") -> int:
        """Return the number of rows."""
        return int(self.postgres.query(f"SELECT count(*) FROM {table} WHERE {condition}", database=self.database))

    def add_run(self, **tags: str) -> DagsterRun:
        """Add a run."""
        return self.instance.add_run(DagsterRun(job_name="job", tags=tags))

    def report(self, run: DagsterRun, kind: DagsterEventType, **data: object) -> None:
        """Write one of Dagster's events."""
        self.instance.report_dagster_event(DagsterEvent(kind.value, "job", **data), run.run_id)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One Postgres for all tests."""
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="module")
def storage(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """An instance of Dagster that connects through the relay."""
    home = tmp_path_factory.mktemp("home")
    database = postgres.new_database()
    bring_up_to_date(home, postgres=database)
    with relay_to(postgres.port) as relay:
        write_instance(home, postgres=database.replace(f":{postgres.port}/", f":{relay.port}/"))
        with DagsterInstance.from_config(str(home)) as instance:
            yield Storage(instance, relay, postgres, database.rpartition("/")[2], database)


def test_run_is_added_once_with_all_its_tags(storage: Storage) -> None:
    """A second run with its id is still refused."""
    storage.relay.lose_reply("INSERT INTO runs")
    run = storage.add_run(one="1", two="2")
    assert storage.relay.has_lost
    assert storage.rows("run_tags", f"run_id = '{run.run_id}'") == 2
    assert [each.run_id for each in storage.instance.get_runs(RunsFilter(tags={"one": "1", "two": "2"}))] == [
        run.run_id
    ]
    with pytest.raises(DagsterRunAlreadyExists):
        storage.instance.add_run(run)


def test_run_is_added_only_together_with_its_tags(storage: Storage) -> None:
    """A reader never sees a run without its tags, even if the writer fails."""
    run = DagsterRun(job_name="job", tags={"no": "\0"})  # Postgres refuses this character
    with pytest.raises(ValueError, match="NUL"):
        storage.instance.run_storage.add_run(run)
    assert not storage.instance.has_run(run.run_id)


def test_slow_commit_is_not_written_twice(storage: Storage) -> None:
    """The connection breaks during the commit; the client must wait for its result before it writes again."""
    run = storage.add_run()
    with ThreadPoolExecutor(1) as pool, closing(psycopg2.connect(storage.url)) as locking, locking.cursor() as cursor:

        def waiting() -> int:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE relation = 'event_logs'::regclass AND NOT granted")
            [[count]] = cursor.fetchall()
            return int(count)

        cursor.execute("LOCK TABLE event_logs IN SHARE MODE")
        storage.relay.lose_reply("INSERT INTO event_logs", at_once=True)
        writing = pool.submit(storage.instance.report_engine_event, "hello", run)
        wait_until(lambda: storage.relay.has_lost and waiting())
        time.sleep(1)
        assert waiting() == 1
        locking.rollback()
        writing.result()
    assert len(storage.instance.all_logs(run.run_id)) == 1


def test_posted_run_is_created_once(postgres: Postgres, tmp_path: Path) -> None:
    """The client does not notice; the run has its name, archives and tags, and completes."""
    database = postgres.new_database()
    with (
        relay_to(postgres.port) as relay,
        running_tools(tmp_path) as tools,
        running_dagster(tools, database.replace(f":{postgres.port}/", f":{relay.port}/")) as dagster,
        dagster.serving_pipeline("tiny-one") as pipeline,
    ):
        relay.lose_reply("INSERT INTO runs")
        run = pipeline.create("once", {}, {"train": b"abc", "test": b"abc"})
        assert relay.has_lost
        assert run.wait(90).phase == "completed"
        assert pipeline.names() == ["once"]
        assert sorted(run.input_files()) == ["test", "train"]
        names = "SELECT value FROM run_tags WHERE key = 'bonseyes/run'"
        assert postgres.query(names, database=database.rpartition("/")[2]) == "once"


def add_tags(storage: Storage) -> None:
    """Add a tag, and change one."""
    run = storage.add_run(old="1")
    storage.instance.add_run_tags(run.run_id, {"old": "2", "new": "1"})
    assert storage.instance.get_run_ids(RunsFilter(tags={"old": "2", "new": "1"})) == [run.run_id]


def log(storage: Storage) -> None:
    """Write a line of a run's log."""
    run = storage.add_run()
    storage.instance.report_engine_event("hello", run)
    assert len(storage.instance.all_logs(run.run_id)) == 1


def materialize(storage: Storage) -> None:
    """Report an asset, with a tag."""
    data = StepMaterializationData(AssetMaterialization("thing", tags={DATA_VERSION_TAG: uuid.uuid4().hex}))
    storage.report(storage.add_run(), DagsterEventType.ASSET_MATERIALIZATION, event_specific_data=data, step_key="step")
    assert storage.instance.has_asset_key(AssetKey("thing"))


def fail(storage: Storage) -> None:
    """Fail a run with a reason, which becomes a tag."""
    run = storage.add_run()
    data = JobFailureData(error=None, failure_reason=RunFailureReason.STEP_FAILURE)
    storage.report(run, DagsterEventType.PIPELINE_FAILURE, event_specific_data=data)
    assert storage.instance.get_run_by_id(run.run_id).is_failure  # type: ignore[union-attr]


def tick(storage: Storage) -> None:
    """Begin a schedule's tick."""
    data = TickData(ORIGIN.get_id(), "each-day", InstigatorType.SCHEDULE, TickStatus.STARTED, time.time())
    begun = storage.instance.create_tick(data)
    assert storage.rows("job_ticks", f"id = {begun.tick_id}") == 1


def schedule(storage: Storage) -> None:
    """Turn a schedule on."""
    data = ScheduleInstigatorData("0 0 * * *")
    state = InstigatorState(ORIGIN, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, data)
    assert storage.instance.add_instigator_state(state) == state


def backfill(storage: Storage) -> None:
    """Add a backfill."""
    asked = PartitionBackfill(uuid.uuid4().hex[:8], BulkActionStatus.REQUESTED, False, {"a": "1"}, time.time())
    storage.instance.add_backfill(asked)


def beat(storage: Storage) -> None:
    """Store a heartbeat of a daemon."""
    storage.instance.run_storage.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", None, None))


def remember(storage: Storage) -> None:
    """Store a value under a key."""
    storage.instance.run_storage.set_cursor_values({"key": "value"})


@pytest.mark.parametrize(
    ("write", "table", "rows"),
    [
        (add_tags, "run_tags", 2),
        (log, "event_logs", 1),
        (materialize, "event_logs", 1),
        (materialize, "asset_event_tags", 1),
        (fail, "run_tags", 1),
        (tick, "job_ticks", 1),
        (schedule, "jobs", 1),
        (backfill, "bulk_actions", 1),
        (backfill, "backfill_tags", 1),
        (beat, "daemon_heartbeats", 1),
        (remember, "kvs", 1),
    ],
)
def test_write_with_a_lost_reply_happens_once(
    storage: Storage, write: Callable[[Storage], None], table: str, rows: int
) -> None:
    """This covers every kind of row that Dagster adds."""
    before = storage.rows(table)
    storage.relay.lose_reply(f"INSERT INTO {table}")
    write(storage)
    assert storage.relay.has_lost
    assert storage.rows(table) - before == rows
