"""What Dagster promises of a run, on the concurrent executor and on Dagster's own."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from dagster import (
    DagsterEventType,
    DagsterInstance,
    JobExecutionResult,
    ReexecutionOptions,
    execute_job,
)
from dagster._core.definitions.reconstruct import ReconstructableRepository

from bonseyes_dagster.execution.threads.mailbox import Mailbox
from bonseyes_dagster.execution.threads.step_thread import StepMessage

HERE = Path(__file__).parent
REPOSITORY = ReconstructableRepository.for_file(str(HERE / "executor_jobs.py"), "definitions", str(HERE))
EXECUTORS = ["concurrent", "in_process", "multiprocess"]


@pytest.fixture(scope="module")
def notes_path(tmp_path_factory):
    """One file for all tests: the server that step processes are forked from keeps its first environment."""
    path = tmp_path_factory.mktemp("notes") / "notes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXECUTOR_TEST_NOTES", str(path))
        yield path


@pytest.fixture
def notes(notes_path):
    """A function that returns the lines which ops have noted so far."""
    notes_path.write_text("")
    Path(f"{notes_path}.marker").unlink(missing_ok=True)
    return lambda: notes_path.read_text().splitlines()


opened = ExitStack()


@pytest.fixture
def instance(tmp_path):
    """A persistent instance with the step-wise compute log manager and a managed Python logger."""
    overrides = {
        "compute_logs": {
            "module": "bonseyes_dagster.execution.threads.compute_logs",
            "class": "StepComputeLogManager",
            "config": {"base_dir": str(tmp_path / "logs")},
        },
        "python_logs": {"managed_python_loggers": ["managed"]},
        "telemetry": {"enabled": False},
    }
    with DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as instance:
        yield instance
        opened.close()


def run_job(instance, graph, executor, *, ops=None, execution=None, **kwargs) -> JobExecutionResult:
    """Execute a job in this process (the multiprocess executor starts its own)."""
    execution = dict(execution or {})
    if executor == "multiprocess":
        execution["start_method"] = {"forkserver": {"preload_modules": ["dagster"]}}
    if executor == "in_process":
        execution.pop("tag_concurrency_limits", None)
    config = {"execution": {"config": execution}, "ops": ops or {}}
    job = REPOSITORY.get_reconstructable_job(f"{graph}_{executor}")
    return opened.enter_context(execute_job(job, instance, run_config=config, raise_on_error=False, **kwargs))


def step_events(instance, run_id) -> dict[str, list[str]]:
    """Return each step's events in order, without those that tell how a step was run."""
    plumbing = {"LOGS_CAPTURED", "ENGINE_EVENT", "STEP_WORKER_STARTING", "STEP_WORKER_STARTED", "RESOURCE_INIT_STARTED",
                "RESOURCE_INIT_SUCCESS", "RESOURCE_INIT_FAILURE"}  # fmt: skip
    found: dict[str, list[str]] = {}
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event and event.step_key and event.event_type_value not in plumbing:
            found.setdefault(event.step_key, []).append(event.event_type_value)
    return found


def seconds(names: list[str], value: float) -> dict:
    """Return op configuration."""
    return {name: {"config": {"seconds": value}} for name in names}


def naps(value: float = 0.0, *, begun: int = 1) -> dict:
    """Return op configuration of the graph of naps, each of which goes on for so long after so many have begun."""
    return {f"nap_{index}": {"config": {"seconds": value, "begun": begun}} for index in range(3)}


def most_at_once(lines: list[str]) -> int:
    """Return how many begin/end pairs overlapped at most."""
    depth = most = 0
    for line in lines:
        depth += {"begin": 1, "end": -1}[line.split()[0]]
        most = max(most, depth)
    return most


@pytest.fixture(params=EXECUTORS)
def executor(request):
    """The name of each executor."""
    return request.param


@pytest.fixture
def run(instance, executor, notes):
    """Run a graph's job on the executor at hand."""
    return lambda graph, **kwargs: run_job(instance, graph, executor, **kwargs)


CHAIN_STEP = ["STEP_START", "LOADED_INPUT", "STEP_INPUT", "STEP_OUTPUT", "HANDLED_OUTPUT", "STEP_SUCCESS"]


def test_a_chain_gives_the_same_events_everywhere(run, instance):
    """The UI and every reader of the log see one shape, whichever executor ran the job."""
    result = run("chain")
    assert result.success
    assert result.output_for_node("third") == 3
    events = step_events(instance, result.run_id)
    assert events["second"] == events["third"] == CHAIN_STEP
    assert events["one"] == [event for event in CHAIN_STEP if "INPUT" not in event]


def test_retries_wait_their_delay_and_then_succeed(run, instance, notes):
    """A RetryPolicy with a delay is obeyed."""
    result = run("retried")
    assert result.success
    assert result.output_for_node("add") == 3
    times = [float(line.split()[2]) for line in notes()]
    assert len(times) == 3
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(times))
    events = Counter(step_events(instance, result.run_id)["flaky"])
    assert events["STEP_UP_FOR_RETRY"] == events["STEP_RESTARTED"] == 2


def test_retries_end(run, instance):
    """After the last retry the step fails and the run with it."""
    result = run("retried_in_vain")
    assert not result.success
    events = Counter(step_events(instance, result.run_id)["hopeless"])
    assert (events["STEP_UP_FOR_RETRY"], events["STEP_FAILURE"]) == (1, 1)


def test_a_retry_waits_for_the_thread_of_the_attempt_before(instance, notes, monkeypatch):
    """That thread closes its log after it has told how it ended; meanwhile the step must not run a second time."""
    put = Mailbox.put

    def put_late(mailbox: Mailbox[StepMessage], message: StepMessage) -> None:
        if message.event is None:
            time.sleep(0.3)
        put(mailbox, message)

    monkeypatch.setattr(Mailbox, "put", put_late)
    result = run_job(instance, "retried_at_once", "concurrent")
    assert result.success
    assert result.output_for_node("slow_to_succeed") == 1
    events = step_events(instance, result.run_id)["slow_to_succeed"]
    assert events[-3:] == ["STEP_OUTPUT", "HANDLED_OUTPUT", "STEP_SUCCESS"]


def test_retries_can_be_switched_off(run, instance):
    """`retries: disabled` in run configuration is obeyed."""
    result = run("retried", execution={"retries": {"disabled": {}}})
    assert not result.success
    assert "STEP_UP_FOR_RETRY" not in step_events(instance, result.run_id)["flaky"]


def test_hooks_run_and_their_failure_is_no_failure_of_the_run(run, instance, notes):
    """Success and failure hooks run for their outcome only; a broken hook leaves its step a success."""
    result = run("hooked")
    assert sorted(notes()) == ["failure broken", "success one"]
    events = step_events(instance, result.run_id)
    assert "HOOK_ERRORED" in events["add"]
    assert "STEP_SUCCESS" in events["add"]


def test_a_failure_abandons_only_what_hangs_on_it(run, instance):
    """Downstream of a failed step nothing starts; elsewhere the run goes on."""
    result = run("failing")
    assert not result.success
    events = step_events(instance, result.run_id)
    assert events["broken"][-1] == "STEP_FAILURE"
    assert "STEP_SUCCESS" in events["unharmed"]
    assert "downstream" not in events


@pytest.mark.parametrize(("graph", "expected"), [("dynamic", "total 10"), ("dynamic_empty", "total 0")])
def test_dynamic_outputs_are_mapped_and_collected(run, notes, graph, expected):
    """Fan-out is known only at run time, and may be empty."""
    assert run(graph).success
    assert notes() == [expected]


def test_dynamic_outputs_that_come_last_are_mapped(instance, notes):
    """The end of the step that gives them is not taken for the end of the run, however its messages arrive."""
    for _ in range(10):
        result = run_job(instance, "dynamic", "concurrent")
        assert result.output_for_node("total") == 10


def test_an_optional_output_that_is_not_given_skips_what_follows(run, instance):
    """A skip is handed on, and the run is a success."""
    result = run("optional")
    assert result.success
    events = step_events(instance, result.run_id)
    assert events["skipped"] == events["beyond"] == ["STEP_SKIPPED"]
    assert "STEP_SUCCESS" in events["taken"]


def test_limits_by_tag_are_kept(run, executor, notes):
    """With a limit of one for a tag, its ops run one after another."""
    limits = [{"key": "lane", "value": "narrow", "limit": 1}]
    ops = seconds([f"narrow_{index}" for index in range(3)], 0.05)
    assert run("tagged", ops=ops, execution={"tag_concurrency_limits": limits}).success
    assert most_at_once(notes()) == 1


def test_pools_are_kept(run, instance, notes):
    """A pool of one place lets one op in at a time."""
    instance.event_log_storage.set_concurrency_slots("basin", 1)
    assert run("pooled", ops=seconds(["pooled_0", "pooled_1"], 0.05)).success
    assert most_at_once(notes()) == 1
    assert instance.event_log_storage.get_concurrency_info("basin").active_slot_count == 0


def test_a_failed_run_is_reexecuted_from_its_failure(run, instance, executor, notes):
    """Re-execution from failure takes over what succeeded and runs the rest."""
    first = run("fails_first")
    assert not first.success
    options = ReexecutionOptions.from_failure(first.run_id, instance)
    second = run("fails_first", reexecution_options=options)
    assert second.success
    assert second.output_for_node("add") == 12
    assert notes() == ["counted"]


def test_asynchronous_ops_run(run):
    """`async def` ops work, also two of them at the same time."""
    assert run("asynchronous").success


def test_ready_ops_run_at_the_same_time(instance, notes):
    """All three naps have begun before the first ends."""
    assert run_job(instance, "naps", "concurrent", ops=naps(begun=3)).success
    assert most_at_once(notes()) == 3


def test_max_concurrent_is_kept(instance, notes):
    """`max_concurrent` bounds how many ops run at a time."""
    ops = naps(0.2, begun=2)
    assert run_job(instance, "naps", "concurrent", ops=ops, execution={"max_concurrent": 2}).success
    assert most_at_once(notes()) == 2


def test_each_step_has_its_own_log(instance, notes):
    """What ops print at the same time is apart in the UI, and so are records of Python's logging."""
    names = [f"talker_{index}" for index in range(4)]
    result = run_job(instance, "talkative", "concurrent", ops=seconds(names, 0.2))
    assert result.success
    logs = instance.all_logs(result.run_id)
    keys = {
        entry.dagster_event.logs_captured_data.step_keys[0]: entry.dagster_event.logs_captured_data.file_key
        for entry in logs
        if entry.dagster_event and entry.dagster_event.event_type == DagsterEventType.LOGS_CAPTURED
    }
    for name in names:
        data = instance.compute_log_manager.get_log_data([result.run_id, "compute_logs", keys[name]])
        assert data.stdout.decode().splitlines() == [f"{name} line {index}" for index in range(20)]
        records = [entry for entry in logs if entry.step_key == name and not entry.dagster_event]
        assert len(records) == 40
        assert all(entry.user_message.startswith(name) for entry in records)


def test_the_log_of_a_lone_step_includes_the_threads_it_starts(instance, notes):
    """An op may use threads of its own without losing their words."""
    result = run_job(instance, "helped", "concurrent")
    [key] = [
        entry.dagster_event.logs_captured_data.file_key
        for entry in instance.all_logs(result.run_id, of_type=DagsterEventType.LOGS_CAPTURED)
    ]
    data = instance.compute_log_manager.get_log_data([result.run_id, "compute_logs", key])
    assert data.stdout == b"from a helper thread\n"
    messages = [entry.user_message for entry in instance.all_logs(result.run_id) if entry.step_key]
    assert "logged by a helper thread" in messages


def interrupt_after(notes, count: int) -> threading.Thread:
    """Send this process SIGINT, as a run process gets it, once `count` lines are noted."""

    def work() -> None:
        deadline = time.monotonic() + 20
        while len(notes()) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_an_interrupted_run_stops_at_once_and_retries_nothing(instance, notes, monkeypatch):
    """Ops that wait interruptibly end within a moment; a RetryPolicy makes no retry of it."""
    monkeypatch.setattr("bonseyes_dagster.execution.threads.executor.GRACE_S", 60.0)
    sender = interrupt_after(notes, 3)
    result = run_job(instance, "waiting", "concurrent")
    sender.join()
    assert not result.success
    events = [entry for entry in instance.all_logs(result.run_id) if entry.dagster_event]
    interrupted = next(e.timestamp for e in events if "telling the steps" in (e.dagster_event.message or ""))
    assert events[-1].timestamp - interrupted < 10
    kinds = Counter(event.dagster_event.event_type_value for event in events)
    assert kinds["STEP_FAILURE"] == 3
    assert kinds["STEP_UP_FOR_RETRY"] == kinds["STEP_RESTARTED"] == 0
    assert "interrupted True" in notes()


@pytest.mark.parametrize("executor", ["in_process"])
def test_waiting_interruptibly_works_under_dagsters_executor(instance, notes, executor):
    """The same op is interrupted under an executor that knows nothing of ours."""
    sender = interrupt_after(notes, 1)
    started = time.monotonic()
    result = run_job(instance, "waiting", executor, op_selection=["wait_for_long"])
    sender.join()
    assert not result.success
    assert time.monotonic() - started < 10


def test_an_op_that_cannot_be_interrupted_is_left_behind(instance, notes, notes_path, monkeypatch):
    """The run ends after the grace period though an op sleeps on."""
    monkeypatch.setattr("bonseyes_dagster.execution.threads.executor.GRACE_S", 0.3)
    sender = interrupt_after(notes, 1)
    threads = set(threading.enumerate())
    assert not run_job(instance, "stubborn", "concurrent").success
    left = set(threading.enumerate()) - threads
    sender.join()
    # what it left behind holds its streams until it ends, which is not the next test's business
    Path(f"{notes_path}.marker").touch()
    for thread in left:
        thread.join(10)
    assert "step sleep_stubbornly" in {thread.name for thread in left}


def test_a_waiting_run_uses_no_processor_time(instance, notes):
    """The main thread sleeps until something happens."""
    run_job(instance, "watched", "concurrent")
    # To look each 50 ms would use 3 ms in this time, to look each 10 ms 20 ms.
    assert float(notes()[0].split()[1]) < 0.002, notes()


def test_no_thread_and_no_stream_is_left(instance, notes):
    """After a run the process is as before: no threads, the original stdout."""
    threads, stdout = set(threading.enumerate()), sys.stdout
    run_job(instance, "chain", "concurrent")
    # what is left of earlier tests may start and end threads meanwhile; the executor's are named after their step
    left = [thread.name for thread in set(threading.enumerate()) - threads]
    assert not [name for name in left if "step" in name], left
    assert sys.stdout is stdout


def test_the_executor_loads_in_a_fresh_process():
    """Importing the executor starts no thread, which the run server needs to be able to fork."""
    code = "import threading, bonseyes_dagster.execution.threads.executor; print(threading.active_count())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "1"


def test_what_an_op_leaves_changed_is_restored_before_the_next(instance, notes, monkeypatch, tmp_path):
    """Under Dagster's multiprocess executor it never reaches the next op; and the log says who left what."""
    monkeypatch.setenv("EXECUTOR_TEST_OWN", "mine")
    monkeypatch.chdir(tmp_path)
    result = run_job(instance, "changing", "concurrent")
    assert result.success
    assert notes() == [f"{tmp_path} None mine", "22 None"]
    warnings = [entry.user_message for entry in instance.all_logs(result.run_id) if "did not restore" in str(entry)]
    assert warnings == [
        "The step leave_changed changed and did not restore the working directory, the umask, "
        "the default timeout of sockets, the environment variable EXECUTOR_TEST_OWN, "
        "the environment variable LEFT_BY_AN_OP; the values from the run's start are set again."
    ]
    assert "secret" not in str(warnings)
    assert "printed by look" in log_of(instance, result.run_id, "look")


def test_nothing_is_restored_under_a_neighbour_at_work(instance, notes):
    """It may rely on what it has changed; the end of another step is no reason."""
    result = run_job(instance, "changing_beside", "concurrent")
    assert result.success
    assert notes()[-1] == "still relied on"
    assert "LEFT_BY_AN_OP" not in os.environ
    (warning,) = [entry.user_message for entry in instance.all_logs(result.run_id) if "did not restore" in str(entry)]
    assert "One of the steps" in warning and "change_and_wait" in warning and "neighbour" in warning


def test_ops_that_redirect_their_output_at_once_do_not_mix(instance, notes):
    """`redirect_stdout` sets `sys.stdout` for its own step alone, and ends in any order."""
    result = run_job(instance, "redirecting", "concurrent")
    assert result.success
    captured = sorted(line for line in notes() if line.startswith("captured"))
    assert captured == [f"captured ['{name}', 'out', '{name}', 'err']" for name in ("one_redirect", "two_redirect")]
    for name in ("one_redirect", "two_redirect"):
        assert log_of(instance, result.run_id, name).splitlines() == [f"{name} before", f"{name} after"]


def log_of(instance, run_id, step) -> str:
    """Return what a step has printed."""
    logs = [
        entry.dagster_event.logs_captured_data
        for entry in instance.all_logs(run_id)
        if entry.dagster_event and entry.dagster_event.event_type_value == "LOGS_CAPTURED"
    ]
    key = next(each.file_key for each in logs if each.step_keys == [step])
    manager = instance.compute_log_manager
    return (manager.get_log_data(manager.build_log_key_for_run(run_id, key)).stdout or b"").decode()
