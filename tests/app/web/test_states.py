"""The page when it is empty, or its server is in trouble."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect

from tests.app.web.watched import Watched, choose, drop, first_is, settle
from tests.support.pictures import picture
from tests.support.servers import RunningServer


def test_an_empty_server_says_how_to_begin_and_loads_the_demo_gallery_by_one_click(
    browser: Browser, tmp_path: Path
) -> None:
    with RunningServer(tmp_path / "data") as server:
        watched = Watched(browser, server.url)
        page = watched.open()
        expect(page.locator(".message")).to_contain_text("Add your pictures")
        expect(page.locator(".message")).to_contain_text("sightline ingest")
        with page.expect_file_chooser():
            page.get_by_role("button", name="Choose pictures").first.click()
        page.locator("#box").fill("red")
        expect(page).to_have_url(re.compile("q=red"))
        expect(page.locator(".message")).to_contain_text("Add your pictures")
        with page.expect_response(re.compile(r"/v1/images\?")):
            page.locator("#box").fill("")
        settle(page)
        drop(page, ["only.png"], b"no picture")  # added, because there is nothing to search
        assert page.evaluate("window.only") == "add"
        expect(page.locator(".upload > p")).to_have_text("0 added · 1 failed", timeout=60_000)
        page.locator(".upload").get_by_role("button", name="Close").click()
        choose(page, "Texts")
        expect(page.locator(".message")).to_contain_text("No texts yet")
        expect(page.locator(".message")).not_to_contain_text("drop")
        page.get_by_label("One text per line").fill("a red thing")
        page.get_by_role("button", name="Add texts").click()
        expect(page.locator(".message")).to_contain_text("drop a picture to find the texts")
        page.get_by_role("link", name="Pictures").click()
        missing = {"code": "not_found", "detail": "is not installed"}
        page.route("**/v1/demo", lambda route: route.fulfill(status=404, json=missing), times=1)
        page.get_by_role("button", name="Try the demo gallery").click()
        expect(page.locator("#banner")).to_contain_text("Something went wrong: is not installed")
        page.get_by_role("button", name="Try the demo gallery").click()
        expect(page.locator(".upload")).to_contain_text("Demo gallery")
        under_way = re.compile(r"[1-9]\d* of 1,9\d\d processed|1,9\d\d added")
        expect(page.locator(".upload")).to_contain_text(under_way, timeout=60_000)
        expect(page.locator(".tile").first).to_be_visible(timeout=60_000)
        watched.context.close()


def test_a_server_that_is_away_is_told_and_the_search_goes_on_when_it_is_back(
    browser: Browser, page_server: RunningServer
) -> None:
    watched = Watched(browser, page_server.url)
    page = watched.open()
    expect(page.locator(".tile")).to_have_count(10)
    watched.context.set_offline(True)
    page.locator("#box").fill("blue")
    expect(page.locator("#banner")).to_contain_text("The server does not answer")
    expect(page.locator(".tile")).to_have_count(10)
    watched.context.set_offline(False)
    first_is(page, "blue")
    expect(page.locator("#banner")).to_be_hidden()
    watched.context.close()


def test_a_model_that_is_loading_is_told_and_the_search_begins_by_itself(
    browser: Browser, page_server: RunningServer
) -> None:
    watched = Watched(browser, page_server.url)
    page = watched.page
    problem = {"code": "model_unavailable", "detail": "the model x is still loading"}
    page.route("**/v1/search*", lambda route: route.fulfill(status=503, json=problem))
    page.route("**/v1/models", lambda route: route.fulfill(json={"models": [], "loaded": None}))
    page.clock.install()
    watched.open("/?q=red")
    expect(page.locator("#banner")).to_have_text("The model is still loading. The search starts when it is ready.")
    for _ in range(2):
        with page.expect_response("**/v1/models"):
            page.clock.run_for(3_000)
    assert len(watched.faults) == 1  # of the search: the waiting itself leaves none in the console
    page.unroute("**/v1/models")
    expect(page.locator("#banner")).to_have_text(
        f"The server refused the request: {problem['detail']}"
    )  # it is there, and yet
    page.unroute_all()
    page.clock.run_for(3_000)
    first_is(page, "red")
    expect(page.locator("#banner")).to_be_hidden()
    watched.context.close()


def test_a_busy_server_is_asked_again(browser: Browser, page_server: RunningServer) -> None:
    watched = Watched(browser, page_server.url)
    page = watched.page
    busy = {"code": "overloaded", "detail": "too many requests"}
    answer: dict[str, Any] = {"status": 503, "headers": {"Retry-After": "1"}, "json": busy}
    page.route("**/v1/search*", lambda route: route.fulfill(**answer), times=1)
    watched.open("/?q=red")
    expect(page.locator("#banner")).to_contain_text("busy")
    first_is(page, "red")
    watched.context.close()


def test_a_file_that_is_no_picture_is_refused_in_the_servers_words(
    browser: Browser, page_server: RunningServer
) -> None:
    watched = Watched(browser, page_server.url)
    page = watched.open()
    drop(page, ["mine.jpg"], b"no picture at all", "image/jpeg")
    expect(page.locator("#banner")).to_contain_text("not a picture of a known format")
    expect(page.locator(".tile")).to_have_count(0)
    expect(page.locator("#chip .broken")).to_be_visible()  # and not the browser's own broken image
    expect(page.locator("#chip img")).to_have_count(0)
    expect(page.locator("#unshared")).to_be_hidden()
    expect(page.locator("#select")).to_be_hidden()
    watched.context.close()


def test_a_query_too_long_is_refused_in_the_servers_words(browser: Browser, page_server: RunningServer) -> None:
    watched = Watched(browser, page_server.url)
    page = watched.open("/?q=" + "a" * 1001)
    expect(page.locator("#banner")).to_contain_text("1000 characters")
    watched.context.close()


def test_an_unknown_picture_in_the_address_is_told(browser: Browser, page_server: RunningServer) -> None:
    watched = Watched(browser, page_server.url)
    page = watched.open("/?show=nobody")
    expect(page.locator("#banner")).to_have_text("This picture was deleted or the link is wrong.")
    expect(page.locator(".tile")).to_have_count(10)
    expect(page).to_have_url(page_server.url + "/")
    watched.context.close()


def test_files_that_could_not_be_read_are_no_tiles_but_a_line_with_their_reasons(
    browser: Browser, tmp_path: Path
) -> None:
    with RunningServer(tmp_path / "data") as server:
        assert server.upload(picture("red", seed=1), "good.png").status_code == 200
        server.upload(picture("red", seed=2)[:-40], "pics/cut.png")
        watched = Watched(browser, server.url)
        page = watched.open()
        expect(page.locator(".tile")).to_have_count(1)
        expect(page.locator("#count")).to_have_text("1 picture")
        page.get_by_text("1 file could not be read").click()
        expect(page.locator("#unreadable li")).to_have_text("cut.png the picture is cut off or damaged")
        page.get_by_role("link", name="cut.png").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Delete it, or add an undamaged copy of the file.")
        dialog.get_by_role("button", name="Delete").click()
        expect(dialog).to_be_hidden()
        expect(page.locator("#unreadable")).to_be_hidden()
        page.get_by_role("button", name="Undo").click()
        expect(page.locator("#unreadable")).to_be_visible()
        watched.context.close()
        assert watched.faults == []
