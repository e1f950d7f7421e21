"""Adding what the server gets by itself: by addresses and from its folders, where its operator allows them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.web.test_access import faults
from tests.app.web.watched import Watched
from tests.support.pictures import picture
from tests.support.servers import RunningServer
from tests.support.web_servers import WebServer, content


@pytest.fixture
def page(browser: Browser, empty: RunningServer) -> Iterator[Page]:
    watched = Watched(browser, empty.url, bypass_csp=True)
    yield watched.open()
    watched.context.close()


def open_add_dialog(page: Page, what: str) -> None:
    page.get_by_role("button", name="Add pictures").click()
    page.get_by_role("button", name=what).click()


def test_where_nothing_is_allowed_nothing_is_offered(page_on_server: Watched) -> None:
    page = page_on_server.open()
    with page.expect_response("**/v1/sources"):
        page.get_by_role("button", name="Add pictures").click()
    expect(page.locator("#add-files")).to_be_visible()
    expect(page.locator("#add-urls")).to_be_hidden()
    expect(page.locator("#add-server")).to_be_hidden()


def test_pictures_are_fetched_by_their_addresses(page: Page, empty: RunningServer) -> None:
    web = WebServer()
    web.pages["/a.png"] = content(picture("blue", seed=801))
    web.pages["/b.png"] = content(picture("blue", seed=802))
    open_add_dialog(page, "Web addresses")
    field = page.get_by_label("Web addresses of pictures, one per line")
    expect(field).to_be_focused()
    assert faults(page) == []
    field.fill(
        f'{web.url}/a.png\n\n{{"url": "{web.url}/b.png", "id": "by-line", "caption": "said"}}\n{web.url}/none.png'
    )
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    card = page.locator(".upload")
    expect(card.locator("strong")).to_have_text("3 web addresses")
    expect(card.locator("> p")).to_contain_text("2 added · 1 failed", timeout=30_000)
    expect(card.locator(".failures ul li")).to_contain_text(f"{web.url}/none.png")
    assert empty.http.get("/v1/images/by-line").json()["caption"] == "said"
    page.get_by_role("link", name="Activity").click()
    expect(page.locator(".job .name").first).to_have_text("3 web addresses")
    web.close()


def test_what_is_no_address_is_refused_with_its_line(page: Page) -> None:
    open_add_dialog(page, "Web addresses")
    page.get_by_label("Web addresses of pictures, one per line").fill("{not json")
    page.get_by_role("button", name="Import", exact=True).click()
    alert = page.get_by_role("dialog").get_by_role("alert")
    expect(alert).to_have_text("line 1 is not JSON")
    expect(page.get_by_label("Web addresses of pictures, one per line")).to_have_value("{not json")


def test_a_folder_of_the_server_is_taken_in(page: Page, empty: RunningServer) -> None:
    album = empty.data_dir.parent / "albums" / "sea"
    album.mkdir()
    (album / "wave.png").write_bytes(picture("blue", seed=803))
    open_add_dialog(page, "A folder on the server")
    field = page.get_by_label("Folder on the server's machine")
    expect(field).to_have_value(str(empty.data_dir.parent / "albums"))
    field.fill("/etc")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("the server may not read this folder")
    field.fill(str(album))
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.locator(".upload > p")).to_contain_text("1 added", timeout=30_000)
    expect(page.locator(".tile img").first).to_have_attribute("alt", re.compile("wave"))
