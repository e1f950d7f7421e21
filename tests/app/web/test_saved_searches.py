"""Auto-tags and saved searches on the page: marked, rejected, kept, counted, opened again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.web.watched import Watched, ids
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until

LABELS = {"labels": [{"label": "red"}, {"label": "blue"}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two reds and a blue, with auto-tags."""
    with RunningServer(tmp_path_factory.mktemp("saved") / "data") as one:
        one.http.put("/v1/collections/default/labels", json=LABELS)
        for n, colour in enumerate(("red", "red", "blue")):
            assert one.upload(picture(colour, seed=n), f"{n}.png", id=f"{colour}-{n}").status_code == 200

        def is_tagged() -> bool:
            return all(image["auto_tags"] for image in one.http.get("/v1/images").json()["images"])

        wait_until(is_tagged, 20.0, one.output)
        yield one


@pytest.fixture
def page(browser: Browser, server: RunningServer) -> Iterator[Page]:
    watched = Watched(browser, server.url)
    yield watched.open()
    watched.context.close()
    assert watched.faults == []


def open_saved(page: Page) -> Any:
    page.locator("#menu-button").click()
    page.locator("#saved-button").click()
    return page.locator("#saved-dialog")


def test_an_auto_tag_is_marked_leads_to_its_pictures_and_is_rejected(page: Page, server: RunningServer) -> None:
    page.goto(f"{server.url}/?show=red-0")
    chip = page.locator("#detail .tags .auto")
    expect(chip.locator("a")).to_have_text("red")
    expect(chip.locator("a")).to_have_attribute("title", re.compile(r"red, tagged automatically \(\d+ %\)"))
    chip.get_by_role("button", name="red is wrong").click()
    expect(chip).to_have_count(0)
    assert server.http.get("/v1/images/red-0").json()["rejected_tags"] == ["red"]
    page.goto(f"{server.url}/?show=red-1")
    page.locator("#detail .tags .auto a").click()
    expect(page.locator("#filters")).to_contain_text("auto-tag: red")
    expect(page.locator(".tile")).to_have_count(1)
    assert ids(page) == ["red-1"]


def test_a_search_is_saved_counts_and_is_opened_again(page: Page, server: RunningServer) -> None:
    dialog = open_saved(page)
    expect(dialog.locator("#saved-none")).to_be_visible()
    expect(dialog.locator("form")).to_have_count(0)  # a list is no search
    page.goto(f"{server.url}/?q=red&format=png")
    expect(page.locator(".tile")).to_have_count(3)
    dialog = open_saved(page)
    dialog.get_by_label("Least score").fill("0.8")
    dialog.get_by_label("Save this search as").fill("Red things")
    dialog.get_by_role("button", name="Save the search").click()
    item = dialog.locator("#saved-list li")
    expect(item.locator("a")).to_be_focused()
    (saved,) = server.http.get("/v1/saved-searches").json()["saved_searches"]
    wanted = {"must": [{"key": "format", "match": {"value": "png"}}]}
    assert (saved["query"]["query"], saved["query"]["filter"]) == ([{"text": "red"}], wanted)
    assert server.upload(picture("red", seed=9), "9.png", id="red-9").status_code == 200
    wait_until(lambda: server.http.get(f"/v1/saved-searches/{saved['id']}").json()["new"] == 1, 20.0)
    page.goto(server.url)
    dialog = open_saved(page)
    expect(item).to_contain_text("3 pictures · 1 new")
    item.locator("a").click()
    expect(page.locator("#box")).to_have_value("red")
    expect(page.locator("#filters")).to_contain_text("format: png")
    wait_until(lambda: server.http.get(f"/v1/saved-searches/{saved['id']}").json()["new"] == 0, 20.0)
    dialog = open_saved(page)
    dialog.get_by_role("button", name="Delete the saved search Red things").click()
    expect(item).to_have_count(0)


def test_a_search_by_pictures_is_saved_from_its_tenth_hit_on(page: Page, server: RunningServer) -> None:
    page.goto(f"{server.url}/?like=blue-2")
    expect(page.locator(".tile").first).to_be_visible()
    dialog = open_saved(page)
    expect(dialog.get_by_label("Least score")).to_have_value(re.compile(r"-?\d\.\d\d"))
    dialog.get_by_label("Save this search as").fill("Blue")
    dialog.get_by_role("button", name="Save the search").click()
    link = dialog.locator("#saved-list a")
    expect(link).to_have_attribute("href", re.compile("like=blue-2"))
