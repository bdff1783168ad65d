"""Every run can be found by a name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun

from bonseyes_dagster.execution.runs.run_names import run_name
from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.orchestration.runs.records import Records
from bonseyes_dagster.tags import PIPELINE_TAG, RUN_TAG

TINY = Path(__file__).parents[3] / "flow" / "tiny"
FIRST, SECOND = "11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    """Return the records of a pipeline with two runs of one name."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        for run_id in (FIRST, SECOND):
            tags = {PIPELINE_TAG: "tiny-one", RUN_TAG: "mine"}
            instance.add_run(DagsterRun(job_name="tiny_one", run_id=run_id, tags=tags))
        yield Records(instance, load_pipeline(TINY, "tiny-one"))


def test_two_runs_with_one_name_are_found_under_two_names(records: Records) -> None:
    """`dagster job execute` with an executor of Dagster's makes such runs."""
    listed = [run_name(record.dagster_run) for record in records.page(limit=None, after=None)]
    assert listed == ["mine", "mine-22222222"]
    assert [records.find(name).dagster_run.run_id for name in listed] == [FIRST, SECOND]
    assert run_name(records.find("mine-22222222").dagster_run) == "mine-22222222"
