"""The data of the contract: it survives JSON, and the digests are as documented."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonseyes_dagster.model import (
    FileEntry,
    Manifest,
    Parameter,
    Progress,
    Status,
    Step,
    Task,
    ToolDescription,
    now,
    result_of,
)


@pytest.mark.parametrize(
    ("phase", "result"),
    [
        ("queued", "in-progress"),
        ("running", "in-progress"),
        ("completed", "completed"),
        ("failed", "failed"),
        ("cancelled", "failed"),
        ("interrupted", "failed"),
    ],
)
def test_result_follows_from_phase(phase: str, result: str) -> None:
    """Each phase has exactly the result of the contract."""
    assert result_of(phase) == result


def test_status_of_an_artifact_has_every_key_and_none_of_a_run() -> None:
    """Its keys are null where they do not apply, and it has no keys of runs."""
    body = Status(name="a", phase="queued", position=3).to_json()
    assert body["result"] == "in-progress"
    assert body["progress"] == {"done": None, "total": None, "unit": None, "message": None}
    assert {"started", "finished", "size", "digest", "reused_from"} <= body.keys()
    assert not {"steps", "run_id", "dagster_url"} & body.keys()


def test_status_of_a_run_survives_json() -> None:
    """The steps come back, too."""
    step = Step(
        name="train", container="training", artifact="r_train", phase="running", progress=Progress(1, 2, "epoch")
    )
    status = Status(name="r", phase="running", steps=(step,), run_id="i", dagster_url="/dagster/runs/i")
    assert Status.from_json(json.loads(json.dumps(status.to_json()))) == status


def test_unknown_keys_are_ignored() -> None:
    """A newer peer may send more keys."""
    assert Status.from_json({"name": "a", "phase": "failed", "new": 1, "progress": {"eta": 3}}).is_final


@given(st.lists(st.text(min_size=1), unique=True))
def test_digest_of_a_manifest_is_that_of_its_canonical_json(paths: list[str]) -> None:
    """The order of the files does not change the digest, and anyone can compute it."""
    entries = [FileEntry(path, len(path), "0" * 64) for path in paths]
    manifest = Manifest.from_json([{"path": e.path, "size": e.size, "sha256": e.sha256} for e in reversed(entries)])
    plain = [{"path": e.path, "sha256": e.sha256, "size": e.size} for e in sorted(entries, key=lambda e: e.path)]
    text = json.dumps(plain, separators=(",", ":"), ensure_ascii=False)
    assert manifest.digest == hashlib.sha256(text.encode()).hexdigest()


def test_description_survives_json() -> None:
    """With `artifact-type` spelt as in the contract."""
    data = Parameter(name="data", type="artifact", required=True, artifact_type="com.bonseyes.dataset")
    size = Parameter(name="size", type="integer", default=28, minimum=1, maximum=64)
    description = ToolDescription(
        name="t", description="d", parameters=(data, size), output_type="com.bonseyes.tensors", version="1"
    )
    body = json.loads(json.dumps(description.to_json()))
    assert body["parameters"]["data"]["artifact-type"] == "com.bonseyes.dataset"
    assert body["api_version"] == "1"
    assert ToolDescription.from_json(body) == description


def test_task_survives_json() -> None:
    """All of its eight fields come back."""
    task = Task(name="t", description="d", output="o", evaluation_criterias=({"metric": "accuracy", "minimum": 0.9},))
    body = json.loads(json.dumps(task.to_json()))
    assert list(body) == [
        "name",
        "description",
        "output",
        "constraints",
        "archives",
        "evaluation_criterias",
        "cost_function",
        "evaluation_dataset",
    ]
    assert Task.from_json(body) == task


def test_now_is_rfc_3339_in_utc() -> None:
    """Timestamps sort as text and name their time zone."""
    assert now().endswith("Z")
    assert len(now()) == len("2026-01-01T00:00:00.000Z")
