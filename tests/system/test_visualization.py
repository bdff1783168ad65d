"""TensorBoard in Chromium, through the gateway, with artifacts in progress."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, expect

from bonseyes_dagster.visualization.frontend import RELOAD_S
from tests.contract.memory import Job
from tests.system.browser import needs_chromium, open_browser, open_page
from tests.system.project import StandIn
from tests.unit.visualization.artifact_server import ArtifactServer
from tests.waiting import free_port

pytestmark = pytest.mark.slow


def make(job: Job) -> None:
    """Train: write a point every 0.2 s."""
    for step in range(job.parameters["epochs"]):
        job.scalar("loss", step, 1 / (step + 1))
        job.sleep(0.2)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """Yield a project."""
    with StandIn(tmp_path_factory.mktemp("project"), make) as project:
        yield project


def create(project: StandIn, name: str, epochs: int) -> None:
    """Create an artifact."""
    body = {"name": name, "data": f'{{"epochs": {epochs}}}'}
    url = f"{project.url}/containers/training/artifacts"
    requests.post(url, data=body, files={"images": b"x"}, timeout=10).raise_for_status()


def remove(project: StandIn, name: str) -> None:
    """Delete an artifact."""
    requests.delete(f"{project.url}/containers/training/artifacts/{name}", timeout=10).raise_for_status()


@pytest.fixture
def page() -> Iterator[Page]:
    """Yield a page."""
    with open_browser() as browser, open_page(browser) as page:
        yield page


def last_step(page: Page) -> int:
    """Return the newest step in the table below the chart."""
    texts = page.locator("scalar-card-data-table tb-data-table-content-cell").all_inner_texts()
    numbers = [int(text) for text in texts if text.isdigit()]
    return max(numbers, default=-1)


@needs_chromium
def test_an_open_chart_grows_without_a_click(project: StandIn, page: Page) -> None:
    """New points of a tool appear in the open chart."""
    create(project, "growing", 100)
    page.goto(f"{project.url}/containers/visualization/")
    card = page.locator("scalar-card").filter(has_text="loss")
    expect(card).to_be_visible()
    expect(card.locator(".series-view path, .series-view canvas").first).to_be_attached()
    expect(page.get_by_text("training/growing").first).to_be_visible()
    deadline = time.monotonic() + 3 * RELOAD_S
    while (first := last_step(page)) < 0 and time.monotonic() < deadline:
        page.wait_for_timeout(200)
    while last_step(page) <= first and time.monotonic() < deadline:
        page.wait_for_timeout(200)
    assert last_step(page) > first >= 0
    remove(project, "growing")


@needs_chromium
def test_a_link_selects_runs(project: StandIn, page: Page) -> None:
    """The dashboard links to the metrics of one artifact or run."""
    for name in ("wanted", "other"):
        create(project, name, 1)
    runs = f"{project.url}/containers/visualization/data/runs"
    deadline = time.monotonic() + 20
    while len(requests.get(runs, timeout=20).json()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    page.goto(f"{project.url}/containers/visualization/?runFilter=%5Etraining%2Fwanted%24#timeseries")
    expect(page.get_by_text("training/wanted").first).to_be_visible()
    expect(page.locator("runs-data-table").get_by_text("training/other")).to_have_count(0)


@needs_chromium
def test_parameters_are_compared(project: StandIn, page: Page) -> None:
    """The hyperparameter table has a row for each artifact, with its parameters and results."""
    for name, epochs in (("short", 1), ("long", 2)):
        create(project, name, epochs)
    page.goto(f"{project.url}/containers/visualization/#hparams")
    frame = page.locator("tf-hparams-dashboard")
    expect(frame.get_by_text("learning-rate").first).to_be_visible(timeout=30_000)
    expect(frame.get_by_text("epochs").first).to_be_visible()


def test_health_metrics_and_openapi_are_served(project: StandIn) -> None:
    """Beside TensorBoard, with and without a slash at the end."""
    base = project.addresses["visualization"]
    for path in ("/healthz", "/healthz/", "/openapi.json"):
        answer = requests.get(base + path, timeout=10)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json"), path
    text = requests.get(f"{base}/metrics", timeout=10).text
    assert re.search(r"^bonseyes_artifacts \d", text, re.MULTILINE)
    assert "TensorBoard" in requests.get(f"{base}/", timeout=10).text


def test_a_foreign_host_gets_nothing_of_tensorboard(project: StandIn) -> None:
    """A page of a site whose name resolves to this server must not read TensorBoard's answers."""
    for path in ("/", "/data/runs", "/healthz"):
        answer = requests.get(project.addresses["visualization"] + path, headers={"Host": "evil.example"}, timeout=10)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(("method", "path"), [("TRACE", "/"), ("POST", "/"), ("DELETE", "/data/runs")])
def test_other_methods_are_refused(project: StandIn, method: str, path: str) -> None:
    """TensorBoard itself would answer them like GET."""
    answer = requests.request(method, project.addresses["visualization"] + path, timeout=10)
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"
    assert "GET" in answer.headers["Allow"]


def test_only_tabs_for_scalars_are_shown(project: StandIn) -> None:
    """No empty tabs for images, graphs or audio."""
    listing = requests.get(f"{project.url}/containers/visualization/data/plugins_listing", timeout=20).json()
    assert list(listing) == ["timeseries", "scalars", "hparams"]


def test_thousands_of_artifacts(project: StandIn, tmp_path: Path) -> None:
    """They are listed by pages and each is asked once; meanwhile the answers stay fast."""
    count = 2000
    with ArtifactServer() as server:
        for i in range(count):
            server.add(f"a{i}", "completed")
            server.append(f"a{i}", "loss", 1.0, 0.5)
        many = StandIn(tmp_path, make)
        many.addresses = {"many": server.url}
        many._write_addresses()
        base = f"http://127.0.0.1:{free_port()}"
        with many.process("visualization", base):
            deadline = time.monotonic() + 90
            slowest = 0.0
            while True:
                began = time.monotonic()
                runs = requests.get(f"{base}/data/runs", timeout=30).json()
                slowest = max(slowest, time.monotonic() - began)
                if len(runs) == count:
                    break
                assert time.monotonic() < deadline, len(runs)
                time.sleep(0.5)
            assert slowest < 10
            time.sleep(5)
            requests.get(f"{base}/data/runs", timeout=30)
            assert server.asked["artifacts/NAME/metrics"] == count
            body = {"requests": '[{"plugin": "scalars", "tag": "loss"}]'}
            began = time.monotonic()
            while len(_series(base, body)) < count:
                assert time.monotonic() - began < 60
            assert server.asked["artifacts/NAME/metrics/loss/scalar"] == count


TOOL = """
name: curves
description: Writes a curve slowly.
entry_point: curves:create
output_type: com.bonseyes.model
parameters:
  points: {type: integer, default: 20}
"""
CODE = """
import time

def create(artifact, *, points):
    for step in range(points):
        artifact.scalar("loss", step, 1 / (step + 1))
        time.sleep(0.4)
    artifact.path("model.txt").write_text("done")
"""


def test_points_of_a_real_tool_are_shown(project: StandIn, tmp_path: Path) -> None:
    """From the author's `artifact.scalar`, through the files of a tool container, to TensorBoard's answer."""
    tool = tmp_path / "tool"
    tool.mkdir()
    (tool / "tool.yml").write_text(TOOL)
    (tool / "curves.py").write_text(CODE)
    url = f"http://127.0.0.1:{free_port()}"
    body = {"requests": '[{"plugin": "scalars", "tag": "loss", "run": "curves/slow"}]'}
    lengths: list[int] = []
    with project.process("tool", url, {"BONSEYES_TOOL": str(tool), "BONSEYES_CONTAINER": "curves"}):
        project.addresses["curves"] = url
        project._write_addresses()
        requests.post(f"{url}/artifacts", json={"name": "slow"}, timeout=10).raise_for_status()
        deadline = time.monotonic() + 60
        while (lengths[-1] if lengths else 0) < 20:
            assert time.monotonic() < deadline, [
                requests.get(f"{url}/artifacts/slow/{part}", timeout=10).text for part in ("status", "log")
            ]
            series = _series(f"{project.url}/containers/visualization", body).get("curves/slow", [])
            lengths.append(len(series))  # type: ignore[arg-type]
            time.sleep(0.2)
        parameters = requests.post(
            f"{project.url}/containers/visualization/data/plugin/hparams/session_groups",
            data='{"sliceSize": 10}',
            timeout=20,
        )
        assert '"points"' in parameters.text
    del project.addresses["curves"]
    assert len(set(lengths) - {0, 20}) >= 2, lengths


def _series(base: str, body: dict[str, str]) -> dict[str, object]:
    answer = requests.post(f"{base}/data/plugin/timeseries/timeSeries", data=body, timeout=30).json()
    series: dict[str, object] = answer[0]["runToSeries"]
    return series
