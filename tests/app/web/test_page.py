"""The page at `/`: searching, pictures large, the address. A real browser against a real server."""

from __future__ import annotations

import contextlib
import re

from playwright.sync_api import Browser, Error, Route, expect

from tests.app.web.watched import Watched, choose, drop, first_is, ids
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until


def test_newest_pictures_are_shown_while_the_box_is_empty(page_on_server: Watched) -> None:
    page = page_on_server.open()
    expect(page.locator(".tile")).to_have_count(10)
    assert ids(page)[0] == "green-9"
    expect(page.locator("#count")).to_have_attribute("title", "Showing 10 of 10")
    expect(page.locator("#count")).to_have_text("10 pictures")


def test_typing_searches_without_enter(page_on_server: Watched) -> None:
    page = page_on_server.open()
    page.locator("#box").press_sequentially("red", delay=20)
    first_is(page, "red")
    expect(page).to_have_url(re.compile(r"\?q=red$"))
    expect(page.locator("#count")).to_contain_text("Best matches for “red”")
    tile = page.locator(".tile").first
    assert re.fullmatch(r"red number \d", tile.locator(".caption").inner_text())
    match = re.search(r"^Match (.+)$", tile.get_attribute("title") or "", re.MULTILINE)
    assert match
    assert 0.9 < float(match[1]) <= 1
    assert re.fullmatch(r"Showing 10 of 10 · \d+ ms", page.locator("#count").get_attribute("title") or "")


def test_typing_asks_once_it_pauses_not_at_every_key(page_on_server: Watched) -> None:
    page = page_on_server.page
    page.clock.install(time=0)
    page_on_server.open()
    expect(page.locator(".tile")).to_have_count(10)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/search" in request.url else None)
    page.clock.pause_at(3_600)
    for part in ("red", " bl", "ue"):
        page.locator("#box").press_sequentially(part)
        page.clock.run_for(40)  # each key begins the pause of 60 ms anew
    page.clock.resume()
    expect(page).to_have_url(re.compile("red[+]blue"))
    expect(page.locator("#count")).to_contain_text("Best matches")
    assert len(asked) == 1, asked
    assert "q=red+blue" in asked[0]


def test_an_older_answer_that_comes_late_is_dropped(page_on_server: Watched) -> None:
    page = page_on_server.open()
    held: list[Route] = []
    page.route(re.compile(r"/v1/search\?q=red&"), lambda route: held.append(route))
    with page.expect_request(re.compile(r"/v1/search\?q=red&")):
        page.locator("#box").fill("red")
    page.locator("#box").fill("blue")
    first_is(page, "blue")
    assert len(held) == 1
    with contextlib.suppress(Error):  # the page may have given it up already
        held[0].continue_()
    page.wait_for_timeout(300)
    first_is(page, "blue")


def test_a_composition_is_not_searched_before_it_ends(page_on_server: Watched) -> None:
    page = page_on_server.open()
    typing = page.context.new_cdp_session(page)
    page.locator("#box").focus()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/search" in request.url else None)
    typing.send("Input.imeSetComposition", {"text": "hong", "selectionStart": 4, "selectionEnd": 4})
    page.wait_for_timeout(300)
    assert asked == []
    typing.send("Input.insertText", {"text": "红色"})
    first_is(page, "red")
    expect(page.locator("#box")).to_have_value("红色")
    assert len(asked) == 1


def test_the_target_switch_finds_texts_and_a_text_finds_pictures(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=blue")
    first_is(page, "blue")
    choose(page, "Texts")
    expect(page.locator(".list li").first).to_contain_text("a blue thing")
    expect(page).to_have_url(re.compile("target=texts"))
    page.locator(".list a").nth(0).click()
    first_is(page, "blue")
    expect(page.locator("#box")).to_have_value("a blue thing")


def test_texts_without_a_query_say_what_to_do(page_on_server: Watched) -> None:
    page = page_on_server.open("/?target=texts")
    expect(page.locator(".message")).to_contain_text("drop a picture to find the texts")
    page.get_by_text("Add texts").first.click()
    expect(page.get_by_role("textbox", name="One text per line")).to_be_visible()


def test_texts_are_listed_and_deleted_with_a_way_back(page_on_server: Watched, page_server: RunningServer) -> None:
    mine = {"id": "brown", "text": "a brown thing"}
    assert page_server.http.post("/v1/texts", json={"texts": [mine]}).status_code == 200
    page = page_on_server.open("/?target=texts")
    lines = page.locator(".all-texts li")
    expect(lines).to_have_text(["a brown thing×", "a green thing×", "a blue thing×", "a red thing×"])
    page.get_by_role("button", name="Delete “a brown thing”").click()
    expect(lines.filter(visible=True)).to_have_count(3)
    expect(page.get_by_role("button", name="Delete “a green thing”")).to_be_focused()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Delete “a brown thing”")).to_be_focused()
    assert page_server.http.get("/v1/texts/brown").status_code == 200
    page.get_by_role("button", name="Delete “a brown thing”").click()
    page.reload()  # leaving makes it final
    wait_until(lambda: page_server.http.get("/v1/texts/brown").status_code == 404, 30)
    page.get_by_role("link", name="a green thing").click()
    first_is(page, "green")


def test_dropping_one_picture_searches_by_it(page_on_server: Watched) -> None:
    page = page_on_server.open()
    drop(page, ["mine.png"], picture("blue", seed=77))
    first_is(page, "blue")
    assert page.evaluate("[window.covered, window.only]") == [True, ""]
    expect(page.locator("#chip img")).to_be_visible()
    expect(page.locator("#drop-zones")).to_be_hidden()
    choose(page, "Texts")
    expect(page.locator(".list li").first).to_contain_text("a blue thing")
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.locator("#chip")).to_be_hidden()
    page_on_server.open("/?show=red-1")
    expect(page.get_by_role("dialog")).to_be_visible()
    drop(page, ["mine.png"], picture("blue", seed=77))
    first_is(page, "blue")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_words_and_a_picture_are_searched_together(page_on_server: Watched) -> None:
    page = page_on_server.open()
    drop(page, ["mine.png"], picture("blue", seed=77))
    first_is(page, "blue")
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/v1/search")) as asked:
        page.locator("#box").fill("red")
    parts = (asked.value.post_data_json or {})["query"]
    assert [list(part) for part in parts] == [["text", "weight"], ["image", "weight"]]
    assert [part["weight"] for part in parts] == [0.5, 0.5]
    expect(page.locator("#count")).to_have_text("Similar to “mine.png”, with “red”")


def test_the_heading_names_the_pictures_of_the_search(page_on_server: Watched) -> None:
    page = page_on_server.open("/?like=blue-6")
    heading = page.locator("#count")
    expect(heading).to_have_text("Similar to “blue number 6”")
    page.locator("#box").fill("red -green")
    expect(heading).to_have_text("Similar to “blue number 6”, with “red”, excluding “green”")
    page_on_server.open("/?like=blue-6,red-1")
    expect(heading).to_have_text("Similar to 2 pictures")
    choose(page, "中文")
    expect(heading).to_have_text("与 2 张图片相似")


def test_the_link_of_a_search_is_copied_unless_it_needs_a_file(browser: Browser, page_server: RunningServer) -> None:
    watched = Watched(browser, page_server.url, permissions=["clipboard-read", "clipboard-write"])
    page = watched.open()
    first_is(page, "green")
    expect(page.get_by_role("button", name="Copy link")).to_be_hidden()  # there is no search
    page.locator("#box").fill("red")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#toast")).to_have_text("Link copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"{watched.url}/?q=red"
    drop(page, ["mine.png"], picture("blue", seed=77))
    expect(page.locator("#unshared")).to_be_visible()
    expect(page.get_by_role("button", name="Copy link")).to_be_hidden()
    watched.context.close()
    assert watched.faults == []


def test_the_slider_weighs_words_against_the_picture_and_stands_in_the_address(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=red&like=blue-6")
    expect(page.locator(".tile")).to_have_count(9)
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    expect(page).to_have_url(re.compile("weight=0.1"))
    first_is(page, "red")
    assert slider.get_attribute("aria-valuetext") == "words 90 %, picture 10 %"
    page.keyboard.press("End")
    expect(page).to_have_url(re.compile("weight=0.9"))
    first_is(page, "blue")
    page.locator("#box").fill("")
    expect(page.locator("#weight-control")).to_be_hidden()
    page_on_server.open("/?q=red&like=blue-6&weight=0.1")
    first_is(page, "red")
    assert page.locator("#weight").input_value() == "0.1"


def test_a_minus_turns_away_and_is_said_in_words(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=blue")
    first_is(page, "blue")
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/v1/search")) as asked:
        page.locator("#box").fill("red -blue")
    assert (asked.value.post_data_json or {})["query"] == [{"text": "red"}, {"text": "blue", "weight": -0.7}]
    first_is(page, "red")
    expect(page.locator("#count")).to_have_text("Best matches for “red”, excluding “blue”")
    expect(page).to_have_url(re.compile(r"\?q=red\+-blue$"))
    page.locator("#box").fill("-red")
    expect(page.locator("#count")).to_have_text("Excluding “red”")
    expect(page.locator(".tile").last).to_have_attribute("data-id", re.compile("^red-"))
    page.locator("#box").fill("red -blue -green")
    expect(page.locator("#count")).to_have_text("Best matches for “red”, excluding “blue” and “green”")


def test_the_address_of_a_hit_is_searched_by_when_it_is_pasted_or_dragged(page_on_server: Watched) -> None:
    page = page_on_server.open()
    for path in ("/?q=x&show=blue-6", "/v1/images/green-9/file", "/v1/images/red-1/thumbnail"):
        page.locator("#box").fill(page_on_server.url + path)
        id = re.findall(r"(?:blue|green|red)-[0-9]", path)[0]
        expect(page).to_have_url(re.compile(rf"\?like={id}$"))
        expect(page.locator("#chip img")).to_have_attribute("src", re.compile(id))
        expect(page.locator("#box")).to_have_value("")
    page.locator("#box").fill("https://example.org/?show=blue-6")
    expect(page).to_have_url(re.compile("q=https"))
    page_on_server.open()
    page.locator("[data-id=green-9]").drag_to(page.locator("#box"))
    expect(page).to_have_url(re.compile(r"\?like=green-9$"))


def test_a_picture_can_be_chosen_by_the_file_button(page_on_server: Watched) -> None:
    page = page_on_server.open()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Search with a picture file").click()
    chooser.value.set_files({"name": "g.png", "mimeType": "image/png", "buffer": picture("green", seed=5)})
    first_is(page, "green")


def test_a_picture_can_be_pasted(page_on_server: Watched) -> None:
    page = page_on_server.open()
    page.evaluate(
        """bytes => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], "p.png", { type: "image/png" }));
            document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, bubbles: true }));
        }""",
        list(picture("green", seed=6)),
    )
    first_is(page, "green")


def test_a_click_opens_the_picture_large_with_all_that_is_known(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=red")
    tile = page.locator(".tile").first
    caption = tile.locator(".caption").inner_text()
    tile.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_have_text(caption)
    expect(dialog.get_by_role("textbox", name="Caption")).to_have_value(caption)
    expect(dialog).to_contain_text(re.compile(r"Match[01]\.\d{3}"))
    expect(dialog.locator(".tags a")).to_have_text(["red"])
    expect(dialog).to_contain_text('{"by":"test"}')
    expect(dialog).to_contain_text("× 48")
    expect(page.locator(".stage img")).not_to_have_js_property("naturalWidth", 0)


def test_escape_closes_the_picture_and_focus_returns_to_its_tile(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=red")
    tile = page.locator(".tile").nth(1)
    id = tile.get_attribute("data-id")
    tile.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page).to_have_url(re.compile(f"show={id}"))
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page).to_have_url(re.compile(r"\?q=red$"))
    assert page.evaluate("document.activeElement.dataset.id") == id


def test_arrow_keys_step_through_the_pictures(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=red")
    second = page.locator(".tile").nth(1).get_attribute("data-id")
    page.locator(".tile").first.click()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(f"show={second}"))
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(r"\?q=red$"))


def test_more_like_this_finds_others_without_the_picture_itself(page_on_server: Watched) -> None:
    page = page_on_server.open("/?show=blue-6")
    page.get_by_role("button", name="More like this").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page).to_have_url(re.compile(r"\?like=blue-6$"))
    expect(page.locator(".tile")).to_have_count(9)
    assert "blue-6" not in ids(page)
    first_is(page, "blue")
    expect(page.locator("#chip img")).to_be_visible()


def test_name_it_shows_the_texts_that_fit(page_on_server: Watched) -> None:
    page = page_on_server.open("/?show=green-9")
    page.get_by_role("button", name="Suggest texts").click()
    expect(page.locator(".labels li").first).to_contain_text("a green thing")


def test_back_returns_to_the_search_before(page_on_server: Watched) -> None:
    page = page_on_server.open()
    page.locator("#box").fill("red")
    page.keyboard.press("Enter")
    first_is(page, "red")
    page.locator("#box").fill("blue")
    page.keyboard.press("Enter")
    first_is(page, "blue")
    page.locator(".tile").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("dialog")).to_be_hidden()
    first_is(page, "blue")
    page.go_back()
    first_is(page, "red")
    expect(page.locator("#box")).to_have_value("red")
    page.go_back()
    expect(page.locator("#box")).to_have_value("")
    expect(page.locator(".tile").first).to_have_attribute("data-id", "green-9")
    page.go_forward()
    first_is(page, "red")


def test_back_loads_a_list_that_had_not_arrived_before(page_on_server: Watched) -> None:
    page_on_server.page.route("**/v1/images?*", lambda route: None, times=1)  # the page aborts this request
    page = page_on_server.open()
    page.locator("#box").fill("red")
    first_is(page, "red")
    page.go_back()
    expect(page.locator(".tile").first).to_have_attribute("data-id", "green-9")


def test_back_returns_to_a_search_by_a_dropped_picture(page_on_server: Watched) -> None:
    page = page_on_server.open()
    drop(page, ["mine.png"], picture("blue", seed=77))
    first_is(page, "blue")
    page.locator("#home").click()
    expect(page.locator(".tile").first).to_have_attribute("data-id", "green-9")
    page.go_back()
    first_is(page, "blue")
    expect(page.locator("#chip img")).to_be_visible()


def test_that_a_dropped_picture_is_lost_is_told_once_and_only_of_a_reload(page_on_server: Watched) -> None:
    page = page_on_server.open()
    for told in (True, False):
        drop(page, ["mine.png"], picture("blue", seed=77))
        first_is(page, "blue")
        if told:
            page.reload()
        else:
            page_on_server.open()  # the same address, asked for anew
        expect(page.locator("#count")).to_have_text("10 pictures")
        expect(page.locator("#banner")).to_be_visible(visible=told)
        choose(page, "中文")
        choose(page, "English")
        expect(page.locator("#banner")).to_be_hidden()


def test_an_address_opens_the_search_that_it_holds(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=red&target=texts")
    expect(page.locator(".list li").first).to_contain_text("a red thing")
    expect(page.locator("#box")).to_have_value("red")
    expect(page.get_by_role("link", name="Pictures")).to_be_visible()
