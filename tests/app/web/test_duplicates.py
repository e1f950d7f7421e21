"""The view of duplicates: groups, what is kept and what is lost, deleting with a way back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.app.api.routes.test_duplicates import draw
from tests.app.web.test_access import faults
from tests.app.web.watched import Watched, choose
from tests.support.sample_pictures import encode_image
from tests.support.servers import RunningServer, wait_until


@pytest.fixture
def twins(empty: RunningServer) -> Iterator[RunningServer]:
    """A server with the collection `twins`: two pictures with copies, one without."""
    where: dict[str, Any] = {"collection": "twins"}
    assert empty.http.post("/v1/collections", json={"name": "twins"}).status_code == 201
    for name, seed in (("hill", 5), ("lake", 6), ("alone", 7)):
        image = draw(seed)
        copies: list[tuple[str, Any, dict[str, Any]]] = [(name, image, {"tags": ["kept"]})]
        if name != "alone":
            copies.append((f"{name}-small", image.resize((90, 68)), {"caption": f"a {name}", "tags": ["kept", "new"]}))
        for id, drawn, said in copies:
            assert empty.upload(encode_image(drawn, "png"), id=id, **said, **where).json()["status"] == "ready"
    yield empty
    empty.http.delete("/v1/collections/twins")


def test_duplicates_are_found_and_all_but_the_best_are_deleted(browser: Browser, twins: RunningServer) -> None:
    watched = Watched(browser, twins.url)
    page = watched.open("/?collection=twins")
    choose(page, "Find duplicates")
    expect(page).to_have_url(re.compile(r"collection=twins&view=duplicates$"))
    expect(page.locator("#duplicates-status")).to_contain_text("Nobody has searched this collection")
    page.get_by_role("button", name="Search for duplicates").click()
    groups = page.locator(".duplicate-group")
    expect(groups).to_have_count(2)
    expect(page.locator("#duplicates-status")).to_have_text("2 groups, with 2 more beside the best ones.")
    expect(page.get_by_role("button", name="Search for duplicates")).to_be_hidden()
    lake = groups.first
    expect(lake).to_contain_text("200 × 150")
    expect(lake.get_by_role("checkbox")).to_have_count(2)
    expect(lake.get_by_role("checkbox").first).to_be_checked()
    expect(lake).to_contain_text("The kept picture gets: “a lake” and new.")
    remove = lake.get_by_role("button", name="Delete the other one")
    lake.get_by_role("checkbox").first.uncheck()
    expect(lake).to_contain_text("Keep at least one picture.")
    expect(lake.get_by_role("button")).to_be_disabled()
    lake.get_by_role("checkbox").first.check()
    remove.press("Enter")
    expect(groups).to_have_count(1)
    page.locator("#toast").get_by_role("button", name="Undo").click()
    expect(groups).to_have_count(2)
    lake.get_by_role("link").first.click()
    expect(page.locator("#detail")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    page.get_by_role("button", name="Delete the others in all groups shown (2)").click()
    expect(groups).to_have_count(0)
    expect(page.locator("#duplicates-status")).to_have_text("No duplicates found.")
    page.get_by_role("link", name="Activity").click()  # the view is gone, and the deletion goes on
    page.get_by_role("button", name=re.compile("Collection twins")).click()
    page.locator("#collection-list button", has_text="default").first.click()
    wait_until(lambda: twins.http.get("/v1/images/lake-small?collection=twins").status_code == 404, 20)
    lake_now = twins.http.get("/v1/images/lake?collection=twins").json()
    assert (lake_now["caption"], lake_now["tags"]) == ("a lake", ["kept", "new"])
    watched.context.close()
    assert watched.faults == []


def test_exact_duplicates_and_chinese(browser: Browser, twins: RunningServer) -> None:
    twins.wait_job(twins.http.post("/v1/duplicates?collection=twins").json()["id"])
    watched = Watched(browser, twins.url, locale="zh-CN", viewport={"width": 390, "height": 800}, bypass_csp=True)
    page = watched.open("/?collection=twins&view=duplicates")
    expect(page.locator("#duplicates h2")).to_have_text("查找重复图片")
    expect(page.locator(".duplicate-group")).to_have_count(2)
    page.get_by_label("同一张图片，重新保存或缩放").check()
    expect(page.locator(".member").nth(1)).to_contain_text(re.compile("64 位中有 [0-9]+ 位不同"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert faults(page) == []
    watched.context.close()
    assert watched.faults == []
