"""How good the search is, on the page: measured on captions, shown with the worst misses, in both languages."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.app.web.watched import Watched
from tests.support.pictures import COLOURS, picture
from tests.support.servers import RunningServer


@pytest.fixture(scope="module")
def captioned_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A picture of each colour, with captions, of which two are each other's; `bare` has none."""
    wrong = {"red": "blue", "blue": "red"}
    with RunningServer(tmp_path_factory.mktemp("captioned") / "data") as server:
        server.http.post("/v1/collections", json={"name": "bare"})
        for colour in COLOURS:
            caption = f"a {wrong.get(colour, colour)} <b>thing</b>"
            assert server.upload(picture(colour), f"{colour}.png", id=colour, caption=caption).status_code == 200
        server.upload(picture("red", seed=2), "bare.png", collection="bare")
        yield server


@pytest.fixture
def page(browser: Browser, captioned_server: RunningServer) -> Iterator[Page]:
    watched = Watched(browser, captioned_server.url)
    yield watched.open()
    watched.context.close()
    assert watched.faults == []


def open_measure(page: Page) -> Locator:
    page.locator("#collection-button").click()
    page.locator("#evaluation summary").click()
    return page.locator("#evaluation")


def test_captions_are_measured_on_a_click_and_stay_shown(page: Page) -> None:
    shown = open_measure(page)
    shown.get_by_role("button", name="Measure with the captions").click()
    expect(shown.get_by_role("table")).to_be_visible(timeout=60_000)
    expect(shown).to_contain_text("100 % of the captions find their picture among the first 10.")
    expect(shown).to_contain_text("7 pictures with captions, colours")
    row = shown.get_by_role("row", name=re.compile("Captions that find their picture"))
    expect(row.get_by_role("cell").first).to_have_text("71.4 %")
    expect(shown.get_by_role("listitem").first).to_contain_text("<b>thing</b>")
    expect(shown.locator(".misses img").first).to_have_attribute("alt", re.compile("red|blue"))
    page.keyboard.press("Escape")
    expect(open_measure(page).get_by_role("table")).to_be_visible()
    expect(shown.get_by_role("button", name="Measure again")).to_be_visible()


def test_a_collection_without_captions_says_so_in_chinese(page: Page) -> None:
    page.locator("#collection-button").click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("^bare")).click()
    page.evaluate("localStorage.setItem('sightline.language', 'zh')")
    page.reload()
    shown = open_measure(page)
    shown.get_by_role("button", name="用图片说明测量").click()
    expect(shown.get_by_role("alert")).to_have_text("图库“bare”中没有带说明的图片。请为图片添加说明。", timeout=60_000)
