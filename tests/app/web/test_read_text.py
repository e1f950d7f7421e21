"""The text that was read in a picture, in its detail."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from app.storage.address import open_database
from app.storage.sql import Connection
from app.storage.tables import enrichments, images
from app.storage.tables.enrichments import Enrichment
from tests.app.web.watched import Watched
from tests.support.printed import printed
from tests.support.servers import RunningServer

LINES = [
    {"text": "Harbour lantern", "score": 0.99, "box": [[0.05, 0.1], [0.4, 0.1], [0.4, 0.2], [0.05, 0.2]]},
    {"text": "open <b>daily</b>", "score": 0.95, "box": [[0.05, 0.3], [0.3, 0.3], [0.3, 0.4], [0.05, 0.4]]},
]


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a picture that is read, as the process of the second pass does, and one that is not."""
    with RunningServer(tmp_path_factory.mktemp("signs")) as server:
        assert server.upload(printed("Harbour lantern", "open daily"), id="sign").status_code == 200
        assert server.upload(printed(""), id="blank").status_code == 200
        database = open_database(server.data_dir / "sightline.db")

        def read(c: Connection) -> None:
            enrichments.switch(c, ["ocr"])
            image = images.get(c, "default", "sign")
            assert image is not None
            enrichments.request(c, "ocr", [image.key])
            claimed = enrichments.claim(c, "ocr", "test")
            assert claimed is not None
            text = "\n".join(str(line["text"]) for line in LINES)
            enrichments.finish(c, claimed, Enrichment({"ocr_text": text}, {"lines": LINES}))

        database.write(read)
        database.close()
        yield server


@pytest.fixture
def page(browser: Browser, signs: RunningServer) -> Iterator[Page]:
    watched = Watched(browser, signs.url)
    watched.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=signs.url)
    yield watched.open()
    watched.context.close()
    assert watched.faults == []


def test_the_text_is_shown_and_its_lines_are_drawn_on_request(page: Page) -> None:
    page.locator(".tile[data-id=sign]").click()
    section = page.get_by_role("dialog").locator("section", has=page.get_by_role("heading", name="Text in the picture"))
    expect(section.locator("p")).to_have_text("Harbour lantern\nopen <b>daily</b>")
    boxes = page.locator(".stage polygon")
    expect(boxes).to_have_count(0)
    toggle = section.get_by_role("button", name="Show on the picture")
    toggle.focus()
    page.keyboard.press("Enter")
    expect(boxes).to_have_count(2)
    expect(toggle).to_have_attribute("aria-pressed", "true")
    drawn, shown = boxes.first.bounding_box(), page.locator(".stage img").bounding_box()
    assert drawn is not None
    assert shown is not None
    assert abs(drawn["x"] - (shown["x"] + 0.05 * shown["width"])) < 6
    assert abs(drawn["y"] - (shown["y"] + 0.1 * shown["height"])) < 6
    page.locator("[data-action=zoom_in]").click()
    assert page.locator(".stage .lines").evaluate("one => one.style.transform === one.previousSibling.style.transform")
    section.get_by_role("button", name="Copy the text").click()
    assert page.evaluate("navigator.clipboard.readText()") == "Harbour lantern\nopen <b>daily</b>"
    toggle.click()
    expect(boxes).to_have_count(0)


def test_a_search_marks_the_words_and_their_lines(page: Page) -> None:
    page.get_by_role("searchbox").fill("lantern")
    page.keyboard.press("Enter")
    page.locator(".tile[data-id=sign]").click()
    expect(page.get_by_role("dialog").locator("mark")).to_have_text("lantern")
    expect(page.locator(".stage polygon")).to_have_count(2)
    expect(page.locator(".stage polygon.found")).to_have_count(1)
    expect(page.get_by_role("dialog")).to_contain_text("text in the picture: lantern")


def test_a_list_shows_the_words_that_were_read_in_a_picture(page: Page) -> None:
    tile = page.locator(".tile[data-id=sign]")
    expect(tile).to_be_visible()
    expect(tile.locator("mark")).to_have_count(0)
    page.get_by_role("searchbox").fill("daily")
    page.keyboard.press("Enter")
    expect(tile.locator("mark")).to_have_text("daily")
    found = tile.locator(".found")
    expect(found).to_have_text("… lantern open <b>daily</b>")
    expect(tile).to_have_attribute("title", re.compile("text in the picture: daily"))
    name, line = tile.locator(".caption").bounding_box(), found.bounding_box()
    assert name is not None
    assert line is not None
    assert line["y"] >= name["y"] + name["height"] - 5
    assert line["height"] > 15
    expect(page.locator(".tile[data-id=blank] .found")).to_have_count(0)


SNIPPET = """async ([text, words]) => {
    const { markSnippet } = await import("/web/components/marked_text.js");
    const holder = document.createElement("p");
    holder.append(...markSnippet(text, words));
    return [holder.textContent, [...holder.querySelectorAll("mark")].map(one => one.textContent)];
}"""


@pytest.mark.parametrize(
    ("text", "words", "shown", "marked"),
    [
        ("open\ndaily  from nine", ["daily"], "open daily from nine", ["daily"]),
        ("a b c d e f g h i j k Total 12.50", ["total"], "… f g h i j k Total 12.50", ["Total"]),
        ("a" * 90 + "Total", ["Total"], "… " + "a" * 24 + "Total", ["Total"]),
        ("这家店每天早上九点开门直到晚上十点为止欢迎大家光临本店谢谢惠顾", ["光临"], None, ["光临"]),
        ("one two " * 60, ["two"], ("one two " * 20), ["two"] * 20),
        ("nothing of it", ["(x|"], "nothing of it", []),
    ],
)
def test_a_snippet_is_a_line_around_the_first_word(
    page: Page, text: str, words: list[str], shown: str | None, marked: list[str]
) -> None:
    snippet, marks = page.evaluate(SNIPPET, [text, words])
    assert marks == marked
    assert shown is None or snippet == shown
    assert len(snippet) <= 162


def test_a_picture_without_text_has_no_section(page: Page) -> None:
    page.locator(".tile[data-id=blank]").click()
    expect(page.get_by_role("dialog").get_by_role("heading", name="Details")).to_be_visible()
    expect(page.get_by_role("heading", name="Text in the picture")).to_have_count(0)
