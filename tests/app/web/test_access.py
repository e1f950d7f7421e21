"""What axe-core, the checker of the accessibility rules, finds in each state of the page: nothing serious.

axe-core stands in `axe/` with its licence (Mozilla Public License 2.0); it is used here and shipped nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.app.web.watched import Watched, choose, settle
from tests.support.servers import RunningServer

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text("utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def faults(page: Page) -> list[str]:
    """What is serious or worse, as `rule: where`."""
    if not page.evaluate("window.axe !== undefined"):
        page.evaluate(AXE)
    settle(page)
    options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    found: dict[str, Any] = page.evaluate("options => axe.run(document, options)", options)
    assert found["testEngine"]["name"] == "axe-core"
    return [
        f"{one['id']} ({one['impact']}): {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
        if one["impact"] in ("moderate", "serious", "critical")
    ]


@pytest.fixture(params=["light", "dark", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, page_server: RunningServer) -> Iterator[Page]:
    """axe is no part of the page, so this context is without the page's policy."""
    options: dict[str, Any] = {"bypass_csp": True, "color_scheme": "dark" if request.param == "dark" else "light"}
    if request.param == "phone":
        options["viewport"] = {"width": 360, "height": 740}
    watched = Watched(browser, page_server.url, **options)
    yield watched.page
    watched.context.close()


@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_axe_finds_what_is_wrong(page: Page, page_server: RunningServer) -> None:
    page.goto(page_server.url)
    page.evaluate("document.body.append(document.createElement('img'))")
    page.evaluate("document.body.lastChild.src = 'web/icon.svg'")
    assert any(fault.startswith("image-alt") for fault in faults(page))


def test_nothing_serious_in_the_results(page: Page, page_server: RunningServer) -> None:
    page.goto(page_server.url + "/?q=red+-blue&like=green-9")
    expect(page.locator(".tile").first).to_be_visible()
    assert faults(page) == []
    page.locator("#select").click()
    page.locator(".tile").first.click()
    page.locator(".tile").nth(1).click()
    expect(page.locator("#selection")).to_be_visible()
    assert faults(page) == []
    page.goto(page_server.url + "/?q=red&target=texts")
    expect(page.locator(".list li").first).to_be_visible()
    assert faults(page) == []
    page.goto(page_server.url + "/?target=texts")
    page.get_by_text("Add texts").first.click()
    expect(page.get_by_role("textbox", name="One text per line")).to_be_visible()
    assert faults(page) == []


def test_nothing_serious_in_the_large_view_and_its_form(page: Page, page_server: RunningServer) -> None:
    page.goto(page_server.url + "/?q=red&show=red-1")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Suggest texts").click()
    expect(dialog.locator(".labels li").first).to_be_visible()
    expect(dialog.locator(".strip img").first).to_be_visible()
    assert faults(page) == []
    dialog.get_by_role("textbox", name="Caption").focus()
    assert faults(page) == []
    page.keyboard.press("Control+Enter")
    dialog.get_by_role("button", name="Enlarge").click()
    assert faults(page) == []
    page.keyboard.press("Delete")
    expect(dialog.get_by_role("button", name="Undo")).to_be_visible()
    assert faults(page) == []
    page.keyboard.press("Control+z")
    expect(dialog.get_by_role("button", name="Undo")).to_be_hidden()


def test_nothing_serious_in_the_dialogs_and_in_trouble(page: Page, page_server: RunningServer) -> None:
    page.goto(page_server.url)
    expect(page.locator(".tile").first).to_be_visible()
    choose(page, "Help")
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Add pictures").click()
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.locator("#box").fill("x" * 1001)
    page.goto(page_server.url + "/?q=" + "x" * 1001)
    expect(page.locator("#banner")).to_be_visible()
    assert faults(page) == []


def test_nothing_serious_in_jobs_and_uploads(browser: Browser, empty: RunningServer) -> None:
    empty.wait_job(empty.bulk([("bad.png", b"no picture")])["id"])
    for scheme in ("light", "dark"):
        watched = Watched(browser, empty.url, bypass_csp=True, color_scheme=scheme)
        page = watched.open("/?view=jobs")
        page.get_by_role("button", name="Show why").first.click()
        expect(page.locator(".failures li").first).to_be_visible()
        page.locator("#files").set_input_files(
            [FilePayload(name=f"{n}.png", mimeType="image/png", buffer=b"no picture") for n in range(2)]
        )
        expect(page.locator(".upload > p")).to_contain_text("2 failed", timeout=60_000)
        assert faults(page) == []
        watched.context.close()
