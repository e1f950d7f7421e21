"""What the server says, in the language of the page: every code of an error, the details that people meet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from app.core.errors import SightlineError
from tests.app.web.watched import Watched, drop
from tests.support.pictures import picture
from tests.support.servers import RunningServer


@pytest.fixture
def chinese(browser: Browser, page_server: RunningServer) -> Iterator[Watched]:
    watched = Watched(browser, page_server.url, locale="zh-CN")
    yield watched
    watched.context.close()


def every_code() -> set[str]:
    found, waiting = set(), [SightlineError]
    while waiting:
        kind = waiting.pop()
        found.add(kind.code)
        waiting += kind.__subclasses__()
    return found


def test_every_code_of_an_error_has_a_chinese_sentence(chinese: Watched) -> None:
    page = chinese.open()
    codes = page.evaluate("async () => Object.keys((await import('/web/i18n/reasons.js')).REASONS.zh.codes)")
    others = {"cancelled", "forbidden", "internal", "rate_limited", "unauthorized"}  # that no class of errors has
    assert every_code() | others <= set(codes)


@pytest.mark.parametrize(
    ("code", "detail", "said"),
    [
        ("image_corrupt", "the file ends inside its header", "文件不完整：文件头被截断。"),
        ("image_corrupt", "a sentence that nobody has translated", "图片已损坏或不完整，无法读取。"),
        ("image_too_large", "the file has 9 bytes; the limit is 8", "文件有 9 字节，上限为 8 字节。"),
        ("validation", "$& and $1", "有一个值无效。（$& and $1）"),
        ("new_code", "something new", "something new"),
    ],
)
def test_a_detail_is_translated_else_its_code(chinese: Watched, code: str, detail: str, said: str) -> None:
    page = chinese.open()
    ask = "async problem => (await import('/web/i18n/i18n.js')).describeError(problem)"
    assert page.evaluate(ask, {"code": code, "detail": detail}) == said


def test_what_the_server_refuses_is_said_in_chinese(chinese: Watched) -> None:
    page = chinese.open("/?show=nobody")
    expect(page.locator("#banner")).to_have_text("图片已被删除，或链接有误。")
    drop(page, ["mine.jpg"], b"no picture at all", "image/jpeg")
    expect(page.locator("#banner")).to_have_text("服务器拒绝了请求：这不是受支持的图片格式。")
    chinese.open("/?q=" + "a" * 1001)
    expect(page.locator("#banner")).to_have_text("服务器拒绝了请求：文字最多 1000 个字符，现有 1001 个。")


def test_a_file_that_fails_says_why_in_chinese(browser: Browser, empty: RunningServer) -> None:
    watched = Watched(browser, empty.url, locale="zh-CN")
    page = watched.open()
    page.locator("#files").set_input_files(FilePayload(name="a.png", mimeType="image/png", buffer=b"not one"))
    failure = page.locator(".upload").get_by_text("这不是受支持的图片格式。")
    expect(failure).to_be_visible(timeout=60_000)
    watched.context.close()


def test_a_caption_in_the_language_of_the_page_comes_first(browser: Browser, empty: RunningServer) -> None:
    said = {"caption": "a red thing", "metadata": '{"caption_zh": "红色的东西"}', "id": "bilingual"}
    assert empty.upload(picture("red", seed=50), "a.png", wait=30, **said).status_code == 200
    for locale, caption in (("zh-CN", "红色的东西"), ("en-US", "a red thing")):
        watched = Watched(browser, empty.url, locale=locale)
        page: Page = watched.open()
        expect(page.locator("[data-id=bilingual] .caption")).to_have_text(caption)
        watched.context.close()
    assert empty.http.delete("/v1/images/bilingual").is_success
