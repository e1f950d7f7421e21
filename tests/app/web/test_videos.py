"""Videos on the page: one tile for each among the hits, the player at the right second, its moments, deleting it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.app.web.watched import Watched
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until
from tests.support.videos import make_video

SCENES = (("red", 2.0), ("blue", 2.0), ("green", 2.0))


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with two videos and a picture."""
    with RunningServer(tmp_path_factory.mktemp("cinema")) as server:
        files = [("trip/clip.webm", make_video(SCENES, "webm", size=(320, 180))), ("b.png", picture("yellow"))]
        files.append(("gone.webm", make_video((("blue", 2.0), ("yellow", 2.0)), "webm", size=(160, 240))))
        job = server.wait_job(server.bulk(files)["id"])
        assert (job["done"], job["failed"]) == (6, 0)
        yield server


@pytest.fixture
def cinema_page(browser: Browser, cinema: RunningServer) -> Iterator[Watched]:
    watched = Watched(browser, cinema.url)
    yield watched
    watched.context.close()
    assert watched.faults == []


def test_a_hit_opens_its_video_at_the_second_and_its_moments(cinema_page: Watched) -> None:
    page = cinema_page.open("?q=green")
    tile = page.locator(".tile", has_text="clip.webm")
    expect(tile).to_have_count(1)
    expect(tile.locator(".moment")).to_have_text("▶ 3 moments")
    tile.click()
    video = page.locator(".stage video")
    page.wait_for_function("() => document.querySelector('.stage video')?.currentTime > 3.9")
    expect(page.locator(".stage > img")).to_be_hidden()
    moments = page.get_by_role("list", name="Moments of this video")
    expect(moments.locator(".moment")).to_have_text(["0:00", "0:02", "0:04"])
    expect(moments.locator("[aria-current]")).to_have_text("0:04")
    moments.locator("a").nth(1).click()
    page.wait_for_function("() => Math.abs(document.querySelector('.stage video').currentTime - 2.1) < 0.4")
    video.press("ArrowRight")  # belongs to the player
    expect(moments.locator("[aria-current]")).to_have_text("0:02")
    expect(page.locator("#detail").get_by_role("button", name=re.compile("^Delete"))).to_have_text(
        ["Delete moment", "Delete video"]
    )
    page.keyboard.press("Escape")
    expect(video).to_have_count(0)


def test_a_video_whose_file_is_missing_shows_the_frame(cinema_page: Watched) -> None:
    cinema_page.page.route(
        "**/v1/videos/*/file*", lambda route: route.fulfill(status=200, body="", content_type="video/webm")
    )
    page = cinema_page.open("?q=green")
    page.locator(".tile", has_text="clip.webm").click()
    expect(page.locator(".stage > img")).to_be_visible()
    expect(page.locator(".stage video")).to_have_count(0)


def test_deleting_a_video_takes_all_its_moments(cinema_page: Watched, cinema: RunningServer) -> None:
    cinema_page.page.clock.install()
    page = cinema_page.open()
    page.locator(".tile", has_text="gone.webm").click()
    page.get_by_role("button", name="Delete video").click()
    expect(page.locator(".tile", has_text="gone.webm")).to_have_count(0)
    expect(page.locator("#toast")).to_contain_text("2 pictures")
    page.clock.run_for(9_000)  # the time to undo it
    wait_until(lambda: len(cinema.http.get("/v1/videos").json()["videos"]) == 1, 20)
    assert not [one for one in cinema.http.get("/v1/images").json()["images"] if one["source"] == "gone.webm"]
