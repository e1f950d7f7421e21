"""The filter of the page: its dialog, its chips, its place in the address, and what the server is asked."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.app.web.test_access import AXE, faults
from tests.app.web.watched import Watched, choose, ids


def find_field(page: Page, name: str) -> Locator:
    """A field of the dialog."""
    return page.locator("#filter-dialog").get_by_label(name)


def chips(page: Page) -> list[str]:
    """What the chips say."""
    return [text.removesuffix(" ×") for text in page.locator("#filters button").all_inner_texts()]


def test_a_tag_filters_what_is_listed_and_what_is_found(page_on_server: Watched) -> None:
    page = page_on_server.open()
    expect(page.locator(".tile")).to_have_count(10)
    page.get_by_role("button", name="Filter", exact=True).click()
    find_field(page, "Tag").fill("blue")
    page.keyboard.press("Enter")
    expect(page.locator(".tile")).to_have_count(4)
    assert chips(page) == ["tag: blue"]
    expect(page.locator("#count")).to_have_text("4 pictures · newest first")
    assert page.url.endswith("?tag=blue")
    page.locator("#box").fill("red")
    expect(page.locator("#count")).to_have_attribute("title", re.compile("Showing 4 of 4"))
    assert {id.split("-")[0] for id in ids(page)} == {"blue"}
    page.reload()
    expect(page.locator(".tile")).to_have_count(4)
    page.get_by_role("button", name="Remove the filter “tag: blue”").click()
    expect(page.locator(".tile")).to_have_count(10)
    assert page.locator("#filters").is_hidden()
    assert page.evaluate("document.activeElement.id") == "filter"
    page.go_back()
    expect(page.locator(".tile")).to_have_count(4)
    assert chips(page) == ["tag: blue"]


def test_the_dialog_is_used_by_keys_and_closed_without_a_change(page_on_server: Watched) -> None:
    page = page_on_server.open("/?tag=red&format=png")
    expect(page.locator(".tile")).to_have_count(5)
    page.locator("#filter").focus()
    page.keyboard.press("Enter")
    expect(find_field(page, "Tag")).to_be_focused()
    expect(find_field(page, "Format")).to_have_value("png")
    page.keyboard.press("Escape")
    assert chips(page) == ["tag: red", "format: png"]
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.press("Enter")
    find_field(page, "Metadata: name").fill("made.by")
    find_field(page, "Taken (or added) from").press("Enter")
    expect(find_field(page, "Metadata: value")).to_be_focused()  # a name alone is sent back
    find_field(page, "Metadata: value").fill("test")
    find_field(page, "Format").select_option("")
    find_field(page, "Taken (or added) from").fill("2020-01-31")
    page.get_by_role("dialog").get_by_role("button", name="Filter").click()
    expect(page.locator("#filters button")).to_have_count(3)
    assert chips(page) == ["tag: red", "from 2020-01-31", "made.by=test"]
    expect(page.locator(".tile")).to_have_count(5)


def test_what_passes_nothing_is_said_and_texts_have_no_tags(page_on_server: Watched) -> None:
    page = page_on_server.open("/?tag=nothing&to=2020-01-01&q=red")
    expect(page.locator("#results")).to_contain_text("No pictures match these filters")
    choose(page, "Texts")
    expect(page.locator("#filters button")).to_have_count(1)
    assert chips(page) == ["until 2020-01-01"]
    page.locator("#filters button").click()
    expect(page.locator(".list li").first).to_be_visible()


def test_an_address_is_read_strictly_and_asked_as_the_server_takes_it(page_on_server: Watched) -> None:
    page = page_on_server.open()

    def filter(address: str, target: str = "images") -> Any:
        return page.evaluate(
            """async ([address, target]) => {
                const { readFilter, buildFilter } = await import("/web/state/filter.js");
                return buildFilter(readFilter(new URLSearchParams(address)), target)?.must ?? null;
            }""",
            [address, target],
        )

    assert filter("") is filter("tag=&format=jpg&from=x&to=2026-02-31x&meta=a&meta==b") is None
    assert filter("tag=a&tag=a&tag=%20b") == [
        {"key": "tags", "match": {"value": "a"}},
        {"key": "tags", "match": {"value": "b"}},
    ]
    assert filter("format=png&format=gif") == [{"key": "format", "match": {"value": "png"}}]
    assert filter("meta=a.b=5") == [{"key": 'metadata."a"."b"', "match": {"any": ["5", 5]}}]
    assert filter("meta=a=true") == [{"key": 'metadata."a"', "match": {"any": ["true", True]}}]
    assert filter("meta=a=1=2") == [{"key": 'metadata."a"', "match": {"any": ["1=2"]}}]
    assert filter("tag=a&format=png", "texts") is None
    (day,) = filter("to=2026-01-31", "texts")
    assert page.evaluate("at => new Date(at).toString()", day["range"]["lt"]).startswith("Sun Feb 01 2026 00:00:00")
    (day,) = filter(
        "from=2026-01-31"
    )  # of pictures the day on which they were taken, else that on which they were added
    taken, added = day["should"]
    assert taken == {"key": "taken_at", "range": {"gte": "2026-01-31"}}
    assert added["must"][0] == {"is_null": {"key": "taken_at"}}
    assert len(filter("&".join(f"tag=t{n}" for n in range(50)))) == 20


@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}],
    ids=["light", "dark", "phone"],
)
def test_nothing_serious_in_the_filter(browser: Any, page_server: Any, options: dict[str, Any]) -> None:
    watched = Watched(browser, page_server.url, bypass_csp=True, **options)
    page = watched.open("/?tag=red&from=2020-01-01&meta=made.by=test")
    expect(page.locator("#filters button")).to_have_count(3)
    expect(page.locator(".tile")).to_have_count(5)
    page.evaluate(AXE)
    assert faults(page) == []
    page.locator("#filter").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert faults(page) == []
    watched.context.close()
