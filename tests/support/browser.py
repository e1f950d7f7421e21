"""The browser that tests drive: Chromium's headless shell, or a whole Chromium where the shell is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

# The shell has Chromium's engine without its windows: a new page costs 0.5 s of processor time instead of 1.2 s.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def open_browser() -> Iterator[Browser]:
    """One browser, for a fixture of package scope: Playwright keeps an event loop in this thread until it ends."""
    if CHROMIUM is None:
        pytest.skip("no browser on PATH (Debian: apt-get install chromium-headless-shell)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()
