"""What a newcomer meets: an empty page, names of files, small and transparent pictures, drops, the demo's examples."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.app.web.test_access import faults
from tests.app.web.watched import Watched, choose
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until

COVER = """name => {
    const carried = new DataTransfer();
    carried.items.add(new File(["x"], name, { type: "image/png" }));
    document.body.dispatchEvent(new DragEvent("dragenter", { dataTransfer: carried, bubbles: true }));
}"""


def png(size: tuple[int, int], colour: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def mixed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Pictures of a folder: small, transparent, one with a caption; `demo` looks like the gallery; `empty` is empty."""
    with RunningServer(tmp_path_factory.mktemp("mixed") / "data") as server:
        for name in ("demo", "empty"):
            assert server.http.post("/v1/collections", json={"name": name}).status_code == 201
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("pics/food/cake.png", png((60, 40), (200, 90, 90)))
            archive.writestr("pics/police.png", png((60, 60), (255, 255, 255, 0)))
            archive.writestr("loose.png", picture("blue", seed=3, size=(900, 600)))
            archive.writestr("said.png", picture("red", seed=4, size=(900, 600)))
            said = {
                "file": "said.png",
                "caption": "a red thing",
                "tags": ["festive", "red"],
                "metadata": {"place": "Ulm"},
            }
            other = {"file": "loose.png", "tags": ["other", "festive"]}
            archive.writestr("metadata.jsonl", f"{json.dumps(said)}\n{json.dumps(other)}")
        assert server.wait_job(server.bulk([("pics.zip", out.getvalue())])["id"])["done"] == 4
        shown = {"metadata": '{"emoji": ["🚗"], "style": "none"}', "collection": "demo"}
        assert server.upload(picture("red", seed=8), "0000.webp", wait=30, **shown).status_code == 200
        yield server


@pytest.fixture
def newcomer(browser: Browser, mixed_server: RunningServer) -> Iterator[Watched]:
    watched = Watched(browser, mixed_server.url, bypass_csp=True)
    yield watched
    watched.context.close()
    assert watched.faults == []


def cell(page: Page, name: str) -> list[str]:
    """The two lines below a picture."""
    tile = page.locator(".tile", has_text=name)
    return [tile.locator(".caption").inner_text(), tile.locator(".folder").inner_text()]


def test_a_tile_goes_by_the_base_name_and_says_the_folder(newcomer: Watched) -> None:
    page = newcomer.open()
    expect(page.locator("#count")).to_have_text("4 pictures")
    assert cell(page, "cake.png") == ["cake.png", "pics/food"]
    assert cell(page, "loose.png") == ["loose.png", ""]
    assert cell(page, "a red thing") == ["a red thing", ""]
    expect(page.locator(".tile", has_text="cake.png")).to_have_attribute("title", "pics/food/cake.png")
    expect(page.locator(".tile", has_text="a red thing")).to_have_attribute("title", "a red thing\nsaid.png")


def test_a_small_picture_is_at_most_twice_as_large_and_a_transparent_one_is_on_grey(newcomer: Watched) -> None:
    page = newcomer.open()
    small = page.locator(".tile", has_text="cake.png").locator("img")
    expect(small).not_to_have_js_property("naturalWidth", 0)
    box, frame = small.bounding_box(), page.locator(".tile", has_text="cake.png").locator(".frame").bounding_box()
    assert box
    assert frame
    assert (round(box["width"]), round(box["height"])) == (120, 80)
    assert frame["height"] > 100
    clear = page.locator(".tile", has_text="police.png").locator("img")
    expect(clear).to_have_css("background-image", re.compile("conic-gradient"))
    expect(page.locator(".tile", has_text="a red thing").locator("img")).to_have_css("object-fit", "cover")


def test_a_panorama_gets_a_thumbnail_that_is_sharp_at_its_height(browser: Browser, mixed_server: RunningServer) -> None:
    mixed_server.http.post("/v1/collections", json={"name": "wide"})
    wide = picture("green", seed=9, size=(1800, 200))
    assert mixed_server.upload(wide, "wide.png", wait=30, collection="wide").status_code == 200
    watched = Watched(browser, mixed_server.url)
    page = watched.open("/?collection=wide")
    expect(page.locator(".tile img")).to_have_js_property("naturalWidth", 1024)
    watched.context.close()


def test_a_phone_takes_a_photo_to_add(browser: Browser, mixed_server: RunningServer) -> None:
    watched = Watched(browser, mixed_server.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = watched.open("/?collection=empty")
    expect(page.locator(".welcome").get_by_role("button", name="Take a photo")).to_be_visible()
    page.locator("#add").tap()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("dialog").get_by_role("button", name="Take a photo").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    watched.context.close()
    newcomer = Watched(browser, mixed_server.url)
    page = newcomer.open("/?collection=empty")
    expect(page.locator(".welcome")).to_be_visible()
    expect(page.locator(".welcome").get_by_role("button", name="Take a photo")).to_be_hidden()  # a mouse
    newcomer.context.close()


def test_an_empty_collection_begins_with_ones_own_pictures(newcomer: Watched) -> None:
    page = newcomer.open("/?collection=empty")
    welcome = page.locator(".welcome")
    expect(welcome.get_by_role("heading")).to_have_text("Add your pictures")
    expect(welcome.get_by_role("button")).to_have_text(["Choose pictures", "Choose a folder"])
    expect(page.get_by_role("button", name="Try the demo gallery")).to_have_count(0)
    expect(page.get_by_role("button", name="Select")).to_be_hidden()  # there is nothing
    assert faults(page) == []


def test_a_drop_keeps_the_page_in_sight_and_names_the_collection(newcomer: Watched) -> None:
    page = newcomer.open("/?collection=demo")
    expect(page.locator(".tile")).to_have_count(1)
    page.evaluate(COVER, "a.png")
    add, search = page.locator("[data-zone=add]"), page.locator("[data-zone=search]")
    expect(add).to_have_text("Add to “demo”")
    expect(search).to_have_text("Find similar pictures")
    larger, smaller = add.bounding_box(), search.bounding_box()
    assert larger
    assert smaller
    assert larger["height"] > 1.5 * smaller["height"]
    colour = page.locator("#drop-zones").evaluate("one => getComputedStyle(one).backgroundColor")
    assert 0 < float(colour.rstrip(")").split("/")[-1]) < 0.6, colour


def test_the_demo_offers_searches_and_other_lists_do_not(newcomer: Watched) -> None:
    page = newcomer.open()
    expect(page.locator(".tile")).to_have_count(4)
    expect(page.locator("#examples")).to_be_hidden()
    newcomer.open("/?collection=demo")
    page.locator("#examples").get_by_role("link", name="red car").click()
    expect(page).to_have_url(f"{newcomer.url}/?collection=demo&q=red+car")
    expect(page.locator("#count")).to_have_text("Best matches for “red car”")
    expect(page.locator("#examples")).to_be_hidden()
    choose(page, "中文")
    page.go_back()
    expect(page.locator("#examples").get_by_role("link", name="红色的汽车")).to_be_visible()


def test_all_are_selected_wherever_the_focus_is(newcomer: Watched) -> None:
    page = newcomer.open()
    expect(page.locator(".tile")).to_have_count(4)
    page.locator("#select").click()
    page.keyboard.press("Control+a")
    expect(page.locator("#selection")).to_contain_text("4 selected")
    page.keyboard.press("Escape")
    page.locator("#box").focus()
    page.keyboard.press("Control+a")  # in an empty box
    expect(page.locator("#selection")).to_contain_text("4 selected")
    page.keyboard.press("Escape")
    page.locator("#box").fill("red")
    expect(page.locator("#count")).to_contain_text("Best matches")
    page.keyboard.press("Control+a")  # selects the words
    expect(page.locator("#selection")).to_be_hidden()
    assert page.evaluate("getSelection().toString()") == "red"


def test_the_filter_completes_tags_and_metadata_and_replaces_the_tag(newcomer: Watched) -> None:
    page = newcomer.open("/?tag=red")
    expect(page.locator("#count")).to_have_text("1 picture")
    page.locator("#filter").click()
    options = "list => [...list.options].map(one => one.value)"
    expect(page.locator("#known-tags option")).to_have_count(3)
    assert page.locator("#known-tags").evaluate(options) == ["festive", "other", "red"]  # also of what is not shown
    form = page.locator("#filter-dialog")
    form.get_by_label("Metadata: name").fill("place")
    form.get_by_label("Metadata: name").blur()
    assert page.locator("#known-names").evaluate(options) == ["place"]
    assert page.locator("#known-values").evaluate(options) == ["Ulm"]
    form.get_by_label("Metadata: name").fill("")
    expect(form.get_by_label("Tag")).to_have_value("red")
    form.get_by_label("Tag").fill("blue")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{newcomer.url}/?tag=blue")
    page.get_by_role("button", name="Clear filters").click()
    expect(page).to_have_url(f"{newcomer.url}/")
    expect(page.locator(".tile")).to_have_count(4)


def test_the_limit_of_the_model_is_said_once_and_stays_in_the_help(newcomer: Watched) -> None:
    page = newcomer.open("/?collection=empty")
    expect(page.locator("#results .notice")).to_contain_text("sightline serve --data-dir photos --model photos")
    expect(page.locator("#model-notice")).to_be_hidden()
    page.evaluate("localStorage.clear()")
    newcomer.open("/?q=red")
    notice = page.locator("#model-notice")
    expect(notice).to_contain_text("a model that sees colours only")
    choose(page, "中文")
    expect(notice).to_contain_text("只能识别颜色")
    choose(page, "English")
    assert faults(page) == []
    newcomer.open("/?q=blue")
    expect(page.locator(".tile").first).to_be_visible()
    expect(notice).to_be_hidden()
    page.evaluate("localStorage.clear()")
    page.reload()
    notice.get_by_role("button", name="What to do").click()
    expect(page.locator("#help-model")).to_contain_text("sightline serve --data-dir photos --model photos")
    page.keyboard.press("Escape")
    notice.get_by_role("button", name="Close").click()
    expect(notice).to_be_hidden()


def test_a_search_that_the_model_cannot_read_is_warned_of(newcomer: Watched) -> None:
    page = newcomer.open("/?q=красная+машина")
    warnings = page.locator("#warnings li")
    expect(warnings).to_have_count(1)
    expect(warnings).to_contain_text("reads English and Chinese")
    expect(warnings).to_contain_text("These results may be unrelated.")
    choose(page, "中文")
    expect(warnings).to_have_text("模型不懂这种语言，结果可能不相关。")
    page.locator("#box").fill("red")
    expect(page.locator("#count")).to_contain_text("red")
    expect(warnings).to_have_count(0)


def test_photographs_are_noticed_once_with_the_command(browser: Browser, tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        for n in range(10):
            assert server.upload(picture("red", n, (1_000, 600), "JPEG"), f"{n}.jpg").status_code == 200
        wait_until(lambda: server.http.get("/v1/models").json()["loaded"]["photographs"], 30.0)
        watched = Watched(browser, server.url)
        page = watched.open()
        notice = page.locator("#model-notice")
        expect(notice).to_contain_text(
            "Your pictures are photographs, and this server's model does not know photographs."
        )
        expect(notice.locator("code")).to_have_text("sightline serve --data-dir photos --model photos")
        page.reload()
        expect(page.locator(".tile")).to_have_count(10)
        expect(notice).to_be_hidden()
        watched.context.close()
        assert watched.faults == []
        assert "most of the newest pictures are photographs" in server.output()
