"""What the page makes of typed words, and the rows that it computes: its own modules, asked in the browser."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.web.watched import Watched, settle
from tests.support.servers import RunningServer, wait_until
from tests.support.typed_queries import TYPED


@pytest.fixture
def page(page_on_server: Watched) -> Page:
    return page_on_server.open()


def test_words_and_what_to_turn_away_from(page: Page) -> None:
    def parse_in_page(q: str) -> tuple[str, list[str]]:
        found: dict[str, Any] = page.evaluate('async q => (await import("/web/state/query.js")).parseQuery(q)', q)
        return found["words"], found["without"]

    for typed, words, without in TYPED:
        assert parse_in_page(typed) == (words, without)


def test_weights_of_the_parts(page: Page) -> None:
    def parts(**query: Any) -> list[dict[str, Any]]:
        asked = {"q": "", "like": [], "weight": 0.5, **query}
        found: list[dict[str, Any]] = page.evaluate(
            'async ([q, image]) => (await import("/web/state/query.js")).buildParts({ ...q, file: image }, image)',
            [asked, query.get("file")],
        )
        return found

    assert parts(q="beach -people") == [{"text": "beach"}, {"text": "people", "weight": -0.7}]
    assert parts(like=["a"]) == [{"image_id": "a"}]
    both = parts(q="beach -people", like=["a", "b"], weight=0.8)
    assert [part["weight"] for part in both] == [0.2, -0.14, 0.4, 0.4]
    mixed = parts(q="beach", file="AAAA", weight=0.3)
    assert mixed == [{"text": "beach", "weight": 0.7}, {"image": "AAAA", "weight": 0.3}]


def test_addresses_are_read_strictly(page_on_server: Watched) -> None:
    page = page_on_server.page

    def state(path: str) -> dict[str, Any]:
        page_on_server.open(path)
        found: dict[str, Any] = page.evaluate('async () => (await import("/web/state/url_state.js")).readState()')
        return found

    assert state("/?like=red-0,red-0,../x,<b>,blue-5")["like"] == ["red-0", "blue-5"]
    assert len(state("/?like=" + ",".join(f"a{n}" for n in range(40)))["like"]) == 16
    for weight, kept in (("0.8", 0.8), ("7", 0.5), ("-1", 0.5), ("x", 0.5), ("0.33", 0.35)):
        assert state(f"/?q=red&like=red-0&weight={weight}")["weight"] == kept
    page_on_server.faults.clear()  # searches by unknown pictures were refused


ROWS = """async ([ratios, done]) => {
    const { addRows } = await import("/web/components/grid_layout.js");
    const rows = [], steps = [];
    for (let n = 0; n <= ratios.length; n += 7) {
        addRows(rows, ratios.slice(0, n), { width: 1000, height: 190, gap: 14, below: 44, done: false });
        steps.push(rows.map(row => ({ ...row })));
    }
    addRows(rows, ratios, { width: 1000, height: 190, gap: 14, below: 44, done });
    return [steps, rows];
}"""


def test_rows_fill_the_width_and_never_change_when_more_arrives(page: Page) -> None:
    ratios = [0.6 + (n * 37 % 19) / 10 for n in range(100)]
    steps, rows = page.evaluate(ROWS, [ratios, True])
    for step in steps:
        assert step == rows[: len(step)]
    assert [row["first"] for row in rows[1:]] == [row["end"] for row in rows[:-1]]
    assert rows[0]["first"] == 0
    assert rows[-1]["end"] == len(ratios)
    for row in rows[:-1]:
        width = sum(ratios[row["first"] : row["end"]]) * row["height"] + 14 * (row["end"] - row["first"] - 1)
        assert abs(width - 1000) < 0.01
        assert 190 / 1.9 < row["height"] <= 190 * 1.3 + 0.01
    for one, other in itertools.pairwise(rows):
        assert abs(other["top"] - one["top"] - one["height"] - 44) < 0.01
    assert rows[-1]["height"] <= sorted(row["height"] for row in rows)[len(rows) // 2]  # short, and no taller for it
    _, same = page.evaluate(ROWS, [[1.2] * 22, True])
    assert len({row["height"] for row in same}) == 1
    assert same[-1]["end"] - same[-1]["first"] < same[0]["end"]
    _, kept = page.evaluate(ROWS, [ratios, False])
    assert kept[-1]["end"] < len(ratios)  # the last row waits until it is full


def test_where_nothing_fits_the_page_says_so_and_shows_the_nearest(
    large_page: Watched, large_server: RunningServer
) -> None:
    def is_unfit() -> bool:
        found = large_server.http.get("/v1/search", params={"q": "pink"}).json()
        return bool(found["verdict"]["match"] == "none")

    wait_until(is_unfit, 60, large_server.output)
    page = large_page.open("/?q=pink")
    expect(page.locator("#count")).to_have_text("Nothing fits well; nearest to “pink”:")
    expect(page.locator("#results")).to_have_class("unfit")
    expect(page.locator(".cell").first).to_be_visible()
    page.locator("#box").fill("red")
    expect(page.locator("#count")).to_have_text("Best matches for “red”")
    expect(page.locator("#results")).not_to_have_class("unfit")


LINE_ROWS = """async ([ratios, lineAt]) => {
    const { addRows } = await import("/web/components/grid_layout.js");
    const rows = [], size = { width: 1000, height: 190, gap: 14, below: 44, lineAt, lineHeight: 50 };
    for (const done of [false, false, true]) {
        const n = done ? ratios.length : rows.length ? 40 : 20;
        addRows(rows, ratios.slice(0, n), { ...size, done });
    }
    return rows;
}"""


@pytest.mark.parametrize("at", [1, 7, 20, 33, 59])
def test_the_item_below_a_line_begins_a_row(at: int, page: Page) -> None:
    ratios = [0.6 + (n * 37 % 19) / 10 for n in range(60)]
    rows = page.evaluate(LINE_ROWS, [ratios, at])
    (below,) = (n for n, row in enumerate(rows) if row["first"] == at)
    for n, (one, other) in enumerate(itertools.pairwise(rows), 1):
        room = 50 if n == below else 0
        assert abs(other["top"] - one["top"] - one["height"] - 44 - room) < 0.01
        assert one["end"] == other["first"]


FIND_LINE = """async ([hits, verdict, state]) => {
    const { findFitLine } = await import("/web/state/fit_line.js");
    return findFitLine(hits, verdict, { q: "a red car", sort: "", target: "images", ...state });
}"""
FITS: dict[str, Any] = {"score": 0.5, "highlights": {}}
ALL_WORDS: dict[str, Any] = {"score": 0.1, "highlights": {"caption": ["Red"], "tags": ["red", "car"]}}
A_WORD: dict[str, Any] = {"score": 0.1, "highlights": {"caption": ["red"]}}
NEAREST: dict[str, Any] = {"score": 0.3}
GOOD = {"match": "good", "confidence": 1, "threshold": 0.4}


@pytest.mark.parametrize(
    ("hits", "verdict", "state", "line"),
    [
        ([FITS, ALL_WORDS, A_WORD, NEAREST], GOOD, {}, 2),
        ([FITS, A_WORD, NEAREST, FITS] + [NEAREST] * 20, GOOD, {}, 4),
        ([FITS] + [NEAREST] * 20 + [FITS], GOOD, {}, 1),
        ([FITS] * 3, GOOD, {}, None),
        ([NEAREST] * 3, GOOD, {}, None),
        ([FITS, NEAREST], {**GOOD, "match": "weak"}, {}, 1),
        ([FITS, NEAREST], {**GOOD, "match": "none"}, {}, None),
        ([FITS, NEAREST], {**GOOD, "threshold": None}, {}, None),
        ([FITS, NEAREST], None, {}, None),
        ([FITS, NEAREST], GOOD, {"sort": "-taken_at"}, None),
        ([FITS, NEAREST], GOOD, {"target": "texts"}, None),
        ([{**A_WORD, "highlights": {"tags": ["笑脸"]}}, NEAREST], GOOD, {"q": "笑脸"}, 1),
        ([{**A_WORD, "highlights": {"tags": ["at"]}}, NEAREST], GOOD, {"q": "at"}, None),
    ],
)
def test_a_line_is_below_the_hits_that_fit(
    hits: list[Any], verdict: Any, state: dict[str, str], line: int | None, page: Page
) -> None:
    assert page.evaluate(FIND_LINE, [hits, verdict, state]) == line


def test_the_page_draws_a_line_between_what_fits_and_what_is_only_near(
    large_page: Watched, large_server: RunningServer, browser: Browser
) -> None:
    def knows_threshold() -> bool:
        found = large_server.http.get("/v1/search", params={"q": "red"}).json()["verdict"]
        return found["match"] == "good" and found["threshold"] is not None

    wait_until(knows_threshold, 60, large_server.output)
    page = large_page.open("/?q=red")  # a hundred have the word, of which the first answer has sixty
    line = page.locator(".fit-line")
    for _ in range(100):
        if line.count():
            break
        page.mouse.wheel(0, 300)
        settle(page)
    expect(line).to_have_text("Below this line: nearest, but probably not what you mean")
    above, below = line.locator("xpath=preceding-sibling::li[1]"), line.locator("xpath=following-sibling::li[1]")
    expect(above.locator("a")).to_have_attribute("data-id", re.compile("^red-"))
    expect(below.locator("a")).not_to_have_attribute("data-id", re.compile("^red-"))
    expect(below).to_have_attribute("aria-posinset", "101")
    boxes = [one.bounding_box() for one in (above, line, below)]
    tops = [(box["y"], box["y"] + box["height"]) for box in boxes if box is not None]
    assert tops[0][1] <= tops[1][0] + 1
    assert tops[1][1] <= tops[2][0] + 1
    page.locator("#box").fill("")
    expect(line).to_have_count(0)
    watched = Watched(browser, large_server.url, locale="zh-CN", viewport={"width": 360, "height": 640})
    page = watched.open("/?q=blue")
    for _ in range(200):
        if page.locator(".fit-line").count():
            break
        page.mouse.wheel(0, 300)
        settle(page)
    expect(page.locator(".fit-line")).to_have_text("此线以下：最接近，但可能不是要找的图片")
    watched.context.close()
    assert watched.faults == []
