"""The collections on the page: chosen, made, described, dropped; every call speaks of the one that is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.app.web.test_access import faults
from tests.app.web.watched import Watched, choose, first_is, ids
from tests.support.pictures import picture
from tests.support.servers import RunningServer


@pytest.fixture(scope="module")
def two_collections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Blues in `default`, reds in `trips`, and one id that both have."""
    with RunningServer(tmp_path_factory.mktemp("parted") / "data") as server:
        server.http.post("/v1/collections", json={"name": "trips", "description": "by the sea"})
        for colour, place in (("blue", "default"), ("red", "trips")):
            for n in range(3):
                said: dict[str, Any] = {"id": f"{colour}-{n}", "caption": f"{colour} {n}", "collection": place}
                server.upload(picture(colour, seed=n), f"{colour}.png", **said)
            shared: dict[str, Any] = {"id": "same-0", "caption": f"of {place}", "collection": place}
            server.upload(picture(colour, seed=9), "same.png", **shared)
        texts = {"texts": [{"text": "a red thing"}], "collection": "trips"}
        assert server.http.post("/v1/texts", json=texts).status_code == 200
        yield server


@pytest.fixture
def collections_page(browser: Browser, two_collections: RunningServer) -> Iterator[Watched]:
    watched = Watched(browser, two_collections.url)
    yield watched
    watched.context.close()
    assert watched.faults == []


def dialog(page: Page) -> None:
    page.get_by_role("button", name="Switch collection").click()
    expect(page.get_by_role("dialog", name="Collections")).to_be_visible()


def test_the_switcher_is_always_in_sight_and_the_dialog_that_adds_names_the_collection(page_on_server: Watched) -> None:
    page = page_on_server.open()
    expect(page.locator("#collection-button")).to_have_text("default")
    page.get_by_role("button", name="Add pictures").click()
    page.get_by_role("dialog").get_by_role("button", name="default").click()
    shown = page.get_by_role("dialog", name="Collections")
    expect(shown.get_by_role("listitem")).to_have_count(1)
    expect(shown).to_contain_text("10 pictures · 3 texts")
    expect(shown.get_by_role("button", name="Delete default")).to_have_count(0)


def test_another_one_is_chosen_and_every_call_speaks_of_it(collections_page: Watched) -> None:
    page = collections_page.open("/?q=red")
    expect(page.locator(".tile")).to_have_count(4)
    dialog(page)
    page.get_by_role("button", name="trips 4 pictures · 1 text by the sea").click()
    expect(page).to_have_url(re.compile(r"\?collection=trips&q=red$"))  # the words are asked there, too
    first_is(page, "red")
    expect(page).to_have_title("red · trips · Sightline")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator(".tile[data-id=same-0]").click()
    expect(page.get_by_role("dialog").get_by_role("heading", level=2)).to_have_text("of trips")
    page.get_by_role("button", name="Suggest texts").click()
    expect(page.locator(".labels li").first).to_contain_text("a red thing")
    page.get_by_role("textbox", name="Caption").fill("of trips again")
    page.get_by_label("Add a tag").fill("new")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").locator(".tags")).to_contain_text("new")
    page.get_by_role("button", name="More like this").click()
    expect(page).to_have_url(re.compile(r"\?collection=trips&like=same-0$"))
    expect(page.locator(".tile")).to_have_count(3)
    choose(page, "Texts")
    page.locator("#home").click()
    expect(page).to_have_url(re.compile(r"\?collection=trips$"))
    page.get_by_role("link", name="Activity").click()
    expect(page.locator("#no-jobs")).to_be_visible()
    calls = [urlsplit(url) for url in asked if re.search(r"/v1/(images|search|texts|stats|jobs)", url)]
    assert len(calls) > 6
    assert [url.path for url in calls if parse_qs(url.query).get("collection") != ["trips"]] == []


def test_an_address_opens_the_collection_that_it_names_and_back_leaves_it(collections_page: Watched) -> None:
    page = collections_page.open("/")
    expect(page.locator("#collection-button")).to_have_text("default")
    page = collections_page.open("/?collection=trips&show=same-0")
    expect(page.get_by_role("dialog").get_by_role("heading", level=2)).to_contain_text("of trips")
    page.keyboard.press("Escape")
    expect(page.locator("#collection-button")).to_have_text("trips")
    assert "red-0" in ids(page)
    page.go_back()
    expect(page.locator("#collection-button")).to_have_text("default")
    expect(page.locator(".tile[data-id=blue-0]")).to_be_visible()
    page.locator("#box").fill(f"{collections_page.url}/?collection=trips&show=red-1")  # an address that was pasted
    expect(page).to_have_url(re.compile(r"\?collection=trips&like=red-1$"))
    expect(page.locator(".tile[data-id=red-0]")).to_be_visible()


def test_what_is_deleted_in_one_is_still_shown_in_the_other(
    collections_page: Watched, two_collections: RunningServer
) -> None:
    said: dict[str, Any] = {"id": "twin", "caption": "twin"}
    for place in ("default", "trips"):
        two_collections.upload(picture("green", seed=70), "twin.png", collection=place, **said)
    page = collections_page.open("/?collection=trips")
    page.locator(".tile[data-id=twin]").focus()
    page.keyboard.press("Delete")
    expect(page.locator(".tile[data-id=twin]")).to_have_count(0)
    dialog(page)
    with page.expect_request(lambda request: request.method == "DELETE") as asked:  # leaving makes it final
        page.get_by_role("button", name=re.compile("^default")).click()
    assert asked.value.url.endswith("/v1/images/twin?collection=trips")
    expect(page.locator(".tile[data-id=twin]")).to_be_visible()
    expect(page.locator("#toast")).to_be_hidden()
    expect(page.locator(".tile[data-id=twin] img")).to_have_js_property("naturalWidth", 64)  # else it would be a 404
    two_collections.http.delete("/v1/images/twin")


def test_one_is_made_filled_described_and_dropped(collections_page: Watched, two_collections: RunningServer) -> None:
    page = collections_page.open("/?q=red")  # a new collection does not take the words along
    dialog(page)
    page.get_by_role("button", name="Create collection").click()
    made = page.get_by_role("dialog", name="Collections")
    made.get_by_label("Name").fill("trips")
    made.get_by_role("textbox", name="Description").fill("海边 · by the sea")
    refused = page.expect_response(lambda response: response.status == 409)
    with refused:
        made.get_by_role("button", name="Create").click()
    expect(made.get_by_role("alert")).to_contain_text("there is a collection 'trips' already")
    collections_page.faults.clear()  # the browser's own line about the 409
    made.get_by_label("Name").fill("new-one")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\?collection=new-one$"))
    expect(page.get_by_role("heading", name="Add your pictures")).to_be_visible()
    expect(page.get_by_role("button", name="Try the demo gallery")).to_have_count(0)  # it is made for something else
    page.locator("#files").set_input_files(FilePayload(name="a.png", mimeType="image/png", buffer=picture("green")))
    expect(page.locator(".tile")).to_have_count(1, timeout=30_000)
    dialog(page)
    page.get_by_role("button", name="Edit description of new-one").click()
    page.get_by_role("textbox", name="Description").fill("what is new")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="new-one 1 picture what is new")).to_be_visible()
    page.get_by_role("button", name="Delete new-one").click()
    expect(made).to_contain_text("Delete “new-one” and everything in it (1 picture)? You cannot undo this.")
    expect(made.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Delete new-one")).to_be_focused()
    page.keyboard.press("Enter")
    made.get_by_role("button", name="Delete permanently").click()
    expect(page).to_have_url(f"{collections_page.url}/")
    expect(page.locator("#toast")).to_have_text("The collection “new-one” is deleted.")
    assert [one["name"] for one in two_collections.http.get("/v1/collections").json()["collections"]] == [
        "default",
        "trips",
    ]


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_nothing_serious_in_the_dialog(browser: Browser, two_collections: RunningServer, look: str) -> None:
    size = {"width": 360, "height": 740} if look == "phone" else {"width": 1280, "height": 720}
    scheme = "dark" if look == "dark" else "light"
    watched = Watched(browser, two_collections.url, bypass_csp=True, color_scheme=scheme, viewport=size)
    page = watched.open("/?collection=trips")
    expect(page.locator(".tile").first).to_be_visible(timeout=20_000)
    wide = """[...document.querySelectorAll("header *")].filter((one) => one.getBoundingClientRect().right > innerWidth)
        .map((one) => one.outerHTML)"""
    assert page.evaluate(wide) == []
    dialog(page)
    page.get_by_role("button", name="Create collection").click()
    page.get_by_role("button", name="Delete trips").click()
    expect(page.get_by_role("button", name="Delete permanently")).to_be_visible()
    assert faults(page) == []
    watched.context.close()
    assert watched.faults == []


def test_a_key_for_some_collections_sees_those_alone(browser: Browser, two_collections: RunningServer) -> None:
    """It is led to one of them without asking for any other. This test is the last: from then on keys are needed."""
    database = open_database(two_collections.data_dir / "sightline.db")
    _, key = ApiKeyService(database).create("guest", KeyScope.ADMIN, collections=["trips"])
    watched = Watched(browser, two_collections.url)
    page = watched.open()
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(page.locator(".tile[data-id=red-0]")).to_be_visible()
    expect(page).to_have_url(re.compile(r"\?collection=trips$"))
    dialog(page)
    shown = page.get_by_role("dialog", name="Collections")
    expect(shown.get_by_role("listitem")).to_have_count(1)
    expect(page.get_by_role("button", name="Edit description of trips")).to_be_visible()
    expect(page.get_by_role("button", name="Create collection")).to_be_hidden()  # it would be refused
    watched.context.close()
    database.close()
    assert watched.faults == []
