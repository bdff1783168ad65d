"""The dashboard's page in Chromium, through the gateway: everything that a user does with a project."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from bonseyes_dagster.errors import ToolError
from tests.contract.memory import Job, MemoryBackend
from tests.system.browser import needs_chromium, open_browser, open_page
from tests.system.project import StandIn, serve_twin, tool_description
from tests.waiting import free_port

pytestmark = needs_chromium

MARKUP = '<img src="x" onerror="document.title=\'hacked\'">'
VERDICT = {"name": "accurate", "description": "Right often enough.", "metric": "accuracy", "minimum": 0.95}
REPORT = {
    "format_version": 1,
    "passed": False,
    "metrics": {"accuracy": 0.9731},
    "per_class": [{"name": "seven", "support": 10, "precision": 0.9}],
    "evaluation_criterias": [VERDICT | {"value": 0.9731, "passed": True, "reason": "accuracy is 0.9731."}],
    "constraints": [{"name": "small", "metric": "size", "value": 5, "passed": False, "reason": f"too large {MARKUP}"}],
}


def make(job: Job) -> None:
    """Write a log line and progress every 0.1 s; `mlp` fails."""
    epochs = job.parameters["epochs"]
    for epoch in range(epochs):
        job.log(f"epoch {epoch} {MARKUP}")
        job.progress(epoch + 1, epochs, "epochs")
        job.sleep(0.1)
    if job.parameters["model"] == "mlp":
        raise ToolError(f"The images hold 3 channels {MARKUP}")
    job.path("data.bin").write_bytes(job.uploads["images"].read_bytes())
    job.path("report.json").write_text(json.dumps(REPORT))
    Image.new("RGB", (64, 48), "#99bbdd").save(job.path("confusion_matrix.png"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield Chromium."""
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """Yield a project."""
    with StandIn(tmp_path_factory.mktemp("project"), make) as project:
        yield project


@pytest.fixture
def page(browser: Browser, project: StandIn) -> Iterator[Page]:
    """Yield the dashboard's page."""
    with open_page(browser) as page:
        page.goto(f"{project.url}/")
        yield page


def begin(project: StandIn, name: str, **parameters: Any) -> None:
    """Start a run without the page."""
    body = {"name": name, "data": json.dumps(parameters)}
    url = f"{project.url}/containers/digits-cnn/runs"
    requests.post(url, data=body, files={"images": b"x"}, timeout=10).raise_for_status()


def test_a_run_from_form_to_report(project: StandIn, page: Page, tmp_path: Path) -> None:
    """Start a run with a file, watch it, read its report, and download its result."""
    images = tmp_path / "train.idx"
    images.write_bytes(os.urandom(300_000))
    page.get_by_role("link", name="Start a run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Start a run of digits-cnn")
    page.get_by_label("Name").fill("first")
    page.get_by_label("Images").set_input_files(images)
    page.get_by_label("Epochs").fill("100")
    page.get_by_label("Augment").check()
    page.get_by_role("button", name="Start a run").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("first running")
    expect(page.get_by_role("progressbar").first).to_have_attribute("max", "100")
    expect(page.get_by_role("log")).to_contain_text("epoch 3")
    expect(page.get_by_role("link", name="training/first_train")).to_be_visible()

    expect(page.get_by_role("heading", level=1)).to_contain_text("first completed", timeout=30_000)
    expect(page.get_by_role("heading", name="Benchmark report")).to_be_visible()
    expect(page.get_by_role("row", name="accurate")).to_contain_text("passed")
    expect(page.get_by_role("row", name="small")).to_contain_text("failed")
    expect(page.get_by_text("0.9731").first).to_be_visible()
    page.get_by_text("Results of each class").click()
    expect(page.get_by_role("row", name="seven")).to_contain_text("0.9")
    picture = page.get_by_role("img", name="Picture: confusion matrix")
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("naturalWidth", 64)
    expect(page.get_by_role("log")).to_contain_text("epoch 99")
    with page.expect_download() as download:
        page.get_by_role("link", name="data.bin").click()
    assert Path(download.value.path()).read_bytes() == images.read_bytes()
    assert page.title() == "first · digits-cnn · Bonseyes"
    parameters = requests.get(f"{project.url}/containers/digits-cnn/runs/first/input-parameters", timeout=10).json()
    assert (parameters["epochs"], parameters["augment"], parameters["model"]) == (100, True, "cnn")


def test_errors_are_shown_beside_their_fields(project: StandIn, page: Page, tmp_path: Path) -> None:
    """Errors that the browser finds, and errors that only the container finds."""
    begin(project, "taken", epochs=1)
    page.goto(f"{project.url}/#/digits-cnn/new")
    page.get_by_label("Name").fill("taken")
    page.get_by_label("Epochs").fill("1000")
    page.get_by_label("Criteria").fill("[")
    page.get_by_role("button", name="Start a run").click()
    for field in ("Images", "Epochs", "Criteria"):
        expect(page.get_by_label(field)).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#field-criteria-error")).to_contain_text("This is not JSON")
    assert page.evaluate("document.activeElement.id") == "field-images"

    (tmp_path / "x").write_bytes(b"x")
    page.get_by_label("Images").set_input_files(tmp_path / "x")
    page.get_by_label("Epochs").fill("1")
    page.get_by_label("Criteria").fill("[]")
    page.get_by_role("button", name="Start a run").click()
    expect(page.locator("#field-name-error")).to_contain_text("taken")

    page.get_by_label("Name").fill("not a name")
    page.get_by_role("button", name="Start a run").click()
    expect(page.locator("#field-name-error")).not_to_contain_text("taken")
    expect(page.get_by_label("Name")).to_be_focused()
    assert "not a name" not in requests.get(f"{project.url}/containers/digits-cnn/runs", timeout=10).json()


def test_errors_of_the_container_are_shown_beside_their_fields(project: StandIn, page: Page, tmp_path: Path) -> None:
    """A 422 names the parameter in its detail."""
    (tmp_path / "x").write_bytes(b"x")
    page.goto(f"{project.url}/#/digits-cnn/new")
    page.get_by_label("Images").set_input_files(tmp_path / "x")
    page.get_by_label("Learning rate").fill("0.5")
    # Remove the limit from the page, as if the page were older than the container.
    page.get_by_label("Epochs").evaluate("input => { input.removeAttribute('max'); input.value = 1000; }")
    page.get_by_role("button", name="Start a run").click()
    expect(page.locator("#field-epochs-error")).not_to_be_empty()
    expect(page.get_by_label("Epochs")).to_be_focused()


def test_cancel_and_delete_ask_first(project: StandIn, page: Page) -> None:
    """One wrong click must lose nothing."""
    begin(project, "long", epochs=100)
    page.goto(f"{project.url}/#/digits-cnn/runs/long")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("running")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")

    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_label("Also delete the artifacts that it made")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete the run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("digits-cnn")
    expect(page.get_by_role("row", name="long")).to_have_count(0)
    assert requests.get(f"{project.url}/containers/digits-cnn/runs/long", timeout=10).status_code == 404


def test_a_failed_run_shows_its_reason_as_text(project: StandIn, page: Page) -> None:
    """Reasons, logs and reports are text, whatever they hold; they never run as HTML."""
    begin(project, "bad", epochs=1, model="mlp")
    page.goto(f"{project.url}/#/digits-cnn/runs/bad")
    expect(page.locator(".reason")).to_have_text(f"The images hold 3 channels {MARKUP}")
    expect(page.get_by_role("log")).to_contain_text(MARKUP)
    assert page.title() == "bad · digits-cnn · Bonseyes"


def test_the_overview_updates_itself(project: StandIn, page: Page) -> None:
    """A new run appears and ends; the task is complete; each container shows its health."""
    begin(project, "elsewhere", epochs=60)
    row = page.get_by_role("row", name="elsewhere")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("completed", timeout=30_000)
    page.get_by_text("Task: digits").click()
    for word in (
        "Tell handwritten digits apart.",
        "accurate ≥ 0.95",
        "small ≤ 1000000",
        "cross-entropy",
        "test-images",
    ):
        expect(page.get_by_text(word).first).to_be_visible()
    expect(page.get_by_role("row", name="training")).to_contain_text("ok")


def test_the_overview_shows_new_containers_and_containers_that_are_down(project: StandIn, page: Page) -> None:
    """Without a reload; a container that does not answer keeps its row."""
    with serve_twin(MemoryBackend(tool_description("late"), make)) as url:
        project.addresses["late"] = url
        project._write_addresses()
        requests.post(f"{project.url}/containers", json={"name": "late"}, timeout=10).raise_for_status()
        expect(page.get_by_role("row", name="late")).to_contain_text("ok", timeout=30_000)
    page.reload()
    expect(page.get_by_role("row", name="late")).to_contain_text("down")
    expect(page.get_by_role("row", name="late")).to_contain_text("com.bonseyes.model")


def test_the_keyboard_reaches_everything(project: StandIn, page: Page) -> None:
    """The skip link comes first; a new view begins at its heading."""
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Start a run").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    unnamed = page.locator("input, select, textarea").evaluate_all(
        "all => all.filter(input => !input.labels?.length && !input.closest('dialog')).map(input => input.id)"
    )
    assert unnamed == []
    page.keyboard.press("Tab")
    expect(page.get_by_label("Name")).to_be_focused()


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_enough_contrast(project: StandIn, browser: Browser, dark: bool) -> None:
    """4.5 to 1 for every text, in both colour schemes; nothing overflows a narrow window."""
    begin(project, f"contrast-{dark}", epochs=1, model="mlp")
    with open_page(browser, dark=dark, width=380, height=800) as page:
        for view in ("", f"digits-cnn/runs/contrast-{dark}", "digits-cnn/new", "training"):
            page.goto(f"{project.url}/#/{view}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            page.wait_for_timeout(500)
            assert page.evaluate(CONTRAST) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# Return the texts whose contrast to their background is too low.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const wrong = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].filter((child) => child.nodeType === 3 && child.data.trim()).map((t) => t.data);
    if (!text.length || !node.checkVisibility() || ["NOSCRIPT", "SCRIPT", "OPTION"].includes(node.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) wrong.push([text[0].trim(), ratio]);
  }
  return wrong;
}"""


def test_acknowledged_registrations_survive_a_kill(project: StandIn) -> None:
    """A killed and restarted dashboard still has every name."""
    url = f"http://127.0.0.1:{free_port()}"
    folder = project.folder / "killed"
    folder.mkdir()
    addresses = folder / "addresses.json"
    addresses.write_text(json.dumps({f"c{i}": "http://127.0.0.1:1" for i in range(20)}))
    environ = {"BONSEYES_VOLUME": str(folder), "BONSEYES_ADDRESSES": str(addresses)}
    with project.process("dashboard", url, environ) as process:
        for i in range(20):
            requests.post(f"{url}/containers", json={"name": f"c{i}"}, timeout=10).raise_for_status()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    with project.process("dashboard", url, environ):
        assert {f"c{i}" for i in range(20)} <= set(requests.get(f"{url}/containers", timeout=30).json())
