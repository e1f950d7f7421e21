"""The chat client: what it sends, what it makes of every answer, and where it never goes."""

from __future__ import annotations

import base64
import io
import json
import math
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from PIL import Image

from app.core.errors import StartupError
from app.sources.fetch.address_policy import ChosenServerPolicy
from app.sources.fetch.chat_server import (
    MAX_ANSWER_BYTES,
    ChatAnswer,
    ChatOptions,
    ChatServer,
    ChatUnavailable,
    parse_answer,
    parse_chat_url,
)
from tests.support.chat_servers import (
    COLOURS,
    ChatStub,
    completion,
    fail,
    read_picture,
    read_prompt,
    say,
    send_raw,
    tell_colour,
)
from tests.support.web_servers import Recorder


def make_jpeg(colour: str = "red") -> str:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), COLOURS[colour]).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def stub() -> Iterator[ChatStub]:
    with ChatStub() as one:
        yield one


@pytest.fixture(autouse=True)
def forget(stub: ChatStub) -> None:
    stub.reply = tell_colour
    for kept in (stub.requests, stub.headers, stub.paths):
        kept.clear()


def ask(stub: ChatStub, prompt: str = "Describe it.", colour: str = "red", **options: Any) -> ChatAnswer:
    wants = options.pop("wants_probabilities", False)
    server = ChatServer(ChatOptions(stub.url, **{"seconds": 5.0, **options}))
    try:
        return server.ask(make_jpeg(colour), prompt, wants_probabilities=wants)
    finally:
        server.close()


def test_sends_the_picture_the_prompt_and_the_options(stub: ChatStub) -> None:
    answer = ask(stub, "What is it?", "blue", model="llava", key="sk-secret", max_tokens=77)
    assert answer == ChatAnswer("A blue shape on a plain ground.")
    [request], [headers] = stub.requests, stub.headers
    assert stub.paths == ["/v1/chat/completions"]
    assert (request["model"], request["max_tokens"], request["stream"]) == ("llava", 77, False)
    assert read_prompt(request) == "What is it?"
    assert read_picture(request).size == (48, 32)
    assert headers["Authorization"] == "Bearer sk-secret"
    assert "logprobs" not in request


def test_sends_no_model_and_no_key_where_none_is_set(stub: ChatStub) -> None:
    ask(stub)
    assert "model" not in stub.requests[0]
    assert "Authorization" not in stub.headers[0]


def test_shows_the_key_nowhere() -> None:
    options = ChatOptions("http://127.0.0.1:1", key="sk-secret")
    assert "sk-secret" not in repr(options)
    with pytest.raises(ChatUnavailable) as caught:
        ChatServer(options).ask("", "x")
    assert "sk-secret" not in str(caught.value)


def test_gives_the_probabilities_of_tokens(stub: ChatStub) -> None:
    stub.reply = say("B", tokens=[{"B": math.log(0.6), " B": math.log(0.1), "A": math.log(0.2), "C": -9999.0}])
    answer = ask(stub, wants_probabilities=True)
    assert stub.requests[0]["logprobs"] is True
    [place] = answer.tokens
    assert place == pytest.approx({"B": 0.7, "A": 0.2, "C": 0.0})


@pytest.mark.parametrize(
    "logprobs", [None, [], {"content": None}, {"content": [{"top_logprobs": [{"token": "A", "logprob": "x"}]}]}, 7]
)
def test_does_without_odd_probabilities(logprobs: Any) -> None:
    body = json.dumps({"choices": [{"message": {"content": "A"}, "logprobs": logprobs}]}).encode()
    assert parse_answer(body) == ChatAnswer("A", tokens=())


def test_counts_a_probability_of_nan_as_none() -> None:
    logprobs = {"content": [{"top_logprobs": [{"token": "A", "logprob": math.nan}]}]}
    body = json.dumps({"choices": [{"message": {"content": "A"}, "logprobs": logprobs}]}).encode()
    assert parse_answer(body).tokens == ({"A": 0.0},)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>It may be\na cat.</think>\n\nA cat.", "A cat."),
        ([{"type": "text", "text": "A "}, {"type": "text", "text": "dog."}, {"type": "refusal"}], "A dog."),
        ("  A bird.\n", "A bird."),
    ],
)
def test_reads_the_shapes_of_text_that_there_are(content: Any, text: str) -> None:
    assert parse_answer(completion(content)).text == text


def test_says_that_an_answer_was_cut() -> None:
    assert parse_answer(completion("A man with a", "length")).is_cut


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        b"{}",
        b"[1, 2]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": "abc"}',
        b"[" * 100_000,
        b"\xff\xfe",
        completion(""),
        completion(None),
        completion(17),
        completion("<think>I never came to an end"),
    ],
)
def test_refuses_every_answer_that_is_none(body: bytes) -> None:
    with pytest.raises(ChatUnavailable):
        parse_answer(body)


def test_reads_no_more_than_the_most_bytes(stub: ChatStub) -> None:
    stub.reply = send_raw(completion("x" * 10_000_000), "application/json")
    with pytest.raises(ChatUnavailable, match=f"more than {MAX_ANSWER_BYTES >> 20} MiB"):
        ask(stub)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "SIGHTLINE_CAPTIONER_KEY"), (404, "no such address or model"), (400, "answered 400"), (500, "answered 500")],
)
def test_says_what_a_status_means(stub: ChatStub, status: int, words: str) -> None:
    stub.reply = fail(status)
    with pytest.raises(ChatUnavailable, match=words) as caught:
        ask(stub)
    assert caught.value.pause == 0


def test_keeps_the_pause_that_a_busy_server_asks_for(stub: ChatStub) -> None:
    stub.reply = fail(429, Retry_After="17")
    with pytest.raises(ChatUnavailable, match="asks to wait 17 s") as caught:
        ask(stub)
    assert caught.value.pause == 17


def test_follows_no_redirect(stub: ChatStub) -> None:
    with ChatStub() as other:
        stub.reply = fail(307, Location=f"{other.url}/v1/chat/completions")
        with pytest.raises(ChatUnavailable, match="redirects"):
            ask(stub)
        assert other.requests == []


def test_waits_for_a_server_that_hangs_or_drips_no_longer_than_set(stub: ChatStub) -> None:
    def drip(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.1)

    for reply in (lambda handler, request: time.sleep(1.5), drip):
        stub.reply = reply
        with pytest.raises(ChatUnavailable, match="took longer than"):
            ask(stub, seconds=0.3)


def test_says_that_nobody_answers_and_that_a_connection_broke(stub: ChatStub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ChatUnavailable, match="cannot be reached"):
        ChatServer(ChatOptions(f"http://127.0.0.1:{port}")).ask("", "x")
    stub.reply = lambda handler, request: handler.connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ChatUnavailable, match="broke the connection"):
        ask(stub)


def test_reaches_the_address_that_listens_where_a_name_has_two(stub: ChatStub) -> None:
    options = ChatOptions(f"http://localhost:{stub.port}", seconds=5)
    server = ChatServer(options, resolve=lambda host, port: ["::1", "127.0.0.1"])
    assert server.ask(make_jpeg("green"), "x").text.startswith("A green")


def test_a_name_never_leads_to_the_credentials_of_a_cloud() -> None:
    network = Recorder()
    for address in ("169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "224.0.0.1", "::ffff:169.254.169.254"):
        options = ChatOptions("http://captions.example")
        server = ChatServer(options, resolve=lambda host, port, a=address: [a], network=network)  # type: ignore[misc]
        with pytest.raises(ChatUnavailable, match="does not connect"):
            server.ask("", "x")
    assert network.dialled == []


def test_permits_private_networks_and_what_the_url_names() -> None:
    policy = ChosenServerPolicy("captions.example")
    assert all(map(policy.permits, ("127.0.0.1", "::1", "10.1.2.3", "192.168.1.9", "fd00::7", "8.8.8.8")))
    assert not policy.permits("169.254.1.2")
    assert not policy.permits("localhost")
    assert ChosenServerPolicy("169.254.1.2").permits("169.254.1.2")
    assert ChosenServerPolicy("[fe80::1]").permits("fe80::1")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1/chat/completions"),
        ("http://gpu.lan:8000/v1/", "http://gpu.lan:8000/v1/chat/completions"),
        ("https://api.example/openai", "https://api.example/openai/v1/chat/completions"),
        ("https://api.example/v1beta/openai", "https://api.example/v1beta/openai/chat/completions"),
        ("https://api.example/x/chat/completions", "https://api.example/x/chat/completions"),
    ],
)
def test_finds_the_address_of_chats(text: str, url: str) -> None:
    assert str(parse_chat_url(text)) == url


@pytest.mark.parametrize(
    "text",
    ["ftp://a.example", "http://user:pass@a.example", "http://a.example/?key=1", "http://", "http://a b", "x" * 3000],
)
def test_refuses_what_is_no_url_of_a_server(text: str) -> None:
    with pytest.raises(StartupError, match="SIGHTLINE_CAPTIONER"):
        parse_chat_url(text)
