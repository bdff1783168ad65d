"""Debian's Chromium for tests of web pages, controlled by Playwright; nothing is downloaded."""

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
    """Yield a running Chromium, and close it at the end of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, *, dark: bool = False, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """Yield a page; fail the test when the browser reports an error of a script or a policy."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: _collect(problems, message))
    try:
        yield page
    finally:
        context.close()
    assert not problems, problems


def _collect(problems: list[str], message: ConsoleMessage) -> None:
    # The browser logs each 4xx by itself, also one that a test provokes; the test checks the page's reaction.
    if message.type == "error" and "Failed to load resource" not in message.text:
        problems.append(message.text)
