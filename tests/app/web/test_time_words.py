"""Words of time in the search box: the chip that says which days they mean, and takes them off."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.app.web.test_access import faults
from tests.app.web.watched import Watched, ids
from tests.support.pictures import picture
from tests.support.servers import RunningServer, set_taken_at


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("album")) as server:
        for n, colour in enumerate(("red", "blue", "green")):
            server.upload(picture(colour, seed=n), f"{colour}.png", id=colour, wait=20)
        set_taken_at(server, {"red": "2023-07-04T12:00:00.000", "blue": "2023-07-05T12:00:00.000"})
        yield server


@pytest.fixture
def page_on_album(browser: Browser, album: RunningServer) -> Iterator[Watched]:
    watched = Watched(browser, album.url)
    yield watched
    watched.context.close()
    assert watched.faults == []


def test_words_of_time_have_a_chip_that_takes_them_off(page_on_album: Watched) -> None:
    page = page_on_album.open()
    page.locator("#box").fill("red July 2023")
    chip = page.locator("#feedback button")
    expect(chip).to_have_text(re.compile(r"^Taken Jul 1\s–\s31, 2023 ×$"))
    expect(page.locator("#count")).to_have_text("Best matches for “red July 2023”")
    assert ids(page) == ["red", "blue"]
    assert faults(page) == []
    page.get_by_role("button", name=re.compile("^Taken .* Search for “July 2023” as words$")).click()
    expect(chip).to_have_count(0)
    expect(page).to_have_url(re.compile("time=off$"))
    expect(page.locator(".tile")).to_have_count(3)
    page.reload()
    expect(page.locator(".tile")).to_have_count(3)
    page.locator("#box").fill("2023 -red")  # other words: the choice is forgotten
    expect(chip).to_have_text(re.compile("^Taken Jan 1 –"))
    assert ids(page) == ["blue", "red"]


def test_words_of_time_alone_list_the_pictures(page_on_album: Watched) -> None:
    page = page_on_album.open("/?q=July+2023")
    expect(page.locator("#count")).to_have_text("Pictures of the time “July 2023”")
    assert ids(page) == ["blue", "red"]
    page.locator("#box").fill("before 2020")
    expect(page.locator("#results h2")).to_have_text("No picture taken until Dec 31, 2019")
    expect(page.locator("#feedback button")).to_have_text("Taken until Dec 31, 2019 ×")
    page.locator("#results").get_by_role("button", name="Search for “before 2020” as words").click()
    expect(page.locator(".tile")).to_have_count(3)
    expect(page.locator("#feedback")).to_be_hidden()
