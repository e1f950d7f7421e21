"""The files of the page: small, ours, and without any way to make markup of text."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from playwright.sync_api import Route, expect

from tests.app.web.watched import Watched, first_is
from tests.support.servers import RunningServer

WEB = Path(__file__).parents[3] / "app" / "web"


def test_all_files_of_the_page_are_served_by_us_and_the_icon_is_there(
    page_on_server: Watched, page_server: RunningServer
) -> None:
    asked: list[str] = []
    page_on_server.page.on("request", lambda request: asked.append(request.url))
    page = page_on_server.open("/?q=red")
    first_is(page, "red")
    assert all(url.startswith(page_server.url) for url in asked)
    assert page_server.http.get("/web/icon.svg").headers["content-type"].startswith("image/svg+xml")


def test_the_page_and_the_docs_work_below_a_prefix_of_a_proxy(
    page_on_server: Watched, page_server: RunningServer
) -> None:
    beside: list[str] = []

    def strip_prefix(route: Route) -> None:
        url = route.request.url
        if "/photos/" not in url:
            beside.append(url)
        route.fulfill(response=route.fetch(url=url.replace("/photos/", "/", 1)))

    page_on_server.page.route(f"{page_server.url}/**", strip_prefix)
    page = page_on_server.open("/photos/?q=blue")
    first_is(page, "blue")
    expect(page.locator(".tile img").first).not_to_have_js_property("naturalWidth", 0)
    page_on_server.open("/photos/docs")
    page.locator("#operations-system-get_stats").get_by_role("button").first.click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/v1/stats*") as stats:
        page.get_by_role("button", name="Execute").click()
    assert (stats.value.url.split("?")[0], stats.value.status) == (f"{page_server.url}/photos/v1/stats", 200)
    assert beside == []


def sources() -> list[Path]:
    """The files that we wrote for the page."""
    ours = [path for path in sorted(WEB.rglob("*.*")) if path.is_file() and "docs" not in (path.stem, path.parent.name)]
    assert {path.suffix for path in ours} == {".js", ".css", ".svg", ".html"}
    return ours


def modules() -> list[Path]:
    """The modules of the page."""
    return [path for path in sources() if path.suffix == ".js"]


def test_our_script_and_style_stay_small() -> None:
    assert sum(len(gzip.compress(path.read_bytes())) for path in sources()) < 140_000


def test_files_travel_compressed_and_are_asked_for_anew_only_when_they_changed(page_server: RunningServer) -> None:
    first = page_server.http.get("/web/main.js", headers={"Accept-Encoding": "gzip"})
    assert (first.headers["content-encoding"], first.headers["cache-control"]) == ("gzip", "no-cache")
    assert "Accept-Encoding" in first.headers["vary"]
    again = page_server.http.get(
        "/web/main.js", headers={"If-None-Match": first.headers["etag"], "Accept-Encoding": "gzip"}
    )
    assert again.status_code == 304
    pages = [page_server.http.get("/", headers={"Accept-Encoding": encoding}) for encoding in ("gzip", "identity")]
    assert [page.headers.get("content-encoding") for page in pages] == ["gzip", None]
    assert pages[0].text == pages[1].text
    assert all(
        (page.headers["cache-control"], page.headers["vary"]) == ("no-cache", "Accept-Encoding") for page in pages
    )


def test_nothing_is_ever_parsed_as_markup() -> None:
    code = "".join(path.read_text() for path in sources())
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "DOMParser"):
        assert way not in code
    assert not re.search(r"\son\w+=|\sstyle=|<script>|<style", (WEB / "index.html").read_text())


def test_the_state_of_the_page_does_not_touch_the_document() -> None:
    for path in modules():
        if path.parent.name == "state":
            assert not re.search(r"byId|querySelector|getElementById|createElement", path.read_text()), path


def test_each_file_says_in_its_first_two_lines_what_it_is_for() -> None:
    for path in sources():
        if path.suffix in (".js", ".css"):
            first, second = path.read_text().splitlines()[:2]
            assert first.startswith(("// ", "/* ")), path
            assert second.startswith(("// ", "   ")), path


def test_the_served_page_preloads_every_module(page_server: RunningServer) -> None:
    """A module that the browser only finds in another one costs a slow phone one more round trip."""
    page = page_server.http.get("/").text
    preloaded = re.findall(r'rel="modulepreload" href="web/([\w/]+[.]js)"', page)
    assert sorted(preloaded) == sorted(str(path.relative_to(WEB)) for path in modules() if path.name != "main.js")
    assert all(page_server.http.get(f"/web/{path}").is_success for path in preloaded)


def test_both_languages_have_the_same_words_with_the_same_places(page_on_server: Watched) -> None:
    page = page_on_server.open()
    english, chinese = page.evaluate(
        """async () => [(await import("/web/i18n/english.js")).ENGLISH,
            (await import("/web/i18n/chinese.js")).CHINESE]"""
    )
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        places = set(re.findall(r"\{\w+\}", text))
        assert places | {"{n}"} == set(re.findall(r"\{\w+\}", chinese[key])) | {"{n}"}, key
        if key.endswith("_one"):
            assert key.removesuffix("_one") in english
    index = (WEB / "index.html").read_text()
    code = "".join(path.read_text() for path in modules())
    used = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', index))
    used |= set(re.findall(r'\btranslate(?:Count)?\("(\w+)"', code))
    assert used <= english.keys()
    rest = index + "".join(path.read_text() for path in modules() if path.stem not in ("english", "chinese"))
    built = ("state_", "filtered_", "webhook_", "found_", "_one", "_touch", "_short")  # keys put together in the code
    assert [key for key in english if f'"{key}"' not in rest and not any(part in key for part in built)] == []
