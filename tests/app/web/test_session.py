"""The page of a server that wants a key: it asks, signs in, keeps nothing that a script could read, and signs out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, FilePayload, expect

from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.app.web.test_access import faults
from tests.app.web.watched import Watched, choose
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until


@dataclass
class Locked:
    """A server with two pictures, whose keys this process makes and revokes."""

    server: RunningServer
    access: ApiKeyService


@pytest.fixture(scope="module")
def locked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    data = tmp_path_factory.mktemp("locked") / "data"
    with RunningServer(data) as server:
        for colour in ("red", "blue"):
            server.upload(picture(colour), f"{colour}.png", id=colour)
        database = open_database(data / "sightline.db")
        access = ApiKeyService(database)
        access.create("first", KeyScope.ADMIN)
        yield Locked(server, access)
        database.close()


def test_the_page_asks_for_a_key_and_keeps_it_where_no_script_can_read_it(
    browser: Browser, locked_server: Locked
) -> None:
    _, key = locked_server.access.create("reader", KeyScope.SEARCH)
    watched = Watched(browser, locked_server.server.url)
    page = watched.page
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    watched.open("/?q=red")
    dialog = page.get_by_role("dialog", name="This server needs a key")
    expect(dialog).to_be_visible()
    expect(page.get_by_label("API key")).to_be_focused()
    assert watched.faults == []  # it looked before it asked
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    page.get_by_label("API key").fill("sl_000000000000_wrong")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("This key is unknown, revoked or expired.")
    page.keyboard.type(key)  # the wrong one is selected
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator(".tile").first).to_have_attribute("data-id", "red")
    loaded = "[...document.querySelectorAll('.tile img')].every(one => one.complete && one.naturalWidth > 0)"
    wait_until(lambda: page.evaluate(loaded), 30)  # `wait_for_function` polls by eval, which the page's policy forbids
    assert key.split("_", 2)[2] not in str(
        page.evaluate("JSON.stringify([document.cookie, localStorage, sessionStorage, document.body.outerHTML])")
    )
    assert page.get_by_label("API key").input_value() == ""
    assert not [url for url in sent if "sl_" in url]
    (cookie,) = watched.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.reload()
    expect(page.locator(".tile").first).to_have_attribute("data-id", "red")
    expect(dialog).to_be_hidden()
    choose(page, "Help")
    expect(page.get_by_text("Signed in with the key “reader” (search).")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(dialog).to_be_visible()
    assert watched.context.cookies() == []
    assert key.split("_", 2)[2] not in locked_server.server.output()
    watched.context.close()


def test_a_key_that_is_revoked_is_asked_for_again_and_the_page_goes_on(browser: Browser, locked_server: Locked) -> None:
    short, key = locked_server.access.create("short", KeyScope.WRITE)
    _, other = locked_server.access.create("other", KeyScope.WRITE)
    watched = Watched(browser, locked_server.server.url)
    page = watched.open()
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".tile")).to_have_count(2)
    locked_server.access.revoke(short.id)
    page.locator("#files").set_input_files(FilePayload(name="a.png", mimeType="image/png", buffer=picture("green")))
    dialog = page.get_by_role("dialog", name="This server needs a key")
    expect(dialog).to_be_visible()
    page.get_by_label("API key").fill(other)
    page.keyboard.press("Enter")
    expect(page.locator(".upload > p")).to_contain_text("1 added", timeout=60_000)
    expect(page.locator(".tile")).to_have_count(3)
    watched.context.close()


def test_what_the_key_does_not_allow_is_said(browser: Browser, locked_server: Locked) -> None:
    _, key = locked_server.access.create("reader", KeyScope.SEARCH)
    watched = Watched(browser, locked_server.server.url)
    page = watched.open("/?target=texts")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    page.get_by_label("One text per line").fill("a red thing")
    page.get_by_role("button", name="Add texts").click()
    expect(page.get_by_role("alert").filter(has_text="this call needs a key of scope write")).to_be_visible()
    watched.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_in_the_dialog(browser: Browser, locked_server: Locked, scheme: str) -> None:
    watched = Watched(browser, locked_server.server.url, bypass_csp=True, color_scheme=scheme)
    page = watched.open()
    page.get_by_label("API key").fill("sl_000000000000_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="This key is unknown")).to_be_visible()
    assert faults(page) == []
    watched.context.close()
