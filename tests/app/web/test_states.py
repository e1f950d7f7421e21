"""The page when it is empty, takes uploads, is sent bad things, or its server is in trouble."""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any

from playwright.sync_api import Browser, FilePayload, expect

from tests.app.web.watched import Watched, drop, first_is
from tests.pictures import picture
from tests.servers import RunningServer

PAYLOADS = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "<svg onload=window.hacked=1>",
    '"><script>window.hacked=1</script>',
    "' onmouseover='window.hacked=1",
    "javascript:window.hacked=1",
    "<a href='javascript:window.hacked=1'>x</a>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "</title><script>window.hacked=1</script>",
    "<style>*{display:none!important}</style>",
    "{{constructor.constructor('window.hacked=1')()}}",
    "${window.hacked=1}",
    "<details open ontoggle=window.hacked=1>",
    "&lt;script&gt;window.hacked=1&lt;/script&gt;",
)


def test_an_empty_server_says_how_to_begin_then_uploads_show_progress_and_failures(
    browser: Browser, empty: RunningServer
) -> None:
    watched = Watched(browser, empty.url)
    page = watched.open()
    expect(page.locator(".message")).to_contain_text("Nothing here yet")
    expect(page.locator(".message")).to_contain_text("sightline ingest")
    page.locator("#box").fill("red")
    expect(page.locator(".message")).to_contain_text("No hits")
    page.locator("#box").fill("")
    expect(page.locator(".message")).to_contain_text("Nothing here yet")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("one.png", picture("red", seed=1))
        archive.writestr("<b>broken</b>.png", b"no picture")
    page.get_by_role("button", name="Add pictures").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Pictures or archives").click()
    chooser.value.set_files(
        [
            FilePayload(name="two.png", mimeType="image/png", buffer=picture("blue", seed=2)),
            FilePayload(name="some.zip", mimeType="application/zip", buffer=out.getvalue()),
        ]
    )
    card = page.locator(".upload")
    expect(card).to_contain_text("2 files")
    expect(card).to_contain_text("2 added · 1 failed", timeout=20_000)
    expect(card.locator("li")).to_contain_text("<b>broken</b>.png")
    expect(card.locator("li")).to_contain_text("not a picture of a known format")
    expect(page.locator(".tile")).to_have_count(2)
    card.get_by_role("button", name="Close").click()
    expect(page.locator("#uploads")).to_be_hidden()
    watched.context.close()
    assert watched.faults == []


def test_dropping_several_files_adds_them(browser: Browser, empty: RunningServer) -> None:
    watched = Watched(browser, empty.url)
    page = watched.open()
    drop(page, ["a.png", "b.png"], picture("green", seed=8))
    assert page.evaluate("[window.covered, window.only]") == [True, "add"]
    expect(page.locator(".upload")).to_contain_text("1 added · 1 already there", timeout=20_000)
    watched.context.close()
    assert watched.faults == []


def test_a_refused_upload_is_told_in_the_servers_words(browser: Browser, empty: RunningServer) -> None:
    watched = Watched(browser, empty.url)
    page = watched.open()
    detail = "the disk is full"
    page.route(
        "**/v1/images/bulk",
        lambda route: route.fulfill(
            status=507, content_type="application/problem+json", body=json.dumps({"code": "x", "detail": detail})
        ),
    )
    drop(page, ["a.zip"], b"PK", "application/zip")
    expect(page.locator(".upload.bad")).to_contain_text(detail)
    watched.context.close()


def test_script_in_captions_names_metadata_and_texts_runs_nothing(browser: Browser, empty: RunningServer) -> None:
    for n, payload in enumerate(PAYLOADS):
        metadata = json.dumps({payload: payload, "deep": [payload]})
        said: dict[str, Any] = {"caption": payload, "tags": [payload[:100]], "metadata": metadata}
        name = re.sub(r'["/\\]', "_", payload)
        last = n == len(PAYLOADS) - 1  # pictures are taken in the order they came
        wait = 30 if last else 0
        answer = empty.upload(picture("purple", seed=200 + n), name + ".png", wait, id=f"bad-{n}", **said)
        assert answer.status_code == (200 if last else 202), answer.text
    texts = [{"text": payload} for payload in PAYLOADS]
    assert empty.http.post("/v1/texts", json={"texts": texts}).status_code == 200
    watched = Watched(browser, empty.url)
    page = watched.open("/?q=purple")
    expect(page.locator(".tile .caption").get_by_text(PAYLOADS[0], exact=True)).to_be_visible()
    page.locator(".tile").first.click()
    for _ in PAYLOADS:
        page.get_by_role("button", name="Name it").click()
        expect(page.locator(".names li").first).to_be_visible()
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_label("Texts", exact=True).check()
    expect(page.locator(".list .words").get_by_text(PAYLOADS[1], exact=True)).to_be_visible()
    watched.open("/?q=" + "%3Cimg%20src%3Dx%20onerror%3Dwindow.hacked%3D1%3E&like=bad-1")
    expect(page.locator(".tile").first).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 1
    watched.context.close()
    assert watched.faults == []


def test_a_server_that_is_away_is_told_and_the_search_goes_on_when_it_is_back(
    browser: Browser, filled: RunningServer
) -> None:
    watched = Watched(browser, filled.url)
    page = watched.open()
    expect(page.locator(".tile")).to_have_count(10)
    watched.context.set_offline(True)
    page.locator("#box").fill("blue")
    expect(page.locator("#notice")).to_contain_text("The server does not answer")
    expect(page.locator(".tile")).to_have_count(10)
    watched.context.set_offline(False)
    first_is(page, "blue")
    expect(page.locator("#notice")).to_be_hidden()
    watched.context.close()


def test_a_model_that_is_loading_is_told_and_the_search_begins_by_itself(
    browser: Browser, filled: RunningServer
) -> None:
    watched = Watched(browser, filled.url)
    page = watched.page
    problem = {"code": "model_unavailable", "detail": "the model x is still loading"}
    page.route("**/v1/search*", lambda route: route.fulfill(status=503, json=problem))
    page.route("**/readyz", lambda route: route.fulfill(status=503, json={"reasons": [problem["detail"]]}))
    watched.open("/?q=red")
    expect(page.locator("#notice")).to_contain_text("still loading; searching begins by itself")
    expect(page.locator("#notice")).to_contain_text("the model x")
    page.unroute_all()
    first_is(page, "red")
    expect(page.locator("#notice")).to_be_hidden()
    watched.context.close()


def test_a_busy_server_is_asked_again(browser: Browser, filled: RunningServer) -> None:
    watched = Watched(browser, filled.url)
    page = watched.page
    busy = {"code": "overloaded", "detail": "too many requests"}
    answer: dict[str, Any] = {"status": 503, "headers": {"Retry-After": "1"}, "json": busy}
    page.route("**/v1/search*", lambda route: route.fulfill(**answer), times=1)
    watched.open("/?q=red")
    expect(page.locator("#notice")).to_contain_text("busy")
    first_is(page, "red")
    watched.context.close()


def test_a_file_that_is_no_picture_is_refused_in_the_servers_words(browser: Browser, filled: RunningServer) -> None:
    watched = Watched(browser, filled.url)
    page = watched.open()
    drop(page, ["mine.jpg"], b"no picture at all", "image/jpeg")
    expect(page.locator("#notice")).to_contain_text("not a picture of a known format")
    expect(page.locator(".tile")).to_have_count(0)
    watched.context.close()


def test_a_query_too_long_is_refused_in_the_servers_words(browser: Browser, filled: RunningServer) -> None:
    watched = Watched(browser, filled.url)
    page = watched.open("/?q=" + "a" * 1001)
    expect(page.locator("#notice")).to_contain_text("1000 characters")
    watched.context.close()


def test_an_unknown_picture_in_the_address_is_told(browser: Browser, filled: RunningServer) -> None:
    watched = Watched(browser, filled.url)
    page = watched.open("/?show=nobody")
    expect(page.locator("#notice")).to_contain_text("nobody")
    expect(page.locator(".tile")).to_have_count(10)
    expect(page).to_have_url(filled.url + "/")
    watched.context.close()
