"""The order of the results, groups of similar pictures, links that narrow them, and feedback on pictures."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.app.web.test_access import faults
from tests.app.web.watched import Watched, ids


def facets(page: Page) -> list[str]:
    """What the links that narrow the results say."""
    return page.locator("#facets a").all_inner_texts()


def test_the_list_and_the_hits_are_put_in_order(page_on_server: Watched) -> None:
    page = page_on_server.open()
    expect(page.locator(".tile")).to_have_count(10)
    newest = ids(page)
    fonts = page.locator("#sort, #filter").evaluate_all("all => all.map(one => getComputedStyle(one).fontFamily)")
    assert len(set(fonts)) == 1
    page.get_by_label("Order").select_option("Oldest")
    expect(page).to_have_url(re.compile(r"\?sort=created_at$"))
    expect(page.locator(".tile").first).to_have_attribute("data-id", newest[-1])
    assert ids(page) == newest[::-1]
    page.locator("#box").fill("red")
    expect(page.locator("#count")).to_have_text("Matches for “red”, sorted")
    assert ids(page) == newest[::-1]  # all of them are hits
    page.get_by_label("Order").select_option("Best match")
    expect(page).to_have_url(re.compile(r"\?q=red$"))
    page.go_back()
    expect(page.get_by_label("Order")).to_have_value("created_at")


def test_similar_pictures_are_shown_as_one(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=red")
    expect(page.locator(".tile")).to_have_count(10)
    button = page.get_by_role("button", name="Group similar")
    button.click()
    expect(page.locator(".tile")).to_have_count(3)
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".more-similar").first).to_have_text("+4")
    assert "4 more like it" in (page.locator(".tile").first.get_attribute("title") or "")
    page.reload()
    expect(page.locator(".tile")).to_have_count(3)
    button.click()
    expect(page.locator(".tile")).to_have_count(10)


def test_links_narrow_the_results_by_what_only_some_have(page_on_server: Watched) -> None:
    page = page_on_server.open()
    expect(page.locator(".tile")).to_have_count(10)
    expect(page.locator("#facets")).to_be_hidden()  # nobody has searched yet
    page.locator("#box").fill("red")
    expect(page.locator("#facets a")).to_have_text(["red 5", "blue 4", "green 1"])
    assert faults(page) == []
    page.get_by_role("link", name="blue, 4 pictures").click()
    expect(page.locator(".tile")).to_have_count(4)
    expect(page).to_have_url(re.compile(r"\?q=red&tag=blue$"))
    expect(page.locator("#facets")).to_be_hidden()  # all of them have the tag


def test_feedback_moves_the_search_until_it_is_forgotten(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=red")
    expect(page.locator(".tile")).to_have_count(10)
    first = ids(page)[0]
    page.locator(".tile").first.click()
    page.get_by_role("button", name="Not a match").click()
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator(".tile")).to_have_count(9)
    assert first not in ids(page)
    expect(page).to_have_url(re.compile(rf"\?q=red&unliked={first}$"))
    page.locator("a.tile[data-id=green-9]").click()
    page.get_by_role("button", name="Good match").click()
    expect(page.locator("#feedback button")).to_have_text(["More like 1 picture ×", "Less like 1 picture ×"])
    assert faults(page) == []
    page.get_by_role("button", name="Forget: More like 1 picture").click()
    expect(page.locator("#feedback button")).to_be_focused()
    page.locator("#box").fill("blue")
    expect(page).to_have_url(re.compile(r"\?q=blue$"))
    expect(page.locator("#feedback")).to_be_hidden()
    expect(page.locator(".tile")).to_have_count(10)


def test_labels_have_no_order_and_no_groups(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=red&target=texts&sort=created_at&grouped=1&unliked=red-1")
    expect(page.locator(".list li")).to_have_count(3)
    for name in ("sort", "group", "feedback", "facets"):
        expect(page.locator(f"#{name}")).to_be_hidden()
