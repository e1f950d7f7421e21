"""The picture that is shown large: its caption and tags in place, its labels, what is similar, and zooming."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from bench.picture_files import draw_chart, encode
from tests.app.api.asking import upload_ready
from tests.app.web.watched import Watched, drop
from tests.support.camera import PLACE, make_exif, photograph
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a few pictures, which these tests change."""
    with RunningServer(tmp_path_factory.mktemp("album"), keep_location=True) as server:
        files = [(f"sea/{n}.png", picture(("red", "blue")[n % 2], seed=n)) for n in range(16)]
        assert server.wait_job(server.bulk(files)["id"])["done"] == 16
        yield server


@pytest.fixture
def album_page(browser: Browser, album: RunningServer) -> Iterator[Watched]:
    watched = Watched(browser, album.url)
    yield watched
    watched.context.close()
    assert watched.faults == []


def record(server: RunningServer, id: str) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get(f"/v1/images/{id}").json()
    return found


def open_first(watched: Watched) -> tuple[Page, str]:
    """The detail of the first picture of the grid, and its id."""
    page = watched.open()
    id = page.locator(".tile").first.get_attribute("data-id")
    assert id is not None
    page.locator(".tile").first.click()
    return page, id


def test_a_photograph_shows_when_with_what_and_where_it_was_taken(album_page: Watched, album: RunningServer) -> None:
    taken = {0x9003: "2019:07:04 23:30:00", 0x9011: "+09:00", 0xA434: "back camera"}
    data = photograph(exif=make_exif({0x010F: "Apple", 0x0110: "iPhone 12"}, taken, PLACE))
    image = album.upload(data, "photo.jpg").json()
    page = album_page.open(f"/?show={image['id']}")
    details = page.locator("#detail .side")
    for text in ("Jul 4, 2019, 11:30 PM (UTC+09:00)", "Apple iPhone 12", "back camera", "47.37500, -8.50000"):
        expect(details).to_contain_text(text)
    page.get_by_role("button", name="Copy the place").click()
    expect(page.locator("#toast")).to_have_text("Copied")
    page.keyboard.press("Escape")
    page.get_by_label("Order").select_option("Date taken")
    expect(page).to_have_url(re.compile("sort=-taken_at"))
    expect(page.locator(".tile").first).to_have_attribute("data-id", image["id"])
    album.http.delete(f"/v1/images/{image['id']}")


def test_a_caption_is_saved_when_the_user_goes_on_closes_or_goes_back(
    album_page: Watched, album: RunningServer
) -> None:
    page, id = open_first(album_page)
    caption = page.get_by_role("textbox", name="Caption")
    expect(caption).to_have_attribute("placeholder", "Add a caption…")

    def write(text: str) -> None:
        caption.fill(text)

    write("by the next picture")
    page.get_by_role("button", name="Next").click()
    expect(page).not_to_have_url(re.compile(id))
    wait_until(lambda: record(album, id)["caption"] == "by the next picture", 30)
    page.get_by_role("button", name="Previous").click()
    expect(caption).to_have_value("by the next picture")
    write("by the cross <b>")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    wait_until(lambda: record(album, id)["caption"] == "by the cross <b>", 30)
    expect(page.locator(f"[data-id='{id}'] .caption")).to_have_text("by the cross <b>")
    page.locator(f".tile[data-id='{id}']").click()
    write("by Back")
    page.go_back()
    wait_until(lambda: record(album, id)["caption"] == "by Back", 30)
    page.locator(f".tile[data-id='{id}']").click()
    write("by leaving the page")
    page.goto("about:blank")
    wait_until(lambda: record(album, id)["caption"] == "by leaving the page", 30)


def test_escape_takes_a_caption_back_and_control_enter_saves_it(album_page: Watched, album: RunningServer) -> None:
    page, id = open_first(album_page)
    before = record(album, id)["caption"] or ""
    caption = page.get_by_role("textbox", name="Caption")
    caption.fill("never")
    page.keyboard.press("Escape")
    expect(caption).to_have_value(before)
    expect(page.get_by_role("dialog")).to_be_visible()
    held: list[Route] = []
    page.route(f"**/v1/images/{id}", lambda route: held.append(route))
    caption.fill("two\nlines")
    with page.expect_request(lambda request: request.method == "PATCH"):
        page.keyboard.press("Control+Enter")
    expect(caption).to_be_focused()
    page.keyboard.press("Escape")  # while the caption is on its way, this closes the picture and takes nothing back
    expect(caption).to_have_value("two\nlines")
    held[0].continue_()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert record(album, id)["caption"] == "two\nlines"


def test_a_caption_that_is_refused_stays_and_says_why(browser: Browser, album: RunningServer) -> None:
    watched = Watched(browser, album.url)
    page, id = open_first(watched)

    def refuse(route: Route) -> None:
        if route.request.method == "PATCH":
            route.fulfill(status=507, json={"code": "storage_full", "detail": "the disk is full"})
        else:
            route.fallback()

    page.route("**/v1/images/*", refuse)
    caption = page.get_by_role("textbox", name="Caption")
    caption.fill("precious words")
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("dialog").get_by_role("alert").first).to_have_text(
        "The caption is not saved: the disk is full"
    )
    expect(page).to_have_url(re.compile(f"show={id}$"))
    expect(caption).to_have_value("precious words")
    page.go_back()  # nothing can hold the browser here
    expect(page.locator("#toast")).to_contain_text("The caption is not saved: the disk is full")
    page.unroute("**/v1/images/*")
    page.get_by_role("button", name="Show the picture").click()
    expect(caption).to_have_value("precious words")
    caption.focus()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    wait_until(lambda: record(album, id)["caption"] == "precious words", 30)
    watched.context.close()


def test_tags_are_added_removed_and_searched_in_place(browser: Browser, album: RunningServer) -> None:
    id = upload_ready(album, "purple", tags=["one, two", "three"])["id"]
    watched = Watched(browser, album.url)
    page = watched.open()
    page.locator(f".tile[data-id='{id}']").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Add a tag").fill("four")
    page.keyboard.press("Enter")
    expect(dialog.locator(".tags a")).to_have_text(["one, two", "three", "four"])
    expect(dialog.get_by_label("Add a tag")).to_be_focused()
    album.http.patch(f"/v1/images/{id}", json={"tags": ["one, two", "three", "four", "by another"]})
    dialog.get_by_role("button", name="Remove the tag three").click()
    expect(dialog.locator(".tags a")).to_have_text(["one, two", "four", "by another"])
    dialog.get_by_label("Add a tag").fill("five")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    wait_until(lambda: record(album, id)["tags"] == ["one, two", "four", "by another", "five"], 30)
    page.locator(f".tile[data-id='{id}']").click()
    dialog.get_by_role("link", name="one, two").click()
    expect(dialog).to_be_hidden()
    expect(page).to_have_url(re.compile(r"\?tag=one%2C\+two$|\?tag=one,\+two$"))
    expect(page.locator(".tile")).to_have_count(1)
    watched.context.close()
    assert watched.faults == []


def test_labels_are_suggested_and_applied_by_one_click(browser: Browser, album: RunningServer) -> None:
    id = upload_ready(album, "green")["id"]
    watched = Watched(browser, album.url)
    page = watched.open(f"/?show={id}")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".strip img").first).to_be_visible()
    expect(dialog.get_by_role("button", name="Suggest texts")).to_be_hidden()  # there are none
    album.http.post("/v1/texts", json={"texts": [{"text": "a green thing"}, {"text": "a red thing"}]})
    page.reload()
    dialog.get_by_role("button", name="Suggest texts").click()
    label = dialog.locator(".labels li").first
    expect(label).to_contain_text("a green thing")
    label.get_by_role("button", name="Use as caption").click()
    wait_until(lambda: record(album, id)["caption"] == "a green thing", 30)
    expect(dialog.get_by_role("textbox", name="Caption")).to_have_value("a green thing")
    label.get_by_role("button", name="Add as tag").click()
    expect(dialog.locator(".tags a")).to_have_text(["a green thing"])
    watched.context.close()
    assert watched.faults == []


def test_similar_pictures_open_and_closing_returns_to_the_results(album_page: Watched) -> None:
    page, id = open_first(album_page)
    strip = page.locator(".strip a")
    expect(strip).to_have_count(12)
    assert id not in strip.evaluate_all("all => all.map(one => one.dataset.id)")
    other = strip.first.get_attribute("data-id")
    strip.first.click()
    expect(page).to_have_url(re.compile(f"show={other}$"))
    expect(page.locator(f".strip a[data-id='{id}']")).to_have_count(1)
    page.locator(".strip a").nth(1).click()
    page.go_back()
    expect(page).to_have_url(re.compile(f"show={other}$"))
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page).to_have_url(album_page.url + "/")
    page.locator(".tile").first.click()
    page.keyboard.press("l")
    expect(page).to_have_url(re.compile(rf"\?like={id}$"))


def test_what_browsers_do_not_show_is_rendered(browser: Browser, album: RunningServer) -> None:
    id = album.upload(encode(draw_chart((3_000, 2_000)), "TIFF"), "scan.tif").json()["id"]
    watched = Watched(browser, album.url)
    page = watched.open(f"/?show={id}")
    shown = page.locator(".stage img")
    expect(shown).to_have_js_property("naturalWidth", 1024)
    page.keyboard.press("+")
    expect(shown).to_have_js_property("naturalWidth", 2048)
    expect(page.get_by_role("dialog")).to_contain_text("TIFF")
    watched.context.close()
    assert watched.faults == []


def test_the_original_is_loaded_only_when_the_picture_is_enlarged(browser: Browser, album: RunningServer) -> None:
    out = io.BytesIO()
    Image.radial_gradient("L").resize((3000, 2000)).save(out, "JPEG")
    id = album.upload(out.getvalue(), "large.jpg").json()["id"]
    watched = Watched(browser, album.url, viewport={"width": 1280, "height": 800})
    page = watched.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/file") else None)
    watched.open(f"/?show={id}")
    shown = page.locator(".stage img")
    expect(shown).to_have_js_property("naturalWidth", 1024)
    assert asked == []
    width = "one => one.getBoundingClientRect().width"
    fit = shown.evaluate(width)
    page.keyboard.press("+")
    expect(shown).to_have_js_property("naturalWidth", 3000)
    assert shown.evaluate(width) > fit
    box = shown.evaluate("one => one.parentElement.getBoundingClientRect().toJSON()")
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -600)
    left = "one => one.getBoundingClientRect().left"
    before = shown.evaluate(left)
    page.mouse.down()
    page.mouse.move(middle[0] - 80, middle[1])
    page.mouse.up()
    assert shown.evaluate(left) == pytest.approx(before - 80, abs=2)
    page.mouse.dblclick(*middle)
    assert shown.evaluate(width) == pytest.approx(fit, abs=1)
    page.mouse.click(*middle)
    assert shown.evaluate(width) > fit
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    watched.context.close()
    assert watched.faults == []


def test_a_finger_goes_to_the_next_picture(browser: Browser, album: RunningServer) -> None:
    watched = Watched(browser, album.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page, id = open_first(watched)
    expect(page.locator(".stage img")).not_to_have_js_property("naturalWidth", 0)
    session = page.context.new_cdp_session(page)
    for kind, x in (("touchStart", 300), ("touchMove", 240), ("touchMove", 120), ("touchEnd", None)):
        points = [] if x is None else [{"x": x, "y": 150}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(page).not_to_have_url(re.compile(id))
    expect(page.get_by_role("dialog")).to_be_visible()
    watched.context.close()
    assert watched.faults == []


def test_arrow_keys_go_on_in_full_screen(album_page: Watched) -> None:
    page, id = open_first(album_page)
    expect(page.get_by_role("button", name="Full screen")).to_be_visible()
    page.keyboard.press("f")
    expect(page.locator(".stage:fullscreen")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(page).not_to_have_url(re.compile(id))
    assert page.evaluate("Boolean(document.fullscreenElement)")
    page.keyboard.press("f")
    expect(page.locator(":fullscreen")).to_have_count(0)
    expect(page.get_by_role("dialog")).to_be_visible()


def test_an_id_is_copied(browser: Browser, album: RunningServer) -> None:
    watched = Watched(browser, album.url, permissions=["clipboard-read", "clipboard-write"])
    page, id = open_first(watched)
    page.get_by_role("button", name="Copy the id").click()
    expect(page.locator("#toast")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == id
    page.evaluate("navigator.clipboard.writeText('')")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as over plain HTTP
    page.get_by_role("button", name="Copy the id").click()
    page.keyboard.press("Escape")
    page.locator("#box").fill("")
    page.locator("#box").press("Control+v")
    expect(page.locator("#box")).to_have_value(id)
    watched.context.close()
    assert watched.faults == []


def test_who_may_only_search_reads_and_is_offered_nothing_else(browser: Browser, album: RunningServer) -> None:
    watched = Watched(browser, album.url)
    page = watched.page
    session = {"needed": True, "scope": "search", "name": "reader", "collections": None}
    page.route("**/v1/session", lambda route: route.fulfill(json=session))
    watched.open()
    expect(page.locator("#add")).to_be_hidden()
    drop(page, ["one.png", "other.png"], picture("red", seed=5))
    assert page.evaluate("window.only") == "search"
    expect(page.locator("#count")).to_have_text("Similar to “one.png”")
    expect(page.locator("#add")).to_be_hidden()
    page, _ = open_first(watched)
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".strip img").first).to_be_visible()
    for name in ("Delete", "Suggest texts"):
        expect(dialog.get_by_role("button", name=name)).to_be_hidden()
    expect(dialog.get_by_role("textbox")).to_have_count(0)
    watched.context.close()
    assert watched.faults == []


def test_a_hit_says_where_it_has_the_words_of_the_search(album_page: Watched, album: RunningServer) -> None:
    image = album.http.get("/v1/images").json()["images"][-1]
    album.http.patch(f"/v1/images/{image['id']}", json={"caption": "Two umbrellas at sea"})
    page = album_page.open("/?q=umbrella")
    page.locator(".tile").first.click()
    place = page.get_by_role("dialog").locator("dt", has_text="Found in").locator("+ dd")
    expect(place).to_have_text("caption: umbrellas")
    page.goto(f"{album_page.url}/?show={image['id']}")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_role("dialog").locator("dt", has_text="Found in")).to_have_count(0)
    album.http.patch(f"/v1/images/{image['id']}", json={"caption": image["caption"]})
