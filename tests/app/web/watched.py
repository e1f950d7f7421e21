"""A page in a browser, and what tests do with it."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Browser, Page, expect

DROP = """([name, kind, bytes]) => {
    const carried = new DataTransfer();
    for (const one of name) carried.items.add(new File([new Uint8Array(bytes)], one, { type: kind }));
    const said = { dataTransfer: carried, bubbles: true, cancelable: true };
    document.body.dispatchEvent(new DragEvent("dragenter", said));
    window.covered = !document.getElementById("drop-zones").hidden;
    window.only = document.getElementById("drop-zones").dataset.only;
    document.body.dispatchEvent(new DragEvent("drop", said));
}"""

SETTLED = """async () => {
    for (let n = 0; n < 2; n++) await new Promise(requestAnimationFrame);
    const finite = one => one.effect.getComputedTiming().endTime < Infinity;
    await Promise.allSettled(document.getAnimations().filter(finite).map(one => one.finished));
}"""


class Watched:
    """A page whose console errors, exceptions and refusals by the policy are kept."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.context = browser.new_context(**{"locale": "en-US", **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.url = url
        self.faults: list[str] = []
        self.page.on("console", lambda line: self._note(line.type, line.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.faults.append(text)

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.url + path)
        return self.page


def ids(page: Page) -> list[str]:
    """The pictures shown, in order."""
    found: list[str] = page.locator(".tile").evaluate_all("all => all.map(one => one.dataset.id)")
    return found


def first_is(page: Page, colour: str) -> None:
    """Wait until the nearest picture has this colour."""
    expect(page.locator(".tile").first).to_have_attribute("data-id", re.compile(f"^{colour}-"))


def settle(page: Page) -> None:
    """Wait for two frames, and for what fades or moves to end."""
    page.evaluate(SETTLED)


def choose(page: Page, name: str) -> None:
    """Choose an entry of the menu."""
    page.get_by_role("button", name=re.compile("^(Menu|菜单)$")).click()
    page.locator("#menu").get_by_text(name, exact=True).click()


def drop(page: Page, names: list[str], content: bytes, kind: str = "image/png") -> None:
    """Drop files on the page."""
    page.evaluate(DROP, [names, kind, list(content)])
