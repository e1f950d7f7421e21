"""What a model wrote about a picture, on its page: marked, deleted, written again; and questions about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.app.web.watched import Watched
from tests.support.chat_servers import ChatStub, say, tell_colour
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until

WRITTEN = "A red shape on a plain ground."


@pytest.fixture(scope="module")
def stub() -> Iterator[ChatStub]:
    with ChatStub() as one:
        yield one


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory, stub: ChatStub) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("captioned")
    with RunningServer(folder / "data", captioner=stub.url, captioner_model="llava") as server:
        server.upload(picture("red"), id="red-1", caption="my own words")
        wait_until(lambda: written(server) == WRITTEN, 60, server.output)
        yield server


def written(server: RunningServer) -> str | None:
    found: str | None = server.http.get("/v1/images/red-1").json()["generated_caption"]
    return found


@pytest.fixture
def opened(browser: Browser, captioned: RunningServer) -> Iterator[Watched]:
    watched = Watched(browser, captioned.url)
    yield watched
    watched.context.close()
    assert watched.faults == []


def test_the_text_of_a_model_is_marked_deleted_and_written_again(
    opened: Watched, captioned: RunningServer, stub: ChatStub
) -> None:
    page = opened.open("/?show=red-1")
    section = page.locator("#detail .generated")
    expect(section).to_contain_text(WRITTEN)
    expect(section).to_contain_text("Written by a model.")
    expect(page.get_by_role("textbox", name="Caption")).to_have_value("my own words")
    stub.reply = say("Something else is seen.")
    section.get_by_role("button", name="Write again").click()
    expect(page.locator("#toast")).to_contain_text("in the background")
    wait_until(lambda: written(captioned) == "Something else is seen.", 60, captioned.output)
    section.get_by_role("button", name="Remove", exact=True).click()
    expect(section).to_have_count(0)
    assert written(captioned) is None
    expect(page.get_by_role("textbox", name="Caption")).to_be_focused()


def test_a_question_gets_its_answers_with_who_answered(opened: Watched, stub: ChatStub) -> None:
    page = opened.open("/?show=red-1")
    page.locator("#detail summary").click()
    page.get_by_label("Question").fill("What colour is it?")
    page.get_by_label("Possible answers").fill("blue\n\nred\nred\n")
    stub.reply = say("B. red")
    page.get_by_role("button", name="Ask", exact=True).click()
    answers = page.locator("#detail .answers")
    expect(answers.locator("li")).to_have_text(["100 % red", "0 % blue"])
    expect(answers).to_contain_text("llava has looked at the picture.")
    stub.reply = say("I cannot tell.")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(answers).to_contain_text("The search model colours has compared the answers")
    expect(answers.locator("li").first).to_contain_text("red")
    page.get_by_label("Possible answers").fill("red")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#detail .question [role=alert]")).to_contain_text("at least 2")
    opened.faults.clear()  # the browser reports the refusal
    stub.reply = tell_colour
