"""Opens pages in Debian's Chromium with Playwright, for tests of web pages. Playwright downloads no browser."""

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
    """Start Chromium. End it after the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, *, dark: bool = False, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """Open a page. Fail the test if a script fails or violates the content security policy."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: _add_error(errors, message))
    try:
        yield page
    finally:
        context.close()
    assert not errors, errors


def _add_error(errors: list[str], message: ConsoleMessage) -> None:
    # The browser also logs each 4xx answer. A test may cause one on purpose, and checks the page itself.
    if message.type == "error" and "Failed to load resource" not in message.text:
        errors.append(message.text)
