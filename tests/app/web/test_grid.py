"""The grid of many pictures: scrolling, keys, places that never jump, and Back to the same place."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, Page, Route, expect

from tests.app.web.watched import Watched, first_is, ids, settle
from tests.support.servers import RunningServer

SHIFTS = """() => new Promise(resolve => {
    const moved = [];
    const named = node => node?.id || node?.className || node?.nodeName;
    new PerformanceObserver(list => { for (const one of list.getEntries()) if (!one.hadRecentInput)
        moved.push([one.value, ...one.sources.map(source => named(source.node))]) })
        .observe({ type: "layout-shift", buffered: true });
    setTimeout(() => resolve(moved), 100);
})"""


def focused_id(page: Page) -> str:
    found: str = page.evaluate("document.activeElement.dataset.id ?? document.activeElement.id")
    return found


def has_all(page: Page) -> bool:
    """Whether every picture of the list is loaded, by the tooltip of its count."""
    return bool(re.match(r"Showing (\d+) of \1\b", page.locator("#count").get_attribute("title") or ""))


def scroll_to_end(page: Page) -> None:
    for _ in range(1_000):
        page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
        settle(page)
        if has_all(page):
            return
    raise AssertionError("the end was not reached")


def test_scrolling_shows_each_picture_once_in_order_while_few_are_in_the_document(large_page: Watched) -> None:
    page = large_page.open()
    expect(page.locator("#count")).to_have_text("400 pictures")  # although some of them are loaded
    assert not has_all(page)
    seen: list[str] = []
    most = 0
    for _ in range(1_000):
        now = page.evaluate(
            "[...document.querySelectorAll('.cell')].map(one => [one.ariaPosInSet, one.querySelector('a').dataset.id])"
        )
        assert [int(n) for n, _ in now] == sorted(int(n) for n, _ in now)
        most = max(most, len(now))
        seen += [id for _, id in now if id not in seen]
        if page.evaluate("scrollY + innerHeight >= document.documentElement.scrollHeight - 2") and len(seen) >= 400:
            break
        page.mouse.wheel(0, 450)
        settle(page)
    assert sorted(seen) == sorted(set(seen))
    assert len(seen) == 400
    listed = large_page.page.request.get(large_page.url + "/v1/images?limit=1000").json()["images"]
    assert seen == [image["id"] for image in listed]
    assert most < 120


def test_a_search_is_scrolled_to_its_end_too(large_page: Watched) -> None:
    page = large_page.open("/?q=red")
    first_is(page, "red")
    scroll_to_end(page)
    expect(page.locator("#count")).to_have_text("Best matches for “red”")
    expect(page.locator("#count")).to_have_attribute("title", re.compile("^Showing 400 of 400 · "))


def test_nothing_shifts_while_the_page_loads_searches_and_scrolls(
    browser: Browser, large_server: RunningServer
) -> None:
    for width in (360, 1280):
        watched = Watched(browser, large_server.url, viewport={"width": width, "height": 740})
        page = watched.open()
        expect(page.locator(".tile").first).to_be_visible()
        scroll_to_end(page)
        assert page.evaluate(SHIFTS) == []
        watched.open("/?q=red+-blue&like=green-2")
        expect(page.locator("#count")).to_have_text("Similar to “green 2”, with “red”, excluding “blue”")
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(300)
        assert page.evaluate(SHIFTS) == []
        watched.context.close()
        assert watched.faults == []


def test_back_comes_to_the_same_place(large_page: Watched) -> None:
    page = large_page.open()
    expect(page.locator(".tile").first).to_be_visible()
    scroll_to_end(page)
    page.evaluate("window.scrollTo(0, 4000)")
    settle(page)
    before = ids(page)
    page.locator("#box").fill("blue")
    first_is(page, "blue")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(page.locator("#count")).to_have_text("400 pictures")
    assert abs(page.evaluate("scrollY") - 4000) <= 1
    settle(page)
    assert set(ids(page)) == set(before)
    page.goto("about:blank")
    page.go_back()
    expect(page.locator(f"[data-id={before[len(before) // 2]}]")).to_be_visible()
    assert abs(page.evaluate("scrollY") - 4000) <= 1
    page.reload()
    expect(page.locator(f"[data-id={before[len(before) // 2]}]")).to_be_visible()
    assert abs(page.evaluate("scrollY") - 4000) <= 1


def test_a_narrower_window_keeps_the_place(large_page: Watched) -> None:
    page = large_page.open()
    expect(page.locator(".tile").first).to_be_visible()
    scroll_to_end(page)
    page.evaluate("window.scrollTo(0, 3000)")
    settle(page)
    first = """() => Math.min(...[...document.querySelectorAll('.cell')]
        .filter(one => one.getBoundingClientRect().bottom > 0).map(one => Number(one.ariaPosInSet)))"""
    before = page.evaluate(first)
    page.set_viewport_size({"width": 500, "height": 600})
    settle(page)
    assert 0 <= before - page.evaluate(first) < 12  # the row that holds it begins a little before it


def test_arrow_keys_move_through_the_grid_and_enter_opens(large_page: Watched) -> None:
    page = large_page.open()
    expect(page.locator(".tile").first).to_be_visible()
    page.locator("#box").focus()
    page.keyboard.press("ArrowDown")
    order = ids(page)
    assert focused_id(page) == order[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert focused_id(page) == order[2]
    page.keyboard.press("ArrowLeft")
    assert focused_id(page) == order[1]
    page.keyboard.press("ArrowDown")
    below = focused_id(page)
    x = "id => document.querySelector(`[data-id=${id}]`).getBoundingClientRect()"
    one, other = page.evaluate(x, order[1]), page.evaluate(x, below)
    assert other["top"] > one["top"]
    assert other["left"] <= one["left"] + one["width"] / 2 <= other["right"] + 14
    page.keyboard.press("ArrowUp")
    assert page.evaluate(x, focused_id(page))["top"] == one["top"]
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    expect(page.locator(":focus")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".tile:focus")).to_be_in_viewport()
    page.keyboard.press("Home")
    assert focused_id(page) == order[0]
    expect(page.locator(".tile[tabindex='0']")).to_have_count(1)


def test_keys_are_listed_and_single_ones_can_be_switched_off(large_page: Watched) -> None:
    page = large_page.open()
    expect(page.locator(".tile").first).to_be_visible()
    page.locator("#menu-button").focus()
    page.keyboard.press("?")
    help = page.get_by_role("dialog", name="Help")
    expect(help).to_contain_text("A match is the cosine")
    assert help.locator("li code").evaluate_all("all => all.map(one => one.getClientRects().length)") == [1, 1]
    help.get_by_role("checkbox").uncheck()
    page.keyboard.press("Escape")
    expect(help).to_be_hidden()
    page.locator("#menu-button").focus()
    page.keyboard.press("/")
    page.keyboard.press("?")
    assert focused_id(page) == "menu-button"
    expect(help).to_be_hidden()


def test_a_failing_thumbnail_leaves_a_sign_in_its_place(browser: Browser, page_server: RunningServer) -> None:
    watched = Watched(browser, page_server.url)

    def refuse(route: Route) -> None:
        route.fulfill(status=410, json={"code": "blob_missing"})

    watched.page.route("**/red-0/thumbnail", refuse)
    page = watched.open()
    expect(page.locator("[data-id=red-0] .frame.broken")).to_be_visible()
    watched.context.close()
