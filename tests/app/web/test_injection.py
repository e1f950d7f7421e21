"""Captions, names, tags, metadata and texts are text, never markup: a hundred ways to inject script run nothing."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from tests.app.web.payloads import PAYLOADS
from tests.app.web.watched import Watched, ids, settle
from tests.support.pictures import picture
from tests.support.servers import RunningServer

INTRUDERS = """() => document.querySelectorAll(`script:not([src="web/main.js"]), iframe, object, embed, base, frameset,
    style, link:not([href^="web/"]), meta[http-equiv], svg:not(header svg, .stage .lines), video, audio,
    [srcdoc], [onerror], [onload], [href^="javascript" i], [formaction], [action]`).length"""


@pytest.fixture(scope="module")
def injection_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, str]]:
    """A server whose captions, tags, metadata, names, texts and failures are all payloads, and the job's id."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        lines = []
        for n, payload in enumerate(PAYLOADS):
            name = f"{n} " + re.sub(r"[/\\\\\x00-\x1f]", "_", payload)[:80] + ".png"
            archive.writestr(name, picture("purple", seed=n))
            metadata = {payload: payload, "deep": [payload, {payload: payload}]}
            said = {"file": name, "id": f"bad-{n}", "caption": payload, "tags": [payload[:60]], "metadata": metadata}
            lines.append(json.dumps(said))
            archive.writestr("broken " + name, b"no picture")
        archive.writestr("metadata.jsonl", "\n".join(lines))
    with RunningServer(tmp_path_factory.mktemp("poisoned"), max_k=50) as server:  # the page would ask for 60
        job = server.wait_job(server.bulk([("<img src=x onerror=window.hacked=1>.zip", out.getvalue())])["id"])
        assert (job["done"], job["failed"]) == (len(PAYLOADS), len(PAYLOADS))
        texts = [{"id": f"t{n}", "text": payload} for n, payload in enumerate(PAYLOADS)]
        assert server.http.post("/v1/texts", json={"texts": texts}).status_code == 200
        yield server, job["id"]


@pytest.fixture
def page(browser: Browser, injection_server: tuple[RunningServer, str]) -> Iterator[Page]:
    """A page on it; at the end nothing has run, and the policy had nothing to refuse."""
    watched = Watched(browser, injection_server[0].url, viewport={"width": 1280, "height": 800})
    opened: list[str] = []

    def record_dialog(dialog: Dialog) -> None:
        opened.append(dialog.message)
        dialog.dismiss()

    watched.page.on("dialog", record_dialog)
    watched.context.on("page", lambda other: opened.append(other.url))
    page = watched.open()
    opened.clear()
    yield page
    assert page.evaluate("window.hacked") is None
    assert page.evaluate(INTRUDERS) == 0
    assert opened == []
    watched.context.close()
    assert [fault for fault in watched.faults if not fault.startswith("Failed to load resource")] == []


def test_there_are_a_hundred_payloads() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 100


def test_nothing_runs_in_the_grid_the_large_view_and_the_form(page: Page) -> None:
    expect(page.locator(".tile").first).to_be_visible()
    seen: set[str] = set()
    for _ in range(30):
        seen |= set(ids(page))
        page.mouse.wheel(0, 600)
        settle(page)
        if len(seen) == len(PAYLOADS):
            break
    assert len(seen) == len(PAYLOADS)
    page.evaluate("window.scrollTo(0, 0)")
    page.locator(".tile").first.click()
    dialog = page.get_by_role("dialog")
    for n in reversed(range(len(PAYLOADS))):
        expect(page).to_have_url(re.compile(f"show=bad-{n}$"))
        expect(dialog.locator("h2")).to_have_text(PAYLOADS[n], use_inner_text=False)
        expect(dialog.locator("section:last-of-type dd").first).to_have_text(PAYLOADS[n], use_inner_text=False)
        page.keyboard.press("ArrowRight")
    for _ in range(5):
        dialog.get_by_role("button", name="Suggest texts").click()
        dialog.locator(".labels li").first.get_by_role("button", name="Use as caption").click()
        expect(dialog.locator(".strip img").first).to_be_visible()
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+a")
    page.keyboard.press("Escape")


def test_nothing_runs_in_texts_failures_and_toasts(page: Page, injection_server: tuple[RunningServer, str]) -> None:
    server, job = injection_server
    page.goto(server.url + "/?q=purple&target=texts")
    expect(page.locator(".list .text")).to_have_count(50)
    # the page took the limit from the refusal
    expect(page.locator("#result-limit")).to_have_text("Showing the top 50. Refine your search to see others.")
    page.goto(server.url + "/?view=jobs")
    row = page.locator(f".job[data-id='{job}']")
    row.get_by_role("button", name="Show why").click()
    row.get_by_role("button", name="Show 95 more").click()
    expect(row.locator(".failures ul li")).to_have_count(100)
    page.goto(server.url)
    page.locator(".cell").first.hover()
    page.locator(".pick").first.click()
    page.get_by_role("toolbar").get_by_role("button", name="Tags").click()
    page.get_by_role("dialog").get_by_label("Tag", exact=True).fill(PAYLOADS[0])
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text(PAYLOADS[0])


def test_nothing_runs_out_of_an_address(page: Page, injection_server: tuple[RunningServer, str]) -> None:
    url = injection_server[0].url
    for payload in PAYLOADS[::7]:
        said = quote(payload, safe="")
        page.goto(f"{url}/?q={said}&target={said}&like={said}&weight={said}&view={said}")
        expect(page.locator(".tile, .message, #banner:not([hidden])").first).to_be_visible()
        assert page.evaluate("window.hacked") is None
        assert page.evaluate(INTRUDERS) == 0
