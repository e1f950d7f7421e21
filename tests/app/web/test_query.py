"""What the page makes of typed words, and the rows that it computes: its own modules, asked in the browser."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.app.web.watched import Watched
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
