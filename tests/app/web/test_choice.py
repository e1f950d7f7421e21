"""Choosing many pictures, deleting them with a way back, tagging, and changing what is said of one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, FilePayload, Page, Route, expect

from tests.app.api.asking import upload_ready
from tests.app.web.watched import Watched, drop, ids
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with 24 pictures, which these tests change."""
    with RunningServer(tmp_path_factory.mktemp("garden")) as server:
        files = [(f"{n}.png", picture(("red", "blue")[n % 2], seed=n)) for n in range(24)]
        assert server.wait_job(server.bulk(files)["id"])["done"] == 24
        yield server


@pytest.fixture
def garden_page(browser: Browser, garden: RunningServer) -> Iterator[Watched]:
    """A page on it."""
    watched = Watched(browser, garden.url)
    yield watched
    watched.context.close()
    assert watched.faults == []


def list_selected(page: Page) -> list[str]:
    found: list[str] = page.locator(".cell.selected a").evaluate_all("all => all.map(one => one.dataset.id)")
    return found


def tags(server: RunningServer, id: str) -> list[str]:
    found: list[str] = server.http.get(f"/v1/images/{id}").json()["tags"]
    return found


def record(server: RunningServer, id: str) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get(f"/v1/images/{id}").json()
    return found


def exists(server: RunningServer, id: str) -> bool:
    return server.http.get(f"/v1/images/{id}").status_code == 200


def test_pictures_are_chosen_by_box_by_shift_click_and_by_keys(garden_page: Watched) -> None:
    page = garden_page.open()
    expect(page.locator(".tile").first).to_be_visible()
    order = ids(page)
    page.locator(".cell").nth(1).hover()
    page.locator(".pick").nth(1).click()
    expect(page.locator("#selection")).to_contain_text("1 selected")
    page.locator(".tile").nth(4).click(modifiers=["Shift"])
    assert list_selected(page) == order[1:5]
    page.locator(".tile").nth(2).click()  # while choosing a click chooses, or lets go
    assert list_selected(page) == [order[1], *order[3:5]]
    expect(page).to_have_url(garden_page.url + "/")
    page.keyboard.press("Escape")
    expect(page.locator("#selection")).to_be_hidden()
    assert list_selected(page) == []
    page.locator("#box").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert list_selected(page) == order[:3]
    assert page.locator(".pick").first.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Control+a")
    expect(page.locator("#selection")).to_contain_text(re.compile(r"\d{2,} selected"))
    page.get_by_role("button", name="Clear the selection").click()
    page.locator("#select").click()  # where there is neither hover nor shift
    page.locator(".tile").nth(3).click()
    assert list_selected(page) == [order[3]]


def test_more_like_these_searches_by_several_pictures(garden_page: Watched) -> None:
    page = garden_page.open("/?q=red")
    expect(page.locator("#count")).to_have_text("Best matches for “red”")
    for n in range(2):
        page.locator(".cell").nth(n).hover()
        page.locator(".pick").nth(n).click()
    picked = list_selected(page)
    with page.expect_request(lambda request: request.method == "POST") as asked:
        page.get_by_role("button", name="More like these").click()
    query = (asked.value.post_data_json or {})["query"]
    assert query == [{"image_id": id, "weight": 0.5} for id in picked]
    expect(page).to_have_url(re.compile(rf"like={picked[0]},{picked[1]}$"))
    expect(page.locator("#chip img")).to_have_count(2)
    for id in picked:
        expect(page.locator(f".tile[data-id='{id}']")).to_have_count(0)
    expect(page.locator(".tile").first).to_be_visible()


def test_a_tag_is_added_to_all_chosen_or_removed_and_both_can_be_undone(
    browser: Browser, garden: RunningServer
) -> None:
    first, second = (upload_ready(garden, "purple", tags=tags)["id"] for tags in (["old, with a comma"], []))
    watched = Watched(browser, garden.url)
    page = watched.open()
    for id in (first, second):
        page.locator(f".cell:has([data-id='{id}'])").hover()
        page.locator(f".cell:has([data-id='{id}']) .pick").click()
    bar = page.get_by_role("toolbar")
    bar.get_by_role("button", name="Tags").click()
    page.get_by_role("dialog").get_by_label("Tag", exact=True).fill("new")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("“new” added to 2 pictures.")
    assert tags(garden, first) == ["old, with a comma", "new"]
    assert tags(garden, second) == ["new"]
    bar.get_by_role("button", name="Tags").click()
    page.get_by_role("button", name="Remove “new” from 2 pictures").click()
    expect(page.locator("#toast")).to_contain_text("“new” removed from 2 pictures.")
    assert tags(garden, first) == ["old, with a comma"]
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#toast")).to_contain_text("“new” added to 2 pictures.")
    assert tags(garden, second) == ["new"]
    watched.context.close()
    assert watched.faults == []


def test_all_that_are_loaded_are_selected_by_a_button(garden_page: Watched) -> None:
    page = garden_page.open()
    page.locator("#select").click()
    page.locator(".tile").first.click()
    page.get_by_role("button", name="Select all").click()
    expect(page.locator("#selection-count")).to_have_text(re.compile(r"^2\d selected"))
    expect(page.get_by_role("toolbar").get_by_role("button", name="Download")).to_be_disabled()  # more than 20


def test_the_selected_are_downloaded_under_their_own_names(garden_page: Watched, garden: RunningServer) -> None:
    names = {"one.png": picture("purple", seed=71), "two.png": picture("purple", seed=72)}
    for name, content in names.items():
        assert garden.upload(content, name).status_code == 200
    page = garden_page.open()
    for n in range(2):
        page.locator(".cell").nth(n).hover()
        page.locator(".pick").nth(n).click()
    saved: dict[str, bytes] = {}
    page.on("download", lambda one: saved.update({one.suggested_filename: one.path().read_bytes()}))
    page.get_by_role("toolbar").get_by_role("button", name="Download").click()
    deadline = time.monotonic() + 30
    while len(saved) < 2 and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert saved == names


def test_a_deleted_picture_leaves_at_once_and_undo_brings_it_back(browser: Browser, garden: RunningServer) -> None:
    id = upload_ready(garden, "purple", caption="to stay")["id"]
    watched = Watched(browser, garden.url)
    asked: list[str] = []
    watched.page.on("request", lambda request: asked.append(request.url) if request.method == "DELETE" else None)
    page = watched.open()
    page.locator(f"[data-id='{id}']").focus()
    page.keyboard.press("Delete")
    expect(page.locator("#toast")).to_contain_text("1 picture deleted")
    expect(page.locator(f"[data-id='{id}']")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(f"[data-id='{id}']")).to_be_visible()
    expect(page.locator("#toast")).to_be_hidden()
    page.locator(f"[data-id='{id}']").focus()
    page.keyboard.press("Delete")
    expect(page.locator(f"[data-id='{id}']")).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(page.locator(f"[data-id='{id}']")).to_be_visible()
    page.wait_for_timeout(200)
    assert asked == []
    assert exists(garden, id)
    watched.context.close()
    assert watched.faults == []


def test_what_is_deleted_in_the_large_view_is_brought_back_there(browser: Browser, garden: RunningServer) -> None:
    watched = Watched(browser, garden.url, viewport={"width": 360, "height": 740})  # the dialog covers all of it
    asked: list[str] = []
    watched.page.on("request", lambda request: asked.append(request.url) if request.method == "DELETE" else None)
    page = watched.open()
    expect(page.locator(".tile").first).to_be_visible()
    order = ids(page)
    page.locator(f"[data-id='{order[0]}']").click()
    dialog = page.get_by_role("dialog")
    page.keyboard.press("Delete")
    expect(page).to_have_url(re.compile(f"show={order[1]}$"))
    expect(dialog.get_by_role("status")).to_have_text("1 picture deletedUndo")
    dialog.get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile(f"show={order[2]}$"))
    expect(dialog.get_by_role("status")).to_have_text("2 pictures deletedUndo")  # the first is not final yet
    dialog.get_by_role("button", name="Undo").click()
    expect(page).to_have_url(re.compile(f"show={order[1]}$"))
    expect(dialog.get_by_role("status")).to_be_hidden()
    page.keyboard.press("Delete")
    expect(page).to_have_url(re.compile(f"show={order[2]}$"))
    page.keyboard.press("Control+z")
    expect(page).to_have_url(re.compile(f"show={order[1]}$"))
    page.keyboard.press("Delete")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Undo").click()  # the message outlives the dialog
    expect(page.locator(f"[data-id='{order[1]}']")).to_be_focused()
    assert ids(page)[:3] == order[:3]
    assert asked == []
    watched.context.close()
    assert watched.faults == []


def test_a_picture_without_caption_goes_by_its_file_and_a_failed_one_says_why(garden_page: Watched) -> None:
    garden = garden_page.page.request
    sent = FilePayload(name="broken.png", mimeType="image/png", buffer=picture("red", seed=99)[:-40])
    id = garden.post(f"{garden_page.url}/v1/images?wait=30", multipart={"file": sent}).json()["image_id"]
    page = garden_page.open(f"/?show={id}")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_have_text("broken.png")
    expect(dialog.get_by_text("broken.png")).to_have_count(2)  # for screen readers, and among the details
    expect(dialog).to_contain_text("could not read this picture: the picture is cut off or damaged")
    expect(dialog).to_contain_text("Delete it, or add an undamaged copy of the file.")
    expect(dialog.locator(".stage.broken")).to_be_visible()
    expect(dialog.locator(".stage img")).to_be_hidden()
    assert garden.delete(f"{garden_page.url}/v1/images/{id}").ok


def test_deleting_is_done_when_the_time_to_undo_is_over_or_the_page_is_left(
    browser: Browser, garden: RunningServer
) -> None:
    first, second, third = (upload_ready(garden, "purple")["id"] for _ in range(3))
    watched = Watched(browser, garden.url)
    page = watched.page
    page.clock.install()
    watched.open()
    page.locator(f"[data-id='{first}']").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("#toast")).to_contain_text("1 picture deleted")
    expect(dialog).to_be_visible()  # with the next picture
    page.keyboard.press("Escape")
    assert exists(garden, first)
    page.mouse.move(5, 5)
    page.clock.run_for(9_000)
    expect(page.locator("#toast")).to_be_hidden()
    wait_until(lambda: not exists(garden, first), 30)
    for id in (second, third):
        page.locator(f".cell:has([data-id='{id}'])").hover()
        page.locator(f".cell:has([data-id='{id}']) .pick").click()
    page.get_by_role("toolbar").get_by_role("button", name="Delete").click()
    expect(page.locator("#toast")).to_contain_text("2 pictures deleted")
    assert exists(garden, second)
    assert exists(garden, third)
    page.goto("about:blank")
    wait_until(lambda: not exists(garden, second) and not exists(garden, third), 30)
    watched.context.close()
    assert watched.faults == []


def test_a_reload_asks_before_it_ends_the_time_to_undo(garden_page: Watched) -> None:
    page = garden_page.open()
    expect(page.locator(".tile").first).to_be_visible()
    id = ids(page)[0]
    page.locator(f".cell:has([data-id='{id}'])").hover()
    page.locator(f".cell:has([data-id='{id}']) .pick").click()
    page.get_by_role("toolbar").get_by_role("button", name="Delete").click()
    expect(page.locator("#toast")).to_contain_text("1 picture deleted")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.once("dialog", stay)
    with page.expect_event("dialog"):
        page.evaluate("setTimeout(() => location.reload())")
    page.get_by_role("button", name="Undo").click()
    assert asked == ["beforeunload"]
    expect(page.locator(f"[data-id='{id}']")).to_be_visible()
    page.reload()  # asks nothing: nothing waits
    expect(page.locator(f"[data-id='{id}']")).to_be_visible()


def test_the_selected_move_to_a_new_collection_with_what_is_said_of_them(
    garden_page: Watched, garden: RunningServer
) -> None:
    said = {"caption": "a rake", "tags": ["tool", "old"], "metadata": '{"made": {"in": 1990}}'}
    first, second = (upload_ready(garden, "purple", **said)["id"] for _ in range(2))
    page = garden_page.open()

    def move() -> None:
        for id in (first, second):
            page.locator(f".cell:has([data-id='{id}'])").hover()
            page.locator(f".cell:has([data-id='{id}']) .pick").click()
        page.get_by_role("toolbar").get_by_role("button", name="Move").click()

    move()
    form = page.get_by_role("dialog", name="Move to a collection")
    form.get_by_label("Or to a new collection").fill("shed")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("2 pictures moved to “shed”.")
    expect(page.locator(f"[data-id='{first}']")).to_have_count(0)
    there = garden.http.get(f"/v1/images/{first}", params={"collection": "shed"}).json()
    assert (there["caption"], there["tags"], there["metadata"]) == ("a rake", ["tool", "old"], {"made": {"in": 1990}})
    assert not exists(garden, first)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#toast")).to_contain_text("2 pictures moved to “default”.")
    expect(page.locator(f"[data-id='{first}']")).to_be_visible()
    assert record(garden, first)["caption"] == "a rake"
    content = garden.http.get(f"/v1/images/{second}/file").content
    garden.upload(content, "there.png", wait=30, collection="shed", caption="another caption")
    move()
    form.get_by_role("button", name="shed").click()
    expect(page.locator("#toast")).to_contain_text(
        "1 picture moved to “shed”. 1 stays here: “shed” has it with another"
    )
    expect(page.locator(f"[data-id='{second}']")).to_be_visible()
    assert exists(garden, second)
    assert not exists(garden, first)


def test_a_search_by_a_file_is_shared_once_the_file_is_added(garden_page: Watched, garden: RunningServer) -> None:
    page = garden_page.open()
    drop(page, ["mine.png"], picture("green", seed=99))
    expect(page.locator("#unshared")).to_contain_text("Your picture is not in the address")
    expect(page).to_have_url(f"{garden_page.url}/")
    page.locator("#box").fill("red")
    page.get_by_role("button", name="Add it to “default”").click()
    expect(page).to_have_url(re.compile(r"\?q=red&like=[0-9a-f]{32}$"))
    expect(page.locator("#count")).to_have_text("Similar to “mine.png”, with “red”")
    expect(page.locator("#unshared")).to_be_hidden()
    assert record(garden, page.url.split("like=")[1])["source"] == "mine.png"


def test_what_cannot_be_deleted_comes_back_with_the_reason(browser: Browser, garden: RunningServer) -> None:
    watched = Watched(browser, garden.url)
    page = watched.page

    def refuse(route: Route) -> None:
        if route.request.method == "DELETE":
            route.fulfill(status=503, json={"code": "read_only", "detail": "the data directory cannot be written"})
        else:
            route.fallback()

    page.route("**/v1/images/*", refuse)
    page.clock.install()
    watched.open()
    page.locator(".tile").first.focus()
    id = ids(page)[0]
    page.keyboard.press("Delete")
    expect(page.locator(f"[data-id='{id}']")).to_have_count(0)
    page.clock.run_for(9_000)
    expect(page.locator("#toast")).to_contain_text("could not delete 1 picture. the data directory cannot be written")
    expect(page.locator(f"[data-id='{id}']")).to_be_visible()
    watched.context.close()
