"""Private parts of Dagster that `execution/storage/` uses. A new version of Dagster may move them."""

from dagster._check import CheckError
from dagster._config import validate_config
from dagster._core.errors import DagsterRunAlreadyExists
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.instance.config import dagster_instance_config, dagster_instance_config_schema
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, TickData
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData, serialize_value

__all__ = [
    "ASSET_CHECK_EVENTS",
    "ASSET_EVENTS",
    "SQLITE_BUSY_TIMEOUT_SECONDS",
    "CheckError",
    "ConfigurableClassData",
    "DagsterRunAlreadyExists",
    "DagsterSqliteStorage",
    "EventLogEntry",
    "InstanceRef",
    "InstigatorState",
    "InstigatorTick",
    "JobTickTable",
    "PartitionBackfill",
    "RunsTable",
    "SqlEventLogStorageTable",
    "SqliteEventLogStorage",
    "SqliteRunStorage",
    "TickData",
    "dagster_instance_config",
    "dagster_instance_config_schema",
    "serialize_value",
    "sqlite_event_log",
    "sqlite_run_storage",
    "sqlite_schedule_storage",
    "validate_config",
]
