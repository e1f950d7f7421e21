"""How the page fits: windows, contrast, languages, keyboard, and nothing that moves."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.app.web.watched import Watched, choose, first_is, settle
from tests.support.servers import RunningServer


@pytest.mark.parametrize("width", [360, 800, 2560])
def test_nothing_is_wider_than_the_window(browser: Browser, page_server: RunningServer, width: int) -> None:
    watched = Watched(browser, page_server.url, viewport={"width": width, "height": 740})
    page = watched.page
    for path in ("/", "/?q=red", "/?q=red+-blue&target=texts", "/?q=red&like=blue-6&show=red-1", "/?target=texts"):
        watched.open(path)
        expect(page.locator(".tile, .list, .message").first).to_be_visible()
        wide = page.evaluate(
            """() => [...document.querySelectorAll('body *')].filter(one => one.checkVisibility()
            && !one.closest('.visually-hidden, .skip, .caption, .files, .strip li')  // a strip is scrolled by itself
            && one.getBoundingClientRect().right > innerWidth + 1)
            .map(one => one.outerHTML.slice(0, 80))"""
        )
        assert wide == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        edge = page.evaluate("innerWidth - document.getElementById('search').getBoundingClientRect().right")
        assert edge >= 12
        assert page.locator(".brand").bounding_box()["height"] < 40  # type: ignore[index]
    watched.context.close()
    assert watched.faults == []


@pytest.mark.parametrize(("width", "height"), [(360, 560), (1280, 400)])
def test_the_cross_of_the_large_view_stands_in_its_corner_and_stays(
    browser: Browser, page_server: RunningServer, width: int, height: int
) -> None:
    watched = Watched(browser, page_server.url, viewport={"width": width, "height": height})
    page = watched.open("/?q=red&show=red-1")
    expect(page.locator(".caption-field")).to_be_visible()
    settle(page)
    box = """name => { const { left, right, top, bottom } = document.querySelector(name).getBoundingClientRect();
    return { left, right, top, bottom } }"""
    names = ("#detail", "#detail [data-action=close]", ".caption-field")
    dialog, cross, title = (page.evaluate(box, name) for name in names)
    assert 0 < dialog["right"] - cross["right"] < 30
    assert 0 < cross["top"] - dialog["top"] < 30
    beside = (
        cross["left"] >= title["right"] - 4 and abs(cross["top"] + cross["bottom"] - title["top"] - title["bottom"]) < 8
    )
    assert beside if width > 760 else cross["bottom"] < page.evaluate(box, ".stage")["bottom"]
    page.locator(".side").evaluate("one => one.scrollTo(0, 400)")
    assert page.locator(".side").evaluate("one => one.scrollTop") > 0
    assert page.evaluate(box, "#detail [data-action=close]") == cross
    watched.context.close()


def test_the_bar_of_the_selection_is_one_line_where_there_is_room(page_on_server: Watched) -> None:
    page = page_on_server.open()
    page.locator("#select").click()
    page.locator(".tile").first.click()
    tops = page.locator("#selection button").evaluate_all("all => all.map(one => one.getBoundingClientRect())")
    assert len({round(one["top"] + one["bottom"]) for one in tops}) == 1


def test_a_finger_is_told_of_no_keys_and_of_nothing_to_drop(browser: Browser, page_server: RunningServer) -> None:
    watched = Watched(
        browser, page_server.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, locale="zh-CN"
    )
    page = watched.open()
    for language, other, help in (("中文", "English", "帮助"), ("English", "中文", "Help")):
        fits = "box => { box.value = box.placeholder; return box.scrollWidth <= box.clientWidth }"
        assert page.locator("#box").evaluate(fits), language
        page.locator("#box").evaluate("box => box.value = ''")
        page.locator("#add").tap()
        page.locator("#add-dialog [data-close]").tap()
        choose(page, help)
        expect(page.locator("#help kbd").first).to_be_hidden()
        said = page.evaluate("document.body.innerText + document.getElementById('add-dialog').textContent")
        assert not any(word in said for word in ("drop", "Drop", "拖")), said
        assert "paste" in said or "粘贴" in said
        page.locator("#help [data-close]").tap()
        choose(page, other)
    watched.context.close()
    assert watched.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, page_server: RunningServer, scheme: str) -> None:
    watched = Watched(browser, page_server.url, color_scheme=scheme)
    page = watched.open("/?q=red&show=red-1")
    expect(page.get_by_role("dialog")).to_be_visible()
    pairs = [("text", back) for back in ("background", "raised", "sunken", "selected", "warning-background")]
    pairs += [("muted", "background"), ("muted", "raised"), ("muted", "sunken"), ("on-accent", "accent")]
    pairs += [("error", "error-background"), ("error", "raised")]
    for front, back in pairs:
        assert contrast(colour_of(page, front), colour_of(page, back)) >= 4.5, (scheme, front, back)
    for edge in ("edge", "accent"):
        assert contrast(colour_of(page, edge), colour_of(page, "background")) >= 3, (scheme, edge)
    watched.context.close()


def colour_of(page: Page, name: str) -> tuple[int, ...]:
    """A colour of the style sheet as red, green, blue."""
    value = page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name)", f"--{name}")
    return tuple(bytes.fromhex(value.strip().removeprefix("#")))


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """The ratio of WCAG 2.2."""

    def luminance(colour: tuple[int, ...]) -> float:
        shares = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_chinese_is_chosen_by_the_browser_and_can_be_switched(browser: Browser, page_server: RunningServer) -> None:
    watched = Watched(browser, page_server.url, locale="zh-CN")
    page = watched.open("/?q=红色")
    first_is(page, "red")
    expect(page.locator("#add")).to_contain_text("添加")
    assert page.evaluate("document.documentElement.lang") == "zh"
    page.locator("#box").fill("红色 -蓝色")
    expect(page.locator("#count")).to_have_text("“红色”的最佳匹配，不含“蓝色”")
    choose(page, "English")
    expect(page.locator("#add")).to_have_attribute("title", "Add pictures")
    expect(page.locator("#add")).to_contain_text("Add")
    page.reload()
    expect(page.locator("#add")).to_contain_text("Add")
    watched.context.close()
    assert watched.faults == []


def test_places_are_known_before_the_pictures_arrive(page_on_server: Watched) -> None:
    held: list[Route] = []
    released: list[bool] = []
    page_on_server.page.route("**/thumbnail", lambda route: route.continue_() if released else held.append(route))
    page = page_on_server.open("/?q=red")
    expect(page.locator(".tile")).to_have_count(10)
    boxes = "() => [...document.querySelectorAll('.tile')].map(one => JSON.stringify(one.getBoundingClientRect()))"
    before = page.evaluate(boxes)
    released.append(True)  # what is asked for from here on comes at once
    for route in held:
        route.continue_()
    expect(page.locator(".tile img").first).not_to_have_js_property("naturalWidth", 0)
    page.wait_for_timeout(200)
    assert page.evaluate(boxes) == before


def test_slash_focuses_the_box_and_everything_is_reached_by_tab(page_on_server: Watched) -> None:
    page = page_on_server.open("/?q=red")
    first_is(page, "red")
    page.locator("#menu-button").focus()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "box"
    expect(page.locator("#box")).to_have_value("red")
    seen = []
    page.evaluate("document.activeElement.blur(); document.querySelector('.skip').focus()")
    for _ in range(19):
        seen.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.name"
            )
        )
        outline = page.evaluate(
            """() => { const at = document.activeElement;
            const shown = at.id === 'box' ? getComputedStyle(at.parentElement).boxShadow
              : getComputedStyle(at).outlineStyle;
            return shown }"""
        )
        assert outline != "none", seen
        page.keyboard.press("Tab")
    head = ["skip", "home", "collection-button", "box", "by-picture", "add", "jobs-link", "menu-button"]
    assert seen[:13] == [*head, "share", "sort", "group", "filter", "select"]
    assert seen[13:16] == [""] * 3  # links that narrow the results
    assert seen[16:18] == ["link", "quiet"]  # of the notice of the model
    assert seen[18] == "tile"  # all pictures are one stop, arrows move between them
    assert page.evaluate("document.activeElement.className") != "tile"
