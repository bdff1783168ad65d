"""Dagster's guarantees for a run, on the concurrent executor and on Dagster's own executors."""

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
    """One file for all tests: the server that forks step processes keeps its first environment."""
    path = tmp_path_factory.mktemp("notes") / "notes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXECUTOR_TEST_NOTES", str(path))
        yield path


@pytest.fixture
def notes(notes_path):
    """A function that returns the lines that ops have written so far."""
    notes_path.write_text("")
    Path(f"{notes_path}.marker").unlink(missing_ok=True)
    return lambda: notes_path.read_text().splitlines()


opened = ExitStack()


@pytest.fixture
def instance(tmp_path):
    """A persistent instance with StepComputeLogManager and a managed Python logger."""
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
    """Execute a job in this process; the multiprocess executor starts further processes."""
    execution = dict(execution or {})
    if executor == "multiprocess":
        execution["start_method"] = {"forkserver": {"preload_modules": ["dagster"]}}
    if executor == "in_process":
        execution.pop("tag_concurrency_limits", None)
    config = {"execution": {"config": execution}, "ops": ops or {}}
    job = REPOSITORY.get_reconstructable_job(f"{graph}_{executor}")
    return opened.enter_context(execute_job(job, instance, run_config=config, raise_on_error=False, **kwargs))


def step_events(instance, run_id) -> dict[str, list[str]]:
    """Return each step's events in order, without the events about its process or thread."""
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
    """Return op configuration for the naps: each sleeps `value` seconds after `begun` naps have begun."""
    return {f"nap_{index}": {"config": {"seconds": value, "begun": begun}} for index in range(3)}


def most_at_once(lines: list[str]) -> int:
    """Return the maximum number of begin/end pairs that overlapped."""
    depth = most = 0
    for line in lines:
        depth += {"begin": 1, "end": -1}[line.split()[0]]
        most = max(most, depth)
    return most


@pytest.fixture(params=EXECUTORS)
def executor(request):
    """The name of an executor; each test runs with all of them."""
    return request.param


@pytest.fixture
def run(instance, executor, notes):
    """A function that runs the job of a graph on the executor of this test."""
    return lambda graph, **kwargs: run_job(instance, graph, executor, **kwargs)


CHAIN_STEP = ["STEP_START", "LOADED_INPUT", "STEP_INPUT", "STEP_OUTPUT", "HANDLED_OUTPUT", "STEP_SUCCESS"]


def test_chain_writes_the_same_events_with_every_executor(run, instance):
    """The UI and every reader of the log depend on these events."""
    result = run("chain")
    assert result.success
    assert result.output_for_node("third") == 3
    events = step_events(instance, result.run_id)
    assert events["second"] == events["third"] == CHAIN_STEP
    assert events["one"] == [event for event in CHAIN_STEP if "INPUT" not in event]


def test_retries_wait_for_their_delay(run, instance, notes):
    """The delay is the one in the RetryPolicy."""
    result = run("retried")
    assert result.success
    assert result.output_for_node("add") == 3
    times = [float(line.split()[2]) for line in notes()]
    assert len(times) == 3
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(times))
    events = Counter(step_events(instance, result.run_id)["flaky"])
    assert events["STEP_UP_FOR_RETRY"] == events["STEP_RESTARTED"] == 2


def test_step_fails_after_its_last_retry(run, instance):
    """Then the run fails as well."""
    result = run("retried_in_vain")
    assert not result.success
    events = Counter(step_events(instance, result.run_id)["hopeless"])
    assert (events["STEP_UP_FOR_RETRY"], events["STEP_FAILURE"]) == (1, 1)


def test_retry_waits_for_the_thread_of_the_previous_attempt(instance, notes, monkeypatch):
    """That thread posts its end before it closes its log. The step must not run twice at the same time."""
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


def test_failed_hook_does_not_fail_its_step(run, instance, notes):
    """Success hooks run only after a success, failure hooks only after a failure."""
    result = run("hooked")
    assert sorted(notes()) == ["failure broken", "success one"]
    events = step_events(instance, result.run_id)
    assert "HOOK_ERRORED" in events["add"]
    assert "STEP_SUCCESS" in events["add"]


def test_failure_stops_only_downstream_steps(run, instance):
    """The other steps of the run go on."""
    result = run("failing")
    assert not result.success
    events = step_events(instance, result.run_id)
    assert events["broken"][-1] == "STEP_FAILURE"
    assert "STEP_SUCCESS" in events["unharmed"]
    assert "downstream" not in events


@pytest.mark.parametrize(("graph", "expected"), [("dynamic", "total 10"), ("dynamic_empty", "total 0")])
def test_dynamic_outputs_are_mapped_and_collected(run, notes, graph, expected):
    """The number of dynamic outputs is known only at run time, and may be 0."""
    assert run(graph).success
    assert notes() == [expected]


def test_last_dynamic_outputs_are_mapped(instance, notes):
    """The end of their step must not end the run, in whatever order its messages arrive."""
    for _ in range(10):
        result = run_job(instance, "dynamic", "concurrent")
        assert result.output_for_node("total") == 10


def test_missing_optional_output_skips_downstream_steps(run, instance):
    """The steps after a skipped step are skipped, too, and the run succeeds."""
    result = run("optional")
    assert result.success
    events = step_events(instance, result.run_id)
    assert events["skipped"] == events["beyond"] == ["STEP_SKIPPED"]
    assert "STEP_SUCCESS" in events["taken"]


def test_tag_limits_are_kept(run, executor, notes):
    """With a limit of 1 for a tag, its ops run one after the other."""
    limits = [{"key": "lane", "value": "narrow", "limit": 1}]
    ops = seconds([f"narrow_{index}" for index in range(3)], 0.05)
    assert run("tagged", ops=ops, execution={"tag_concurrency_limits": limits}).success
    assert most_at_once(notes()) == 1


def test_pools_are_kept(run, instance, notes):
    """A pool with one slot lets one op run at a time."""
    instance.event_log_storage.set_concurrency_slots("basin", 1)
    assert run("pooled", ops=seconds(["pooled_0", "pooled_1"], 0.05)).success
    assert most_at_once(notes()) == 1
    assert instance.event_log_storage.get_concurrency_info("basin").active_slot_count == 0


def test_failed_run_is_reexecuted_from_its_failure(run, instance, executor, notes):
    """The second run reuses the steps that succeeded, and executes the others."""
    first = run("fails_first")
    assert not first.success
    options = ReexecutionOptions.from_failure(first.run_id, instance)
    second = run("fails_first", reexecution_options=options)
    assert second.success
    assert second.output_for_node("add") == 12
    assert notes() == ["counted"]


def test_asynchronous_ops_run(run):
    """Two `async def` ops run at the same time."""
    assert run("asynchronous").success


def test_ready_ops_run_concurrently(instance, notes):
    """All three naps begin before the first nap ends."""
    assert run_job(instance, "naps", "concurrent", ops=naps(begun=3)).success
    assert most_at_once(notes()) == 3


def test_max_concurrent_is_kept(instance, notes):
    """`max_concurrent` limits the number of concurrent ops."""
    ops = naps(0.2, begun=2)
    assert run_job(instance, "naps", "concurrent", ops=ops, execution={"max_concurrent": 2}).success
    assert most_at_once(notes()) == 2


def test_each_step_has_its_own_log(instance, notes):
    """The UI shows the output of concurrent ops separately, and their records of Python's logging as well."""
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


def test_log_of_a_single_step_includes_its_threads(instance, notes):
    """The output of threads that an op starts is not lost."""
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
    """Send this process SIGINT when ops have written `count` lines."""

    def work() -> None:
        deadline = time.monotonic() + 20
        while len(notes()) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_interrupted_run_stops_at_once_without_retries(instance, notes, monkeypatch):
    """Ops that use `interruptible_wait` end at once. Their RetryPolicy does not apply to an interruption."""
    monkeypatch.setattr("bonseyes_dagster.execution.threads.executor.GRACE_S", 60.0)
    sender = interrupt_after(notes, 3)
    result = run_job(instance, "waiting", "concurrent")
    sender.join()
    assert not result.success
    events = [entry for entry in instance.all_logs(result.run_id) if entry.dagster_event]
    interrupted = next(e.timestamp for e in events if "are being stopped" in (e.dagster_event.message or ""))
    assert events[-1].timestamp - interrupted < 10
    kinds = Counter(event.dagster_event.event_type_value for event in events)
    assert kinds["STEP_FAILURE"] == 3
    assert kinds["STEP_UP_FOR_RETRY"] == kinds["STEP_RESTARTED"] == 0
    assert "interrupted True" in notes()


@pytest.mark.parametrize("executor", ["in_process"])
def test_interruptible_wait_works_with_dagsters_executor(instance, notes, executor):
    """Dagster's executor does not use our flag, but the op is interrupted all the same."""
    sender = interrupt_after(notes, 1)
    started = time.monotonic()
    result = run_job(instance, "waiting", executor, op_selection=["wait_for_long"])
    sender.join()
    assert not result.success
    assert time.monotonic() - started < 10


def test_run_ends_without_an_op_that_cannot_be_interrupted(instance, notes, notes_path, monkeypatch):
    """The run ends after the grace period, while the op goes on."""
    monkeypatch.setattr("bonseyes_dagster.execution.threads.executor.GRACE_S", 0.3)
    sender = interrupt_after(notes, 1)
    threads = set(threading.enumerate())
    assert not run_job(instance, "stubborn", "concurrent").success
    left = set(threading.enumerate()) - threads
    sender.join()
    # the thread keeps its streams until it ends, so end it before the next test
    Path(f"{notes_path}.marker").touch()
    for thread in left:
        thread.join(10)
    assert "step sleep_stubbornly" in {thread.name for thread in left}


def test_waiting_run_uses_no_processor_time(instance, notes):
    """The main thread sleeps until a message or a signal arrives."""
    run_job(instance, "watched", "concurrent")
    # A poll every 50 ms would use 3 ms in this time, a poll every 10 ms would use 20 ms.
    assert float(notes()[0].split()[1]) < 0.002, notes()


def test_run_leaves_no_thread_and_no_stream(instance, notes):
    """After a run, the process has no additional threads, and the original stdout."""
    threads, stdout = set(threading.enumerate()), sys.stdout
    run_job(instance, "chain", "concurrent")
    # threads of earlier tests may still start and end; the executor names its threads after their step
    left = [thread.name for thread in set(threading.enumerate()) - threads]
    assert not [name for name in left if "step" in name], left
    assert sys.stdout is stdout


def test_import_of_the_executor_starts_no_thread():
    """The run server forks, so it must not have threads."""
    code = "import threading, bonseyes_dagster.execution.threads.executor; print(threading.active_count())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "1"


def test_process_state_is_restored_before_the_next_op(instance, notes, monkeypatch, tmp_path):
    """An op does not see the changes of an earlier op; a warning names the earlier step."""
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


def test_nothing_is_restored_while_another_step_runs(instance, notes):
    """The running step may need its changes, even when another step ends."""
    result = run_job(instance, "changing_beside", "concurrent")
    assert result.success
    assert notes()[-1] == "still relied on"
    assert "LEFT_BY_AN_OP" not in os.environ
    (warning,) = [entry.user_message for entry in instance.all_logs(result.run_id) if "did not restore" in str(entry)]
    assert "One of the steps" in warning and "change_and_wait" in warning and "neighbour" in warning


def test_concurrent_redirects_of_output_do_not_mix(instance, notes):
    """`redirect_stdout` sets `sys.stdout` only for its own step; redirects may end in any order."""
    result = run_job(instance, "redirecting", "concurrent")
    assert result.success
    captured = sorted(line for line in notes() if line.startswith("captured"))
    assert captured == [f"captured ['{name}', 'out', '{name}', 'err']" for name in ("one_redirect", "two_redirect")]
    for name in ("one_redirect", "two_redirect"):
        assert log_of(instance, result.run_id, name).splitlines() == [f"{name} before", f"{name} after"]


def log_of(instance, run_id, step) -> str:
    """Return the output of a step."""
    logs = [
        entry.dagster_event.logs_captured_data
        for entry in instance.all_logs(run_id)
        if entry.dagster_event and entry.dagster_event.event_type_value == "LOGS_CAPTURED"
    ]
    key = next(each.file_key for each in logs if each.step_keys == [step])
    manager = instance.compute_log_manager
    return (manager.get_log_data(manager.build_log_key_for_run(run_id, key)).stdout or b"").decode()
