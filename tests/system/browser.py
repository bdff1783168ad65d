"""Debian's Chromium for tests of pages, driven by Playwright; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

__all__ = ["CHROMIUM", "needs_chromium", "open_browser", "open_page"]

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

needs_chromium = pytest.mark.browser


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium and end it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, *, dark: bool = False, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """Open a page that fails the test when the browser reports an error: a script's, or a broken policy."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: _note(wrong, message))
    try:
        yield page
    finally:
        context.close()
    assert not wrong, wrong


def _note(wrong: list[str], message: ConsoleMessage) -> None:
    # A 4xx that a test provokes is logged by the browser itself; what the page made of it is the test's matter.
    if message.type == "error" and "Failed to load resource" not in message.text:
        wrong.append(message.text)
