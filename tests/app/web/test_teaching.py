"""Heads on the page: learned from captions, shown with what they bring, used and not used by a click."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.app.web.watched import Watched
from tests.support.lessons import fill_data_dir, make_captions, make_vectors
from tests.support.servers import RunningServer

CAPTIONS = make_captions(130)
LINES = """all => all.map(one => {
    const text = document.createRange();
    text.selectNodeContents(one);
    return text.getClientRects().length;
})"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of pictures whose captions swap colours; `bare` has none."""
    folder = tmp_path_factory.mktemp("taught") / "data"
    fill_data_dir(folder, CAPTIONS, make_vectors(CAPTIONS))
    with RunningServer(folder, workers=0) as server:
        server.http.post("/v1/collections", json={"name": "bare"})
        yield server


@pytest.fixture
def page(browser: Browser, taught: RunningServer) -> Iterator[Page]:
    watched = Watched(browser, taught.url)
    yield watched.open()
    watched.context.close()


def open_teaching(page: Page) -> Locator:
    page.locator("#collection-button").click()
    page.locator("#teaching summary").click()
    return page.locator("#teaching")


def test_captions_are_learned_shown_used_and_not_used(page: Page, taught: RunningServer) -> None:
    shown = open_teaching(page)
    shown.get_by_role("button", name="Learn from the captions").click()
    expect(shown.get_by_role("table")).to_be_visible(timeout=60_000)
    expect(shown).to_contain_text("Learned, but searches do not use it.")
    expect(shown).to_contain_text(re.compile(r"Of 32 captions kept apart, [\d.]+ % found .* 95 % sure: [\d.]+ % to"))
    rows = [shown.get_by_role("row", name=re.compile(name)) for name in ("Captions, before", "Captions, after")]
    shares = [float((row.get_by_role("cell").last.text_content() or "").rstrip(" %")) for row in rows]
    assert shares[0] < shares[1]
    page.set_viewport_size({"width": 360, "height": 740})
    assert max(shown.locator("td").evaluate_all(LINES)) == 1
    page.set_viewport_size({"width": 1280, "height": 720})
    shown.get_by_role("button", name="Use it").press("Enter")
    expect(shown.get_by_role("status")).to_have_text("Searches use what was learned.")
    assert taught.http.get("/v1/collections/default").json()["head"] is not None
    page.keyboard.press("Escape")
    expect(open_teaching(page)).to_contain_text("Searches use what was learned.")
    shown.get_by_role("button", name="Stop using it").click()
    expect(shown.get_by_role("status")).to_have_text("Learned, but searches do not use it.")
    assert taught.http.get("/v1/collections/default").json()["head"] is None


def test_captions_that_teach_nothing_say_so_in_chinese(page: Page) -> None:
    page.evaluate("localStorage.setItem('sightline.language', 'zh')")
    page.locator("#collection-button").click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("^bare")).click()
    page.reload()
    shown = open_teaching(page)
    shown.get_by_role("button", name="学习图片说明").click()
    expect(shown.get_by_role("alert")).to_have_text("图库“bare”中没有带说明的图片。请为图片添加说明。", timeout=60_000)
    expect(shown.get_by_role("button", name="学习图片说明")).to_be_enabled()
