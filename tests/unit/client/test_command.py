"""The `bonseyes` command against a small project: its output, its requests and its exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bonseyes_dagster.client.command import main
from bonseyes_dagster.client.command._exits import EXITS, exit_code
from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.model import NOT_SELECTED, Status, Step
from tests.unit.client.scripted_server import Answer, ScriptedServer, error
from tests.unit.client.small_project import TOOL, run_status, serve_project

Bonseyes = Callable[..., tuple[int, str, str]]
COMMAND = [sys.executable, "-c", "from bonseyes_dagster.client.command import main; main()"]


@pytest.fixture
def project(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    """A project whose address is in BONSEYES_URL."""
    serve_project(server)
    monkeypatch.setenv("BONSEYES_URL", server.url)
    monkeypatch.delenv("BONSEYES_TOKEN", raising=False)
    return server


@pytest.fixture
def bonseyes(capfdbinary: pytest.CaptureFixture[bytes]) -> Bonseyes:
    """Run the command in this process; return exit code, standard output and standard error."""

    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exited:
            main(argv)
        out, err = capfdbinary.readouterr()
        return int(exited.value.code or 0), out.decode(), err.decode()

    return run


def test_run_prints_only_the_address(project: ScriptedServer, bonseyes: Bonseyes, tmp_path: Path) -> None:
    """A script reads the address from standard output. Parameters are sent with their types, and files as they are."""
    file = tmp_path / "images.gz"
    file.write_bytes(b"pixels")
    code, out, err = bonseyes("run", "digits-cnn", "-p", "epochs=5", "-f", f"images={file}")
    assert (code, out) == (0, "digits-cnn/first\n")
    assert "bonseyes runs wait digits-cnn/first" in err
    post = next(call for call in project.calls if call.method == "POST")
    assert post.query == {"reuse": "true"}
    assert b'{"epochs": 5}' in post.body
    assert b"pixels" in post.body


def test_no_reuse_sends_the_parameter(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """With `reuse=false`, the pipeline makes all artifacts anew."""
    bonseyes("run", "digits-cnn", "--no-reuse", "--name", "mine")
    post = next(call for call in project.calls if call.method == "POST")
    assert (post.query, json.loads(post.body)["name"]) == ({"reuse": "false"}, "mine")


def test_run_with_wait_prints_progress_lines_and_the_result(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """Without a terminal, each change is a line on standard error, and standard output has only the result."""
    status = "/containers/digits-cnn/runs/first/status"
    project.on("GET", status, Answer(run_status("running").to_json()), Answer(run_status("completed").to_json()))
    code, out, err = bonseyes("run", "digits-cnn", "--wait")
    assert (code, out) == (0, "first completed (2.5 s)\n")
    assert "first train running 3/10 epoch loss 0.1\n" in err
    assert err.count("first import completed") == 1


def test_wait_for_a_failed_run_exits_1(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """The printed line has the reason."""
    failed = run_status("failed", "train: out of memory")
    project.on("GET", "/containers/digits-cnn/runs/first/status", Answer(failed.to_json()))
    code, out, _ = bonseyes("runs", "wait", "digits-cnn/first")
    assert (code, out) == (1, "first failed: train: out of memory (2.5 s)\n")


def test_timeout_exits_9(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """A script can tell a timeout from a failure."""
    running = Answer(run_status("running").to_json())
    project.on("GET", "/containers/digits-cnn/runs/first/status", running)
    code, _, err = bonseyes("run", "digits-cnn", "--wait", "--timeout", "0.2")
    assert code == 9
    assert "still running" in err


def test_wrong_parameters_are_not_sent(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """The command names all of them, and sends no POST."""
    code, out, err = bonseyes("run", "digits-cnn", "-p", "epochs=x", "-p", "epoch=3", "-f", "images=/nowhere")
    assert (code, out) == (2, "")
    assert "  epochs: It must be an integer, not 'x'.\n" in err
    assert "  images: There is no file /nowhere.\n" in err
    assert not any(call.method == "POST" for call in project.calls)


def test_run_of_a_tool_names_the_right_command(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """A tool's container has artifacts, but no runs."""
    code, _, err = bonseyes("run", "training")
    assert code == 2
    assert "bonseyes artifact create training/NAME" in err


def test_run_takes_both_names_of_a_pipeline(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """The dashboard shows the pipeline's own name, not its container's."""
    assert bonseyes("run", "digits_cnn")[:2] == (0, "digits-cnn/first\n")


def test_runs_are_listed(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """`list` is optional, and so is the pipeline."""
    for argv in (["runs"], ["runs", "digits-cnn"], ["runs", "list", "digits-cnn"]):
        code, out, _ = bonseyes(*argv)
        assert code == 0
        assert out.startswith("digits-cnn/first\trunning\t1/2\t")


def test_artifacts_are_listed(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """It lists the artifacts of a container, of a pipeline or of the project, and filters them."""
    line = "training/first_train\tcompleted\tcom.bonseyes.model"
    assert bonseyes("artifacts", "training")[1].startswith(line)
    assert bonseyes("artifacts")[1].startswith(line)
    assert bonseyes("artifacts", "digits-cnn", "--type", "model")[1] == f"{line}\tmodel\n"
    assert project.calls[-1].query == {"type": "model"}
    assert bonseyes("artifacts", "training", "--status", "failed")[1] == ""
    assert bonseyes("artifacts", "--type", "model")[0] == 2


def test_artifacts_of_a_pipeline_names_unreachable_containers(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """The pipeline names them in a header; its list lacks their artifacts."""
    project.on(
        "GET", "/containers/digits-cnn/artifacts", Answer([], headers={"X-Bonseyes-Unreachable": "import, export"})
    )
    assert bonseyes("artifacts", "digits-cnn") == (0, "", "import does not answer.\nexport does not answer.\n")


def test_artifacts_of_reachable_containers_are_listed_beside_an_unreachable_one(
    project: ScriptedServer, bonseyes: Bonseyes
) -> None:
    """Standard error names the unreachable container."""
    project.on("GET", "/containers", Answer({"training": TOOL.to_json(), "gone": {}}))
    code, out, err = bonseyes("artifacts")
    assert code == 0
    assert out.startswith("training/first_train")
    assert err.startswith("gone: ")


@pytest.mark.parametrize(
    "address", ["digits-cnn/first", "training/first_train", "http://training/artifacts/first_train"]
)
def test_show_takes_artifacts_and_runs(project: ScriptedServer, bonseyes: Bonseyes, address: str) -> None:
    """Both groups of commands share the sub-command."""
    for group in ("artifact", "runs"):
        code, out, _ = bonseyes(group, "show", address)
        assert code == 0
        assert "phase      completed" in out.replace("phase        ", "phase      ")
        assert "-p epochs" in out


def test_log_is_printed_unchanged(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """A pipe gets the very bytes of the log."""
    assert bonseyes("artifact", "log", "training/first_train") == (0, "epoch 1\nepoch 2\n", "")
    assert bonseyes("artifact", "log", "training/first_train", "--follow")[1] == "epoch 1\nepoch 2\n"


def test_data_downloads_files(project: ScriptedServer, bonseyes: Bonseyes, tmp_path: Path) -> None:
    """It downloads all files, one file, or one file to standard output."""
    address = "training/first_train"
    assert bonseyes("artifact", "data", address, "-o", str(tmp_path / "all"))[0] == 0
    assert (tmp_path / "all/m/report.json").read_bytes() == b'{"accuracy": 1}'
    code, out, _ = bonseyes("artifact", "data", address, "m/report.json", "-o", str(tmp_path / "one"))
    assert (code, out) == (0, f"{tmp_path}/one\n")
    assert bonseyes("artifact", "data", address, "m/report.json", "-o", "-")[1] == '{"accuracy": 1}'
    assert bonseyes("artifact", "data", address, "-o", "-")[0] == 2
    assert "m/report.json" in bonseyes("artifact", "files", address)[1]


def test_metrics_are_printed(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """It prints the last point of each metric, or all points of one."""
    assert bonseyes("artifact", "metrics", "training/first_train")[1] == "loss\t1\t0.25\n"
    assert bonseyes("artifact", "metrics", "training/first_train", "loss")[1] == "1.500\t0\t0.5\n2.500\t1\t0.25\n"


def test_cancel_and_delete_print_the_result(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """`--with-artifacts` is for runs only."""
    assert bonseyes("artifact", "cancel", "training/first_train")[1] == "training/first_train completed\n"
    assert bonseyes("artifact", "delete", "training/first_train", "-y")[1] == "training/first_train removed\n"
    assert bonseyes("artifact", "delete", "training/first_train", "--with-artifacts")[0] == 2
    assert bonseyes("runs", "delete", "digits-cnn/first", "--with-artifacts")[0] == 0
    assert project.calls[-1].query == {"artifacts": "true"}
    removed = "digits-cnn/first removed\n  stays: http://training/artifacts/first_train\n"
    assert bonseyes("runs", "delete", "digits-cnn/first")[1] == removed


def test_rename_prints_the_new_address(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """A run cannot be renamed."""
    renamed = bonseyes("artifact", "rename", "training/first_train", "best")
    assert renamed[:2] == (0, "training/first_train is now training/best.\n")
    assert (project.calls[-1].method, json.loads(project.calls[-1].body)) == ("PATCH", {"name": "best"})
    assert bonseyes("artifact", "rename", "digits-cnn/first", "best")[0] == 2


def test_step_that_is_not_selected_does_not_count(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """The count of steps, the address of an artifact and the progress of a wait all leave it out."""
    status = run_status("completed")
    left_out = Step(name="judge", container="judge", artifact="", phase=NOT_SELECTED)
    answer = Answer(replace(status, steps=(*(status.steps or ()), left_out)).to_json())
    project.on("GET", "/containers/digits-cnn/runs/first/status", answer)
    project.on("GET", "/containers/digits-cnn/runs", Answer([answer.body]))
    assert "\t2/2\t" in bonseyes("runs", "digits-cnn")[1]
    assert bonseyes("runs", "show", "digits-cnn/first")[1].endswith("judge\tnot-selected\t\n")
    assert "judge" not in bonseyes("run", "digits-cnn", "--wait")[2]


def test_containers_pipelines_and_task_are_printed(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """`containers` also shows which of them answer."""
    assert bonseyes("containers")[1] == "digits-cnn\tmissing\tReads digits\ntraining\tstarted\tTrains\n"
    assert bonseyes("pipelines")[1] == "digits-cnn\tdigits_cnn\tDigits\n"
    assert bonseyes("pipelines", "digits-cnn")[1] == "images\tfile\tNone\t\nepochs\tinteger\t3\t\n"
    assert bonseyes("task", "digits-cnn")[1] == "name         digits\ndescription  Read\noutput       m\n"


def test_changed_code_is_reported(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """Programs read the table of containers, so the note is on standard error."""
    project.on("GET", "/containers", Answer({"training": replace(TOOL, code_changed=True).to_json()}))
    code, out, err = bonseyes("containers")
    assert (code, out) == (0, "training\tstarted\tTrains\n")
    assert err == "The code of training changed since it started; restart the container to use it.\n"
    assert json.loads(bonseyes("containers", "--json")[1])[0]["code_changed"] is True
    assert "code " not in bonseyes("artifact", "show", "training/first_train")[1]
    status = Status(name="first_train", phase="completed", code_changed=True)
    project.on("GET", "/containers/training/artifacts/first_train/status", Answer(status.to_json()))
    assert (
        "code       changed since the start; never re-used" in bonseyes("artifact", "show", "training/first_train")[1]
    )


JSON: list[tuple[list[str], type]] = [
    (["run", "digits-cnn"], dict),
    (["run", "digits-cnn", "--wait"], dict),
    (["runs"], list),
    (["runs", "show", "training/first_train"], dict),
    (["artifacts"], list),
    (["artifacts", "digits-cnn"], list),
    (["artifact", "create", "training/x", "-p", "dataset=import/a"], dict),
    (["artifact", "log", "training/first_train"], dict),
    (["artifact", "files", "training/first_train"], list),
    (["artifact", "metrics", "training/first_train"], dict),
    (["artifact", "metrics", "training/first_train", "loss"], list),
    (["artifact", "cancel", "training/first_train"], dict),
    (["artifact", "delete", "training/first_train"], dict),
    (["artifact", "rename", "training/first_train", "best"], dict),
    (["artifact", "wait", "training/first_train"], dict),
    (["containers"], list),
    (["pipelines"], list),
    (["pipelines", "digits-cnn"], dict),
    (["task", "digits-cnn"], dict),
    (["artifact", "show", "training/none"], dict),
    (["artifact", "show"], dict),
]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("argv", "kind"), JSON, ids=lambda value: "-".join(value) if isinstance(value, list) else "")
def test_json_is_one_document(
    project: ScriptedServer, bonseyes: Bonseyes, argv: list[str], kind: type, is_first: bool
) -> None:
    """`--json` may come before or after the command; errors are documents, too."""
    _, out, _ = bonseyes("--json", *argv) if is_first else bonseyes(*argv, "--json")
    assert isinstance(json.loads(out), kind)


def test_json_output_has_null_for_nan_and_infinity(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """JSON has no NaN: a parser could refuse the whole document."""
    project.on("GET", "/containers/training/artifacts/first_train/metrics", Answer(["loss"]))
    lines = Answer(b"1.5 0 0.25\n2.5 1 nan\n3.5 2 inf\n")
    project.on("GET", "/containers/training/artifacts/first_train/metrics/loss/scalar", lines)
    _, out, _ = bonseyes("artifact", "metrics", "training/first_train", "loss", "--json")
    points = json.loads(out, parse_constant=pytest.fail)
    assert [point["value"] for point in points] == [0.25, None, None]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (error(404, "not_found"), 3),
        (error(409, "name_taken"), 4),
        (error(503, "unavailable"), 5),
        (Answer(b"hello"), 5),
        (error(401, "unauthorized"), 6),
        (error(403, "forbidden"), 6),
        (error(429, "queue_full"), 7),
        (error(507, "storage_full"), 7),
        (error(413, "too_large"), 7),
        (error(422, "invalid", detail={"epochs": "too many"}), 2),
        (error(500, "internal"), 70),
    ],
)
def test_each_error_has_its_exit_code(project: ScriptedServer, bonseyes: Bonseyes, answer: Answer, code: int) -> None:
    """The user gets a sentence and no traceback."""
    project.on("POST", "/containers/digits-cnn/runs", answer)
    exited, out, err = bonseyes("run", "digits-cnn")
    assert (exited, out) == (code, "")
    assert err.startswith("bonseyes: ")
    assert "Traceback" not in err
    assert ("(request r1)" in err) == (code == 70 or (code == 5 and answer.status == 503))


def test_every_error_has_a_documented_exit_code() -> None:
    """A new class of errors must get one of the codes."""
    classes: list[type[BonseyesError]] = [BonseyesError]
    for cls in classes:
        classes += cls.__subclasses__()
        assert exit_code(cls("x")) in EXITS
    assert len(classes) > 15


def test_unreachable_project_exits_5_soon(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """A person waits for the answer; the message has the address."""
    project.stop()
    started = time.monotonic()
    code, _, err = bonseyes("runs")
    assert code == 5
    assert f"{project.url} does not answer: Connection refused." in err
    assert time.monotonic() - started < 3


def test_wrong_setting_exits_2_and_names_the_variable(bonseyes: Bonseyes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user must know which variable to correct."""
    monkeypatch.setenv("BONSEYES_PORT", "many")
    code, _, err = bonseyes("runs")
    assert code == 2
    assert "BONSEYES_PORT" in err


@pytest.mark.parametrize(
    "argv", [["nonsense"], ["run"], ["runs", "show"], ["artifact", "show", "noslash"], ["run", "--no"]]
)
def test_wrong_usage_exits_2(project: ScriptedServer, bonseyes: Bonseyes, argv: list[str]) -> None:
    """The user gets a sentence and no traceback."""
    code, _, err = bonseyes(*argv)
    assert code == 2
    assert "Traceback" not in err


def test_reason_of_a_failure_cannot_control_the_terminal(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """Any tool can write the reason of its failure."""
    failed = run_status("failed", "\x1b[2Jgone\x07")
    project.on("GET", "/containers/digits-cnn/runs/first/status", Answer(failed.to_json()))
    _, out, err = bonseyes("runs", "wait", "digits-cnn/first")
    assert "\x1b" not in out + err
    assert "gone" in out


def environment(server: ScriptedServer, **more: str) -> dict[str, str]:
    """Return the environment for a process that uses the server."""
    return {**os.environ, "BONSEYES_URL": server.url, **more}


def test_ctrl_c_says_that_the_run_goes_on(project: ScriptedServer) -> None:
    """It exits 130 and prints how to cancel, but cancels nothing itself."""
    running = run_status("running").to_json()
    polled = threading.Event()

    def answer(_: Any) -> Answer:
        polled.set()
        return Answer(running, delay_s=0.2)

    project.on("GET", "/containers/digits-cnn/runs/first/status", answer)
    argv = [*COMMAND, "run", "digits-cnn", "--wait"]
    with subprocess.Popen(argv, env=environment(project), stdout=-1, stderr=-1, text=True) as process:
        assert polled.wait(30)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "The run goes on." in err
    assert "bonseyes runs cancel digits-cnn/first" in err
    assert "Traceback" not in err
    assert not any(call.path.endswith("/cancel") for call in project.calls)


def test_closed_pipe_exits_141_without_a_message(project: ScriptedServer) -> None:
    """`bonseyes artifact log ... | head -1` must not end in an error message."""
    project.on("GET", "/containers/training/artifacts/first_train/log", Answer(b"line\n" * 500_000))
    argv = [*COMMAND, "artifact", "log", "training/first_train"]
    with subprocess.Popen(argv, env=environment(project), stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_bars_are_drawn_on_a_terminal(project: ScriptedServer) -> None:
    """Each step has a bar with its progress; standard output still has only the result."""
    status = "/containers/digits-cnn/runs/first/status"
    running = Answer(run_status("running").to_json())
    project.on("GET", status, running, running, Answer(run_status("completed").to_json()))
    ours, theirs = os.openpty()
    argv = [*COMMAND, "run", "digits-cnn", "--wait"]
    with subprocess.Popen(
        argv, env=environment(project, COLUMNS="120"), stdout=-1, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        drawn = b""
        with io.FileIO(ours) as terminal:
            while True:
                try:
                    drawn += terminal.read(4096) or b""
                except OSError:
                    break
        assert process.stdout is not None
        assert process.stdout.read() == "first completed (2.5 s)\n"
    text = drawn.decode()
    assert "━" in text
    assert "3/10 epoch loss 0.1" in text
    assert "import" in text
    assert "train" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", ""], "digits-cnn"),
        (["runs", ""], "digits-cnn"),
        (["runs", "sh"], "show"),
        (["artifact", "show", "tr"], "training/"),
        (["artifact", "show", "training/"], "training/first_train"),
        (["runs", "log", "digits-cnn/f"], "digits-cnn/first"),
        (["run", "digits-cnn", "-p", "ep"], "epochs="),
        (["run", "digits-cnn", "-f", ""], "images="),
        (["artifacts", ""], "training"),
    ],
)
def test_completion_finds_commands_and_names(project: ScriptedServer, words: list[str], expected: str) -> None:
    """It completes commands, containers, pipelines, artifacts, runs and parameters."""
    completing = {"_BONSEYES_COMPLETE": "bash_complete", "COMP_LINE": " ".join(["bonseyes", *words])}
    done = subprocess.run(
        COMMAND, env=environment(project, **completing), capture_output=True, text=True, timeout=60, check=False
    )
    kind = "nospace" if expected.endswith(("=", "/")) else "plain"
    assert f"{kind},{expected}" in done.stdout.splitlines()
    assert done.stderr == ""


def test_completion_prints_nothing_for_an_unreachable_project(project: ScriptedServer) -> None:
    """A shell cannot show an error while it completes."""
    project.stop()
    completing = {"_BONSEYES_COMPLETE": "bash_complete", "COMP_LINE": "bonseyes run "}
    done = subprocess.run(COMMAND, env=environment(project, **completing), capture_output=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == (b"", b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(bonseyes: Bonseyes, shell: str) -> None:
    """Each shell has its own language for completion."""
    code, out, _ = bonseyes("completion", shell)
    assert code == 0
    assert "_BONSEYES_COMPLETE" in out


def test_unknown_filter_value_is_refused_with_the_list(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """A typo must not look like an empty project."""
    code, out, err = bonseyes("artifacts", "--status", "completd")
    assert (code, out) == (2, "")
    assert "'completd' is not one of in-progress, queued, running, cancelled, completed" in err
    assert "Did you mean 'completed'?" in err
    code, out, err = bonseyes("artifacts", "training", "--output-type", "com.bonseyes.modle")
    assert (code, out) == (2, "")
    assert "'com.bonseyes.modle' is not one of com.bonseyes.model. Did you mean 'com.bonseyes.model'?" in err


def test_wait_for_a_run_prints_its_benchmark(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """Each verdict has its value and its limit; a failed criterion does not fail the run."""
    verdicts = [
        {"name": "Exact", "metric": "accuracy", "minimum": 0.9, "value": 0.95, "passed": True,
         "reason": "accuracy is 0.95, at least 0.9."},
        {"name": "Fast", "metric": "latency_ms", "maximum": 1, "value": 2.5, "passed": False},
    ]  # fmt: skip
    report = {
        "passed": False,
        "metrics": {"accuracy": 0.95, "latency_ms": 2.5},
        "evaluation_criterias": verdicts[:1],
        "constraints": verdicts[1:],
        "confusion_matrix": [],
    }
    text = json.dumps(report).encode()
    project.serve_file("bench/report.json", text, container="/containers/digits-cnn", name="first", kind="runs")
    code, out, _ = bonseyes("runs", "wait", "digits-cnn/first")
    assert (code, out) == (
        0,
        "first completed (2.5 s)\n\nbench FAILED\n  accuracy    0.95\n  latency_ms  2.5\n"
        "  passed: Exact: accuracy is 0.95, at least 0.9.\n  FAILED: Fast: 2.5, maximum 1\n",
    )
    code, out, _ = bonseyes("runs", "wait", "digits-cnn/first", "--json")
    del report["confusion_matrix"]
    assert json.loads(out)["benchmarks"] == {"bench": report}


@pytest.mark.parametrize("words", [("log",), ("log", "--follow"), ("wait",)])
def test_wait_and_log_fail_soon_for_an_unreachable_project(
    project: ScriptedServer, bonseyes: Bonseyes, words: tuple[str, ...]
) -> None:
    """They wait for a restart only after the server has answered once."""
    project.stop()
    begun_s = time.monotonic()
    code, out, err = bonseyes("runs", words[0], "digits-cnn/first", *words[1:])
    assert (code, out) == (5, "")
    assert "Is the project running (bonseyes up)" in err
    assert time.monotonic() - begun_s < 10


def test_error_of_a_missing_artifact_names_the_listing_command(project: ScriptedServer, bonseyes: Bonseyes) -> None:
    """The user can look up the right name."""
    missing = error(404, "not_found", "There is no artifact 'b'.")
    project.on("GET", "/containers/training/artifacts/b/status", missing)
    code, _, err = bonseyes("artifact", "wait", "training/b")
    assert code == 3
    assert err == "bonseyes: There is no artifact 'b'.\n`bonseyes artifacts` lists all artifacts.\n"
