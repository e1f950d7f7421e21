"""Why a picture was found: in its detail, and on a hit while a key is held; and three things to try."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.web.test_access import faults
from tests.app.web.watched import Watched
from tests.support.pictures import draw_two
from tests.support.servers import RunningServer

HEAT = re.compile(r"/explain\?q=")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("why") / "data") as one:
        assert one.upload(draw_two(), "two.png", id="two").status_code == 200
        yield one


@pytest.fixture
def page(browser: Browser, server: RunningServer) -> Iterator[Page]:
    watched = Watched(browser, server.url)
    yield watched.open()
    watched.context.close()
    assert watched.faults == []


def test_detail_shows_what_met_the_words(page: Page, server: RunningServer) -> None:
    page.goto(f"{server.url}/?q=red%20sofa&show=two")
    why = page.locator("#detail").get_by_role("button", name="Why?")
    expect(why).to_have_attribute("aria-pressed", "false")
    why.click()
    expect(page.locator(".why")).to_contain_text("“red sofa”")
    expect(page.locator(".why")).to_contain_text(re.compile(r"It is \d+ % from the left and \d+ % from the top"))
    expect(page.locator(".why-words li")).to_have_text([re.compile("^red *(9[0-9]|100) %$")])
    expect(page.locator(".stage > img")).to_have_attribute("src", HEAT)
    assert faults(page) == []
    why.click()
    expect(page.locator(".why")).to_be_hidden()
    expect(page.locator(".stage > img")).to_have_attribute("src", re.compile("/thumbnail"))


def test_detail_says_that_the_model_does_not_know(page: Page, server: RunningServer) -> None:
    page.goto(f"{server.url}/?q=xylophone&show=two")
    page.locator("[data-action=close]").wait_for()
    page.keyboard.press("w")
    expect(page.locator(".why")).to_contain_text("does not know which part of the picture matches “xylophone”")
    expect(page.locator(".stage > img")).to_have_attribute("src", re.compile("/thumbnail"))


def test_hit_shows_it_while_the_key_is_held(page: Page, server: RunningServer) -> None:
    page.goto(f"{server.url}/?q=red")
    tile = page.locator(".tile").first
    tile.focus()
    page.keyboard.down("w")
    expect(tile.locator("img")).to_have_attribute("src", HEAT)
    page.keyboard.up("w")
    expect(tile.locator("img")).to_have_attribute("src", re.compile("/thumbnail"))


def test_without_words_there_is_nothing_to_explain(page: Page, server: RunningServer) -> None:
    page.goto(f"{server.url}/?show=two")
    expect(page.locator("#detail").get_by_role("button", name="More like this")).to_be_visible()
    expect(page.locator("#detail").get_by_role("button", name="Why?")).to_have_count(0)


def test_newcomer_is_shown_three_things_to_try(page: Page, server: RunningServer) -> None:
    expect(page.locator("#steps li")).to_have_count(3)
    assert faults(page) == []
    page.goto(f"{server.url}/?q=red")
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator("#steps")).to_be_hidden()
    page.goto(server.url)
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator("#steps")).to_be_hidden()  # the person has searched


def test_three_things_are_closed_for_good(page: Page, server: RunningServer) -> None:
    page.get_by_role("button", name="Close: three things to try").click()
    expect(page.locator("#steps")).to_be_hidden()
    page.reload()
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator("#steps")).to_be_hidden()
