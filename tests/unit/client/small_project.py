"""A project for the command's tests: a gateway with one pipeline and one tool, on a real HTTP server."""

from __future__ import annotations

from bonseyes_dagster.model import Parameter, Progress, Status, Step, ToolDescription
from tests.unit.client.scripted_server import Answer, ScriptedServer

TOOL = ToolDescription(
    name="training",
    description="Trains",
    parameters=(
        Parameter(name="dataset", type="artifact", required=True),
        Parameter(name="epochs", type="integer", default=30, description="How often"),
    ),
    output_type="com.bonseyes.model",
    version="1",
)
PIPELINE = ToolDescription(
    name="digits-cnn",
    description="Reads digits",
    parameters=(Parameter(name="images", type="file"), Parameter(name="epochs", type="integer", default=3)),
    output_type="com.bonseyes.run",
    version="1",
    collection="/runs",
)
TIMES = {"created": "2026-01-01T00:00:00.000Z", "started": "2026-01-01T00:00:01.000Z"}
FINISHED = {**TIMES, "finished": "2026-01-01T00:00:03.500Z"}


def steps(phase: str) -> tuple[Step, ...]:
    """Return two steps, the second in `phase`."""
    progress = Progress(3, 10, "epoch", "loss 0.1")
    return (
        Step(name="import", container="import", artifact="first_import", phase="completed"),
        Step(name="train", container="training", artifact="first_train", phase=phase, progress=progress),
    )


def run_status(phase: str, reason: str | None = None) -> Status:
    """Return the status of the run `first`."""
    times = TIMES if phase == "running" else FINISHED
    return Status(name="first", phase=phase, reason=reason, steps=steps(phase), run_id="r-1", **times)  # type: ignore[arg-type]


def serve_project(server: ScriptedServer) -> None:
    """Script the answers of a gateway."""
    tool, pipeline = "/containers/training", "/containers/digits-cnn"
    done = Status(name="first_train", phase="completed", size=1_234_567, digest="d" * 64, **FINISHED)
    server.on("GET", "/containers", Answer({"training": TOOL.to_json(), "digits-cnn": PIPELINE.to_json()}))
    server.on("GET", "/pipelines", Answer([{"name": "digits_cnn", "container": "digits-cnn", "description": "Digits"}]))
    server.on("GET", f"{tool}/", Answer(TOOL.to_json()))
    server.on("GET", f"{tool}/healthz", Answer({}))
    server.on("GET", f"{tool}/artifacts", Answer([done.to_json()]))
    server.on("POST", f"{tool}/artifacts", Answer({"result": "success", "name": "x", "url": ""}))
    server.on("GET", f"{tool}/artifacts/first_train", Answer({"status": done.to_json()}))
    server.on("GET", f"{tool}/artifacts/first_train/status", Answer(done.to_json()))
    server.on("GET", f"{tool}/artifacts/first_train/input-parameters", Answer({"epochs": 30}))
    server.on("GET", f"{tool}/artifacts/first_train/input-files", Answer([]))
    server.on("GET", f"{tool}/artifacts/first_train/log", Answer(b"epoch 1\nepoch 2\n"))
    server.on("GET", f"{tool}/artifacts/first_train/metrics", Answer(["loss"]))
    server.on("GET", f"{tool}/artifacts/first_train/metrics/loss/scalar", Answer(b"1.5 0 0.5\n2.5 1 0.25\n"))
    server.on("POST", f"{tool}/artifacts/first_train/cancel", Answer(done.to_json()))
    server.on("DELETE", f"{tool}/artifacts/first_train", Answer({"result": "success"}))
    server.on("PATCH", f"{tool}/artifacts/first_train", Answer({"result": "success", "name": "best", "url": ""}))
    server.serve_file("m/report.json", b'{"accuracy": 1}', container=tool, name="first_train")
    server.on("GET", f"{pipeline}/", Answer(PIPELINE.to_json()))
    server.on("GET", f"{pipeline}/runs", Answer([run_status("running").to_json()]))
    server.on("POST", f"{pipeline}/runs", Answer({"result": "success", "name": "first", "url": ""}))
    server.on("GET", f"{pipeline}/runs/first/status", Answer(run_status("completed").to_json()))
    server.on("GET", f"{pipeline}/runs/first/input-parameters", Answer({"epochs": 3}))
    server.on("GET", f"{pipeline}/runs/first/input-files", Answer(["images"]))
    kept = ["http://training/artifacts/first_train"]
    server.on("DELETE", f"{pipeline}/runs/first", Answer({"result": "success", "kept": kept}))
    server.on("GET", f"{pipeline}/task", Answer({"name": "digits", "description": "Read", "output": "m"}))
    entry = {"name": "first_train", "container": "training", "href": "", "status": "completed"}
    server.on("GET", f"{pipeline}/artifacts", Answer([{**entry, "output_type": "com.bonseyes.model", "type": "model"}]))
