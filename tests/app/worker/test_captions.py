"""The second pass `caption`: a server that works, hangs, lies or is away; a CoCa; what is cut off the words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from app.core.metrics import ProcessMetrics
from app.core.settings import Settings
from app.decode.pool import DecodePool
from app.sources.fetch.chat_server import ChatAnswer
from app.storage.attributes import MAX_CAPTION_CHARS
from app.storage.library import Library
from app.storage.tables import enrichments
from app.storage.tables.enrichments import EnrichmentCounts
from app.worker.captions import PROBE_PROMPT, clean_caption, open_captioner
from app.worker.enrich import EnrichmentWorker, open_enricher
from app.worker.enricher import EnricherAway
from tests.app.encoder.small_coca import CAPTIONS, make_coca
from tests.support.chat_servers import (
    ChatStub,
    Reply,
    completion,
    fail,
    find_colour,
    read_picture,
    read_prompt,
    say,
    send,
    send_raw,
    tell_colour,
)
from tests.support.makers import add, claim, finish, image_of
from tests.support.pictures import picture


@pytest.fixture(scope="module")
def server() -> Iterator[ChatStub]:
    with ChatStub() as one:
        yield one


@pytest.fixture
def stub(server: ChatStub) -> ChatStub:
    server.reply = tell_colour
    server.requests.clear()
    return server


def make_worker(library: Library, pool: DecodePool, captioner: str, attempts: int = 2, **said: Any) -> EnrichmentWorker:
    settings = Settings(captioner=captioner, **{"captioner_seconds": 5.0, **said})
    return EnrichmentWorker(library, open_enricher("caption", settings, pool), "a", attempts, ProcessMetrics("worker"))


def make_ready(library: Library, *colours: str, size: tuple[int, int] = (64, 48)) -> None:
    library.database.write(lambda c: enrichments.switch(c, ["caption"]))
    for colour in colours:
        add(library, picture(colour, size=size), id=colour, caption=f"my {colour} one")
    for lease in claim(library.database):
        finish(library.database, lease)


def counts(library: Library) -> EnrichmentCounts:
    return library.database.read(enrichments.count_all)["caption"]


def work_off(worker: EnrichmentWorker) -> None:
    while worker.step():
        pass


def state(library: Library, id: str) -> enrichments.EnrichmentState:
    key = image_of(library.database, id).key
    return library.database.read(lambda c: enrichments.get_states(c, key))["caption"]


def is_probe(request: dict[str, Any]) -> bool:
    return read_prompt(request) == PROBE_PROMPT


def answer_but(colour: str, reply: Reply) -> Reply:
    """A server that has a fault at pictures of one colour only."""

    def answer(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        (reply if find_colour(request) == colour else tell_colour)(handler, request)

    return answer


def test_each_picture_gets_a_caption_beside_its_own(library: Library, pool: DecodePool, stub: ChatStub) -> None:
    make_ready(library, "red", "blue")
    work_off(make_worker(library, pool, stub.url, captioner_model="llava", captioner_prompt="Say what it is."))
    image = image_of(library.database, "blue")
    assert image.generated_caption == "A blue shape on a plain ground."
    assert image.caption == "my blue one"
    assert state(library, "red").result == {"model": "llava", "prompt": "Say what it is."}
    assert [read_prompt(one) for one in stub.requests if not is_probe(one)] == ["Say what it is."] * 2


def test_the_picture_is_sent_no_larger_than_set(library: Library, pool: DecodePool, stub: ChatStub) -> None:
    make_ready(library, "red", size=(400, 100))
    work_off(make_worker(library, pool, stub.url, captioner_side=80))
    sent = read_picture(stub.requests[-1])
    assert sent.size == (80, 20)
    assert sent.getexif() == {}


def test_several_are_asked_for_at_once(library: Library, pool: DecodePool, stub: ChatStub) -> None:
    together = threading.Barrier(3, timeout=20)

    def answer(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        if not is_probe(request):
            together.wait()  # breaks where fewer than three are asked for at a time
        tell_colour(handler, request)

    stub.reply = answer
    make_ready(library, "red", "blue", "green")
    worker = make_worker(library, pool, stub.url, captioner_at_once=3, captioner_seconds=20.0)
    assert worker.step()
    assert counts(library).done == 3


@pytest.mark.parametrize(
    "reply",
    [
        fail(400),
        fail(500),
        say(""),
        say("..."),
        send_raw(b"<html>the captioner</html>"),
        send_raw(b"{}", "application/json"),
        send_raw(completion("x" * 10_000_000), "application/json"),
    ],
    ids=["400", "500", "empty", "no words", "html", "other json", "10 MB"],
)
def test_a_picture_at_which_the_server_fails_is_given_up(
    reply: Reply, library: Library, pool: DecodePool, stub: ChatStub
) -> None:
    make_ready(library, "red", "blue")
    stub.reply = answer_but("red", reply)
    work_off(make_worker(library, pool, stub.url))
    assert counts(library) == EnrichmentCounts(0, 1, 1)
    assert state(library, "red").state == "failed"
    assert state(library, "red").detail
    assert image_of(library.database, "blue").generated_caption


@pytest.mark.parametrize("reply", [fail(500), fail(401), say(""), send_raw(b"<html>")], ids=["500", "401", "", "html"])
def test_nothing_is_lost_while_the_server_always_fails(
    reply: Reply, library: Library, pool: DecodePool, stub: ChatStub
) -> None:
    make_ready(library, "red", "blue")
    stub.reply = reply
    worker = make_worker(library, pool, stub.url)
    for _ in range(12):
        with pytest.raises(EnricherAway):
            worker.step()
    assert counts(library) == EnrichmentCounts(2, 0, 0)
    assert all(map(is_probe, stub.requests))  # no picture leaves the machine for nothing
    stub.reply = tell_colour
    work_off(worker)
    assert counts(library) == EnrichmentCounts(0, 2, 0)


def test_pictures_wait_for_a_server_that_goes_away_in_the_middle(
    library: Library, pool: DecodePool, stub: ChatStub
) -> None:
    make_ready(library, "red", "blue")
    worker = make_worker(library, pool, stub.url, attempts=1)
    assert worker.step()
    stub.reply = fail(502)
    with pytest.raises(EnricherAway):
        worker.step()
    assert counts(library) == EnrichmentCounts(1, 1, 0)
    stub.reply = tell_colour
    work_off(worker)
    assert counts(library) == EnrichmentCounts(0, 2, 0)


def test_a_server_that_breaks_at_one_picture_again_and_again_is_not_asked_for_ever(
    library: Library, pool: DecodePool, stub: ChatStub
) -> None:
    """As one that a picture kills, and that somebody starts again each time."""
    make_ready(library, "red")
    failures = 0

    def answer(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        nonlocal failures
        if is_probe(request) and failures % 2 == 0:  # it is up again
            send(handler, completion("grey"))
        else:
            failures += 1
            send(handler, b"", 503)

    stub.reply = answer
    worker = make_worker(library, pool, stub.url, attempts=1)
    for _ in range(2):
        with pytest.raises(EnricherAway):
            worker.step()
    assert worker.step()
    assert counts(library) == EnrichmentCounts(0, 0, 1)


def test_a_busy_server_gets_the_pause_that_it_asks_for(library: Library, pool: DecodePool, stub: ChatStub) -> None:
    make_ready(library, "red")
    worker = make_worker(library, pool, stub.url, attempts=1)
    stub.reply = answer_but("red", fail(429, Retry_After="33"))
    with pytest.raises(EnricherAway) as caught:
        worker.step()
    assert caught.value.pause == 33
    assert counts(library).waiting == 1


def test_a_server_that_hangs_at_one_picture_does_not_hold_the_others(
    library: Library, pool: DecodePool, stub: ChatStub
) -> None:
    make_ready(library, "red", "blue")
    go_on = threading.Event()

    def hang(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        go_on.wait()

    stub.reply = answer_but("blue", hang)
    work_off(make_worker(library, pool, stub.url, attempts=1, captioner_seconds=2.0))
    go_on.set()
    assert counts(library) == EnrichmentCounts(0, 1, 1)
    assert "took longer" in str(state(library, "blue").detail)


def test_a_damaged_file_is_given_up_and_no_server_asked(library: Library, pool: DecodePool, stub: ChatStub) -> None:
    make_ready(library, "red", "blue")
    library.blobs.path(image_of(library.database, "red").sha256).write_bytes(picture("red")[:60])
    library.blobs.path(image_of(library.database, "blue").sha256).unlink()
    work_off(make_worker(library, pool, stub.url, captioner_at_once=2))
    assert counts(library) == EnrichmentCounts(0, 0, 2)
    assert all(map(is_probe, stub.requests))


def test_a_failed_pass_keeps_the_caption_that_was_there(library: Library, pool: DecodePool, stub: ChatStub) -> None:
    make_ready(library, "red")
    worker = make_worker(library, pool, stub.url)
    work_off(worker)
    stub.reply = answer_but("red", fail(400))
    key = image_of(library.database, "red").key
    library.database.write(lambda c: enrichments.request(c, "caption", [key]))
    work_off(worker)
    assert state(library, "red").state == "failed"
    assert image_of(library.database, "red").generated_caption == "A red shape on a plain ground."


def test_a_coca_writes_for_a_batch(library: Library, pool: DecodePool, tmp_path: Path) -> None:
    make_ready(library, "red", "blue", "green")
    library.blobs.path(image_of(library.database, "green").sha256).write_bytes(b"\x89PNG\r\n")
    worker = make_worker(library, pool, make_coca(tmp_path / "coca"), models_dir=tmp_path, captioner_at_once=8)
    assert worker.step()
    assert counts(library) == EnrichmentCounts(0, 2, 1)
    assert image_of(library.database, "red").generated_caption == CAPTIONS[220, 40, 40]
    assert image_of(library.database, "blue").generated_caption == CAPTIONS[40, 70, 220]
    assert str(tmp_path) in state(library, "red").result["model"]  # type: ignore[index]


def test_the_settings_choose_the_captioner(pool: DecodePool) -> None:
    enricher = open_captioner(Settings(captioner="http://127.0.0.1:1", captioner_at_once=3), pool)
    assert (enricher.kind, enricher.memory) == ("caption", None)
    assert enricher.seconds > 3 * 120


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("A dog on a beach.", "A dog on a beach."),
        ('"A dog."', "A dog."),
        ("“海边的狗。”", "海边的狗。"),
        ('"Stop" says the "sign"', '"Stop" says the "sign"'),
        ("Caption: A dog.\n\nIt runs.", "A dog. It runs."),
        ("**Description:** A dog.", "A dog."),
        ("描述：一只狗", "一只狗"),
        ("```text\nA dog.\n```", "A dog."),
        ("A\tdog\x00 on \u2028a\r\nbeach", "A dog on a beach"),
        ("A **red** car", "A red car"),
        ("half \ud83d an emoji", "half an emoji"),
        ("…", ""),
        ("   ", ""),
    ],
)
def test_cleans_what_models_put_around_a_caption(text: str, caption: str) -> None:
    assert clean_caption(ChatAnswer(text)) == caption


def test_cuts_at_the_end_of_a_sentence() -> None:
    assert clean_caption(ChatAnswer("A dog runs. It is bro", is_cut=True)) == "A dog runs."
    assert clean_caption(ChatAnswer("一只狗。它在跑", is_cut=True)) == "一只狗。"
    assert clean_caption(ChatAnswer("A dog that is bro", is_cut=True)) == "A dog that is bro"
    long = clean_caption(ChatAnswer("A dog barks at 3.5 cats. " * 200))
    assert len(long) <= MAX_CAPTION_CHARS
    assert long.endswith("cats.")
    assert len(clean_caption(ChatAnswer("word" * 2_000))) == MAX_CAPTION_CHARS
