"""The inbox: archives in a folder start one run, once, and only when they are complete."""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    build_sensor_context,
    graph,
)
from dagster._core.storage.tags import RUN_KEY_TAG
from dagster._core.test_utils import create_run_for_test

from bonseyes_dagster import Pipeline, PipelineParameter, Task, inbox_sensor, tags, tool_op
from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.storage.migration import bring_up_to_date
from bonseyes_dagster.orchestration.inbox import digests as inbox_digests
from bonseyes_dagster.orchestration.inbox import files as inbox_files
from bonseyes_dagster.orchestration.inbox import sensor as inbox_module
from bonseyes_dagster.urls import is_name
from tests.unit.orchestration.tools import write_tools
from tests.waiting import until


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """Return a pipeline with two archives."""
    return make_pipeline(tmp_path, "images", "labels")


def make_pipeline(folder: Path, first: str, second: str) -> Pipeline:
    """Return a pipeline with two file parameters."""
    load = tool_op("import", project=write_tools(folder / "project"))

    @graph
    def loading():
        load.alias("a")()
        load.alias("b")()

    archives = [PipelineParameter(first, to="a.images"), PipelineParameter(second, to="b.images")]
    task = Task(name="task", description="Do it.", output="Nothing.")
    return Pipeline(name="load-both", graph=loading, task=task, parameters=archives)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@dataclass
class Looks:
    """Calls a sensor as Dagster's daemon does: it passes on the cursor, and turns requests into runs."""

    sensor: SensorDefinition
    instance: DagsterInstance
    cursor: str | None = None
    reason: str = ""
    runs: list[DagsterRun] = field(default_factory=list)

    def look(self, *, is_kept: bool = True) -> list[RunRequest]:
        """Call the sensor once; unless `is_kept`, Dagster loses the answer."""
        context = build_sensor_context(instance=self.instance, cursor=self.cursor)
        data = self.sensor.evaluate_tick(context)
        self.reason = data.skip_message or ""
        requests = list(data.run_requests or [])
        if is_kept:
            self.cursor = data.cursor
            for request in requests:
                self._launch(request)
        return requests

    def _launch(self, request: RunRequest) -> None:
        tags = {**request.tags, RUN_KEY_TAG: str(request.run_key)}
        if not self.instance.get_run_ids(RunsFilter(tags={RUN_KEY_TAG: tags[RUN_KEY_TAG]})):
            run = create_run_for_test(self.instance, tags=tags, status=DagsterRunStatus.STARTING)
            self.runs.append(run)

    def names(self) -> list[str]:
        """Call the sensor once and return the names of the requested runs."""
        return [request.tags[tags.RUN_TAG] for request in self.look()]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """The project's instance, with its own storage."""
    write_instance(tmp_path / "home")
    bring_up_to_date(tmp_path / "home")
    with DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        yield instance


@pytest.fixture
def looks(pipeline: Pipeline, inbox: Path, instance: DagsterInstance) -> Looks:
    """Return looks without a waiting time for new sets."""
    return Looks(inbox_sensor(pipeline, folder=inbox, settle_s=0), instance)


def place(folder: Path, *files: str, age_s: float = 60.0, content: str = "") -> None:
    """Put files into a folder, as if some time ago; each holds its folder's and its own name, or `content`."""
    folder.mkdir(exist_ok=True)
    for name in files:
        (folder / name).write_text(content or f"{folder.name} {name}")
        os.utime(folder / name, (time.time() - age_s,) * 2)


# --- which files make a set


def test_archives_start_a_run(looks: Looks, inbox: Path) -> None:
    """The name up to the first dot says which parameter a file is for."""
    place(inbox, "images.idx.gz", "labels.gz", "notes.txt")
    (request,) = looks.look()
    assert request.run_config == {"images": str(inbox / "images.idx.gz"), "labels": str(inbox / "labels.gz")}
    assert request.tags[tags.RUN_TAG].startswith("inbox-")


def test_subfolder_names_the_run(looks: Looks, inbox: Path) -> None:
    """One folder is one run."""
    place(inbox / "monday", "images", "labels")
    place(inbox / "tuesday", "images", "labels")
    found = looks.look()
    assert [request.tags[tags.RUN_TAG] for request in found] == ["monday", "tuesday"]
    assert len({request.run_key for request in found}) == 2


@pytest.mark.parametrize(
    "companion",
    [
        "images.gz.sha256",
        "images.gz.md5",
        "images.gz.asc",
        "images.txt",
        "images.gz~",
        ".images.gz.x1Y2",
        "images-2.gz",
    ],
)
def test_file_beside_an_archive_does_not_count_as_the_archive(looks: Looks, inbox: Path, companion: str) -> None:
    """Checksums, notes, copies of editors and temporary files of rsync sort after the archive."""
    place(inbox / "a", "images.gz", "labels.gz", companion)
    (request,) = looks.look()
    assert request.run_config["images"] == str(inbox / "a" / "images.gz")


@pytest.mark.parametrize("ending", [".part", ".crdownload", ".tmp", ".partial", ".filepart", ".download"])
def test_unfinished_download_does_not_count_as_the_archive(looks: Looks, inbox: Path, ending: str) -> None:
    """The reason names the set that waits for it."""
    place(inbox / "a", f"images.gz{ending}", "labels.gz")
    assert looks.look() == []
    assert f"a lacks images (images.gz{ending} is not finished)" in looks.reason
    (inbox / "a" / f"images.gz{ending}").rename(inbox / "a" / "images.gz")
    assert looks.names() == ["a"]


def test_placeholder_of_a_download_waits_for_its_bytes(looks: Looks, inbox: Path) -> None:
    """Firefox makes an empty `images.gz` beside `images.gz.part`."""
    place(inbox / "a", "images.gz.part", "labels.gz")
    (inbox / "a" / "images.gz").touch()
    assert looks.look() == []
    (inbox / "a" / "images.gz.part").unlink()
    assert looks.look() == []
    assert "a is still being written: images.gz is empty" in looks.reason


def test_set_with_two_files_for_one_parameter_waits(looks: Looks, inbox: Path) -> None:
    """Only the user knows which file is right."""
    place(inbox / "a", "images.gz", "images.zip", "labels.gz")
    assert looks.look() == []
    assert "a has more than one file for images (images.gz, images.zip)" in looks.reason


def test_file_names_of_mnist_are_recognised(tmp_path: Path, inbox: Path, instance: DagsterInstance) -> None:
    """People who try the pipeline have these files."""
    pipeline = make_pipeline(tmp_path, "train-images", "test-labels")
    looks = Looks(inbox_sensor(pipeline, folder=inbox, settle_s=0), instance)
    place(inbox / "mnist", "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz")
    (request,) = looks.look()
    config = {"train-images": "train-images-idx3-ubyte.gz", "test-labels": "t10k-labels-idx1-ubyte.gz"}
    assert request.run_config == {name: str(inbox / "mnist" / file) for name, file in config.items()}


def test_links_out_of_the_inbox_are_not_followed(looks: Looks, inbox: Path, tmp_path: Path) -> None:
    """A user who may write to the inbox must not read other files of the machine."""
    place(tmp_path / "elsewhere", "images", "labels")
    (inbox / "folder").symlink_to(tmp_path / "elsewhere")
    place(inbox / "file", "labels")
    (inbox / "file" / "images").symlink_to(tmp_path / "elsewhere" / "images")
    assert looks.look() == []
    assert "folder is a link out of the inbox" in looks.reason
    assert "file holds images, a link out of the inbox" in looks.reason


def test_links_inside_the_inbox_are_followed(looks: Looks, inbox: Path) -> None:
    """They lead to files that users have put into the inbox."""
    place(inbox / ".store", "images", "labels")
    (inbox / "a").mkdir()
    for name in ("images", "labels"):
        (inbox / "a" / name).symlink_to(f"../.store/{name}")
    assert looks.names() == ["a"]


def test_a_file_that_becomes_a_link_is_never_read(tmp_path: Path, inbox: Path) -> None:
    """The place of the opened file is checked, even if all compared values are equal."""
    place(inbox / "a", "images")
    place(tmp_path / "elsewhere", "images")
    (archives,) = (each for each in inbox_files.read_sets(inbox, ["images"]) if each.name == "a")
    (inbox / "a" / "images").unlink()
    (inbox / "a" / "images").symlink_to(tmp_path / "elsewhere" / "images")
    stamp = inbox_files.stamp_of((inbox / "a" / "images").stat())
    changed = replace(archives, files={"images": replace(archives.files["images"], size=stamp[1], stamp=stamp)})
    with pytest.raises(inbox_digests.ArchiveChangedError):
        inbox_digests.DigestReader().digest(changed)


def test_a_folder_that_becomes_a_link_is_never_listed(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of the folder and the list of its files."""
    place(inbox / "a", "images")
    place(tmp_path / "elsewhere", "images")
    listed = os.scandir

    def exchange(place: object) -> object:
        if place != inbox:
            (inbox / "a").rename(tmp_path / f"former-{time.monotonic_ns()}")
            (inbox / "a").symlink_to(tmp_path / "elsewhere")
        return listed(place)  # type: ignore[call-overload]

    monkeypatch.setattr(inbox_files.os, "scandir", exchange)
    (found,) = (each for each in inbox_files.read_sets(inbox, ["images"]) if each.name == "a")
    assert found.problem is not None or found.files["images"].stamp[0] != (tmp_path / "elsewhere/images").stat().st_ino


def test_folder_with_an_impossible_run_name_gets_another(looks: Looks, inbox: Path) -> None:
    """The name is the same at each look, and different folders get different names."""
    folders = ["Montag früh", "Montag früh!", "日本語", "x" * 200, "x" * 199]
    for folder in folders:
        place(inbox / folder, "images", "labels")
    found = looks.names()
    assert len(set(found)) == len(folders)
    assert all(is_name(name) and len(name) <= 64 for name in found)
    assert sum(name.startswith("Montag-fruh-") for name in found) == 2


# --- once


def test_same_bytes_start_only_one_run(looks: Looks, inbox: Path) -> None:
    """Touched, overwritten or copied again, they are the same archives. Other bytes are other archives."""
    place(inbox, "images", "labels")
    assert len(looks.look()) == 1
    place(inbox, "images", "labels", age_s=30)
    assert looks.look() == []
    for name in ("images", "labels"):
        (inbox / name).unlink()
        place(inbox, name)
    assert looks.look() == []
    place(inbox, "images", content="new")
    assert len(looks.look()) == 1


def test_deleted_run_is_not_launched_again(looks: Looks, inbox: Path) -> None:
    """Dagster deletes the run's key with the run."""
    place(inbox / "monday", "images", "labels")
    assert looks.names() == ["monday"]
    for run in looks.runs:
        looks.instance.delete_run(run.run_id)
    assert looks.look() == [] == looks.look()
    assert "Every set in the inbox has had its run." in looks.reason


def test_restarted_code_server_starts_no_run_again(
    looks: Looks, pipeline: Pipeline, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not read the archives again either."""
    place(inbox / "monday", "images", "labels")
    looks.look()
    looks.instance.delete_run(looks.runs[0].run_id)
    monkeypatch.setattr(inbox_digests.DigestReader, "digest", lambda *_: pytest.fail("read again"))
    assert Looks(inbox_sensor(pipeline, folder=inbox, settle_s=0), looks.instance, looks.cursor).look() == []


def test_requests_that_dagster_loses_are_repeated(looks: Looks, inbox: Path) -> None:
    """The daemon may die after the sensor's answer. The cursor shows that it did not store the answer."""
    place(inbox / "monday", "images", "labels")
    assert len(looks.look(is_kept=False)) == 1
    assert looks.names() == ["monday"]
    assert looks.look() == []


def test_request_for_a_created_but_unlaunched_run_is_repeated(looks: Looks, inbox: Path) -> None:
    """Dagster then launches that run, and creates no other."""
    place(inbox / "monday", "images", "labels")
    (request,) = looks.look(is_kept=False)
    tags = {**request.tags, RUN_KEY_TAG: str(request.run_key)}
    run = create_run_for_test(looks.instance, tags=tags)
    assert run.status is DagsterRunStatus.NOT_STARTED
    assert looks.names() == ["monday"] == looks.names()
    looks.instance.report_run_canceled(run)
    assert looks.look() == []


def test_clearing_the_cursor_starts_all_sets_again(looks: Looks, inbox: Path) -> None:
    """This is how a user starts the same archives again."""
    place(inbox / "monday", "images", "labels")
    looks.look()
    looks.cursor = None
    assert looks.names() == ["monday"]


def test_two_folders_with_the_same_bytes_start_one_run(looks: Looks, inbox: Path) -> None:
    """The reason for the second folder names the first."""
    for folder in ("monday", "tuesday"):
        place(inbox / folder, "images", "labels", content="same")
    assert looks.names() == ["monday"]
    assert looks.look() == []
    assert "tuesday holds the bytes of monday, which ran" in looks.reason


def test_runs_of_earlier_versions_are_recognised_by_file_times(looks: Looks, inbox: Path) -> None:
    """An upgraded project must not run its whole inbox again."""
    place(inbox / "monday", "images", "labels")
    key = hashlib.sha256()
    for name in ("images", "labels"):
        stat = (inbox / "monday" / name).stat()
        key.update(f"{name} {inbox / 'monday' / name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    tags = {RUN_KEY_TAG: key.hexdigest()}
    create_run_for_test(looks.instance, tags=tags, status=DagsterRunStatus.SUCCESS)
    assert looks.look() == []


# --- one set does not stop others


def test_incomplete_sets_wait(looks: Looks, inbox: Path) -> None:
    """A missing file is named in the reason."""
    place(inbox, "images")
    assert looks.look() == []
    assert "lacks labels" in looks.reason


def test_unreadable_folder_or_file_stops_only_its_own_set(looks: Looks, inbox: Path) -> None:
    """The set is named with the reason; `lost+found` is nobody's set."""
    if os.geteuid() == 0:
        pytest.skip("root may read everything; the next two tests are for root")
    for folder in ("a-folder", "b-file", "lost+found", "z-good"):
        place(inbox / folder, "images", "labels")
    (inbox / "b-file" / "images").chmod(0)
    for folder in ("a-folder", "lost+found"):
        (inbox / folder).chmod(0)
    try:
        assert looks.names() == ["z-good"]
        assert looks.look() == []
    finally:
        for folder in ("a-folder", "lost+found"):
            (inbox / folder).chmod(0o700)
    assert "a-folder cannot be read: Permission denied" in looks.reason
    assert "b-file holds images, which cannot be read: Permission denied" in looks.reason
    assert "lost+found" not in looks.reason


def test_folder_that_cannot_be_listed_stops_only_its_own_set(
    looks: Looks, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root ignores permissions, so here the file server does not answer."""
    for folder in ("bad", "good"):
        place(inbox / folder, "images", "labels")
    scandir = os.scandir

    def fail(place: Path | int):
        path = Path(f"/proc/self/fd/{place}").readlink() if isinstance(place, int) else place
        if path.name == "bad":
            raise OSError(5, "Input/output error", str(path))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", fail)
    assert looks.names() == ["good"]
    assert looks.look() == []
    assert "bad cannot be read: Input/output error" in looks.reason


def test_file_that_cannot_be_read_stops_only_its_own_set(
    looks: Looks, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has a bad sector."""
    for folder in ("bad", "good"):
        place(inbox / folder, "images", "labels")
    really_open = os.open

    def fail(path: str, flags: int) -> int:
        if path == str(inbox / "bad" / "images"):
            raise OSError(5, "Input/output error", path)
        return really_open(path, flags)

    monkeypatch.setattr(inbox_digests.os, "open", fail)
    assert looks.names() == ["good"]
    assert looks.look() == []
    assert "bad holds images, which cannot be read: Input/output error" in looks.reason


def test_name_that_is_not_utf8_stops_only_its_own_set(looks: Looks, inbox: Path) -> None:
    """Dagster could store neither the configuration nor the reason."""
    (inbox / os.fsdecode(b"caf\xe9")).mkdir()
    place(inbox / "file", "labels")
    (inbox / "file" / os.fsdecode(b"images.\xe9")).write_bytes(b"x")
    place(inbox / "good", "images", "labels")
    assert looks.names() == ["good"]
    assert looks.look() == []
    assert r"caf\xe9 has a name that is not UTF-8" in looks.reason
    assert r"file holds images.\xe9, whose name is not UTF-8" in looks.reason
    looks.reason.encode()


def test_reasons_of_other_sets_are_logged_with_a_request(
    looks: Looks, inbox: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Dagster accepts requests or a reason, not both."""
    place(inbox / "good", "images", "labels")
    place(inbox / "poor", "images")
    assert looks.names() == ["good"]
    assert "poor lacks labels" in "".join(capfd.readouterr())


# --- when a set is whole


def test_set_waits_until_two_looks_find_it_unchanged(
    pipeline: Pipeline, inbox: Path, instance: DagsterInstance
) -> None:
    """A set that has just changed may change again, whatever its time stamps are."""
    looks = Looks(inbox_sensor(pipeline, folder=inbox, settle_s=0.2), instance)
    place(inbox / "a", "images", "labels", age_s=3600)
    assert looks.look() == []
    assert "a is new or still changing" in looks.reason
    place(inbox / "a", "labels", content="more", age_s=3600)
    time.sleep(0.25)
    assert looks.look() == []
    assert [request.tags[tags.RUN_TAG] for request in until(looks.look)] == ["a"]


def test_time_stamp_in_the_future_does_not_keep_a_set_waiting(
    pipeline: Pipeline, inbox: Path, instance: DagsterInstance
) -> None:
    """A camera's clock, a wrong time zone, an archive's own times."""
    looks = Looks(inbox_sensor(pipeline, folder=inbox, settle_s=0.05), instance)
    place(inbox / "a", "images", "labels", age_s=-7200)
    assert [request.tags[tags.RUN_TAG] for request in until(looks.look)] == ["a"]


def test_large_archives_are_read_in_slices(looks: Looks, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look ends in time and reports how far it is. The next look continues, and small sets do not wait."""
    monkeypatch.setattr(inbox_digests, "CHUNK_BYTES", 400_000)
    monkeypatch.setattr(inbox_digests, "BUDGET_S", 0.0)
    place(inbox / "large", "images", "labels", content="x" * 1_000_000)
    place(inbox / "small", "images", "labels")
    assert [looks.names(), looks.names()] == [[], ["small"]]
    reasons = []
    while not (found := looks.names()):
        reasons.append(looks.reason)
    assert found == ["large"]
    assert reasons == [f"large is being read: {done} of 2 MB." for done in ("0", "1", "1", "1", "2")]


def test_hundreds_of_sets_are_launched_over_several_looks(looks: Looks, inbox: Path) -> None:
    """The daemon has other work to do between the looks."""
    for number in range(300):
        place(inbox / f"set-{number:03}", "images", "labels")
    begun_s = time.monotonic()
    first = looks.names()
    assert len(first) == inbox_module.MOST_REQUESTS
    assert time.monotonic() - begun_s < 30
    found = [*first, *(name for _ in range(5) for name in looks.names())]
    assert found == [f"set-{number:03}" for number in range(300)]
    assert looks.look() == []


def test_sensor_is_off_without_an_inbox(
    pipeline: Pipeline, inbox: Path, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment names the folder. A wrong folder is reported."""
    monkeypatch.delenv("BONSEYES_INBOX", raising=False)
    sensor = inbox_sensor(pipeline)
    looks = Looks(sensor, instance)
    assert sensor.default_status == DefaultSensorStatus.STOPPED
    assert looks.look() == []
    assert "Set BONSEYES_INBOX" in looks.reason
    monkeypatch.setenv("BONSEYES_INBOX", str(inbox / "missing"))
    assert looks.look() == []
    assert "is not a folder" in looks.reason
    monkeypatch.setenv("BONSEYES_INBOX", str(inbox))
    assert inbox_sensor(pipeline).default_status == DefaultSensorStatus.RUNNING
