"""Asks a server that speaks OpenAI's chat shape (Ollama, vLLM, llama.cpp, a hosted one) about a picture.

The operator chose its URL, so that it may be on this machine or in a private network. Nothing else is asked: redirects
are not followed, and no proxy, cookie or variable of the environment is used.
"""

from __future__ import annotations

import json
import math
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpcore

from app.core.errors import SightlineError, StartupError
from app.core.settings import Settings
from app.sources.fetch.address_policy import ChosenServerPolicy
from app.sources.fetch.http import (
    BROKEN,
    BUSY_STATUSES,
    REDIRECT_STATUSES,
    USER_AGENT,
    get_header,
    parse_retry_after,
    parse_url,
    to_httpcore,
)
from app.sources.fetch.transport import UNREACHABLE, Deadline, GuardedBackend, Resolve, resolve

if TYPE_CHECKING:
    import httpx

MAX_ANSWER_BYTES = 2 << 20  # of JSON, with the probabilities of tokens
MAX_LOGPROBS = 20  # tokens of which OpenAI's shape gives probabilities, at each place
THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Where the server is, and how it is asked; see the settings `captioner_...`."""

    url: str
    model: str = ""
    key: str = field(default="", repr=False)
    max_tokens: int = 300
    seconds: float = 120.0

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """As set; None where the captioner is no server, or there is none."""
        if not settings.captioner.startswith(("http://", "https://")):
            return None
        limits = settings.captioner_tokens, settings.captioner_seconds
        return cls(settings.captioner, settings.captioner_model, settings.captioner_key, *limits)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The text of an answer; `is_cut` where it has reached the most tokens.

    `tokens`: each of its tokens with the probabilities of the tokens that could be in its place, if the server tells.
    """

    text: str
    is_cut: bool = False
    tokens: Sequence[Mapping[str, float]] = ()


class ChatUnavailable(SightlineError):
    """No answer, or none that can be used. `pause` are the seconds that the server asks to wait."""

    def __init__(self, detail: str, pause: float = 0.0) -> None:
        super().__init__(detail)
        self.pause = pause


class ChatServer:
    """One server, by its URL. Raises StartupError for a URL that cannot be one."""

    def __init__(
        self, options: ChatOptions, *, resolve: Resolve = resolve, network: httpcore.NetworkBackend | None = None
    ) -> None:
        self._options = options
        self._url = parse_chat_url(options.url)
        self._policy = ChosenServerPolicy(self._url.host)
        self._lookups = ThreadPoolExecutor(1, "resolve")
        self._tls = ssl.create_default_context()
        self._resolve = resolve
        self._network = network

    @property
    def name(self) -> str:
        """The model, or the host where no model is set: what may be shown to everybody."""
        return self._options.model or self._url.host

    def close(self) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def ask(self, picture: str, prompt: str, *, wants_probabilities: bool = False) -> ChatAnswer:
        """The answer about a JPEG in base64. Raises ChatUnavailable for every fault that a server can have."""
        request = make_request(self._options, picture, prompt, wants_probabilities=wants_probabilities)
        try:
            return parse_answer(self._post(json.dumps(request).encode()))
        except ChatUnavailable:
            raise
        except SightlineError as error:
            raise ChatUnavailable(error.detail) from None
        except httpcore.TimeoutException:
            raise ChatUnavailable(f"it took longer than {self._options.seconds:g} s") from None
        except (httpcore.ConnectError, ssl.SSLError):
            raise ChatUnavailable(UNREACHABLE) from None
        except (httpcore.NetworkError, httpcore.ProtocolError):
            raise ChatUnavailable(BROKEN) from None

    def _post(self, body: bytes) -> bytes:
        deadline = Deadline(self._options.seconds)
        backend = GuardedBackend(self._policy, deadline, self._lookups, self._resolve, self._network)
        headers = [
            (b"Host", self._url.netloc),
            (b"User-Agent", USER_AGENT.encode("ascii")),
            (b"Content-Type", b"application/json"),
            (b"Content-Length", str(len(body)).encode()),
            (b"Accept", b"application/json"),
            (b"Accept-Encoding", b"identity"),
            (b"Connection", b"close"),
        ]
        if self._options.key:
            headers.append((b"Authorization", f"Bearer {self._options.key}".encode()))
        with (
            httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
            pool.stream("POST", to_httpcore(self._url), headers=headers, content=body) as response,
        ):
            check_status(response)
            return read_limited(response.iter_stream())


def parse_chat_url(text: str) -> httpx.URL:
    """The URL of chat completions below a server's URL. Raises StartupError."""
    try:
        url = parse_url(text)
    except SightlineError as error:
        raise StartupError(f"SIGHTLINE_CAPTIONER: {error.detail}") from None
    if url.query or url.fragment:
        raise StartupError("SIGHTLINE_CAPTIONER: the URL of a captioner has no query; a key goes into the setting")
    path = url.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if re.search(r"/v\d+(beta)?(/openai)?$", path) else "/v1/chat/completions"
    return url.copy_with(path=path)


def make_request(
    options: ChatOptions, picture: str, prompt: str, *, wants_probabilities: bool = False
) -> dict[str, Any]:
    """The body of a request: one message with the words and the picture, by a data URI."""
    uri = f"data:image/jpeg;base64,{picture}"
    content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": uri}}]
    named = {"model": options.model} if options.model else {}
    more = {"logprobs": True, "top_logprobs": MAX_LOGPROBS} if wants_probabilities else {}
    messages = [{"role": "user", "content": content}]
    return {**named, "messages": messages, "max_tokens": options.max_tokens, "temperature": 0, "stream": False, **more}


def check_status(response: httpcore.Response) -> None:
    """Raise ChatUnavailable unless the server has an answer."""
    status = response.status
    if status in BUSY_STATUSES:
        pause = parse_retry_after(get_header(response, b"retry-after"))
        raise ChatUnavailable(f"it answered {status}" + (f", and asks to wait {pause:.0f} s" if pause else ""), pause)
    if status in REDIRECT_STATUSES:
        raise ChatUnavailable("it redirects; set the URL to which it leads, if you trust that")
    if status in (401, 403):
        raise ChatUnavailable(f"it refuses us ({status}); set SIGHTLINE_CAPTIONER_KEY")
    if status == 404:
        raise ChatUnavailable("it has no such address or model (404); check SIGHTLINE_CAPTIONER and its model")
    if status != 200:
        raise ChatUnavailable(f"it answered {status}")


def read_limited(chunks: Iterator[bytes]) -> bytes:
    """The bytes of an answer. Raises ChatUnavailable past MAX_ANSWER_BYTES."""
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > MAX_ANSWER_BYTES:
            raise ChatUnavailable(f"its answer has more than {MAX_ANSWER_BYTES >> 20} MiB")
    return bytes(found)


def parse_answer(body: bytes) -> ChatAnswer:
    """The first choice of an answer. Raises ChatUnavailable for any other JSON, and for what is none."""
    try:
        choice = json.loads(body)["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise ChatUnavailable("its answer is not one of OpenAI's chat shape") from None
    if isinstance(text, list):  # of parts, as some servers answer
        text = "".join(part.get("text") or "" for part in text if isinstance(part, Mapping))
    if not isinstance(text, str) or not (text := THINKING.sub("", text).strip()):
        raise ChatUnavailable("its answer is empty")
    return ChatAnswer(text, choice.get("finish_reason") == "length", parse_tokens(choice.get("logprobs")))


def parse_tokens(logprobs: Any) -> tuple[dict[str, float], ...]:
    """The probabilities of an answer's tokens, without spaces around them; empty where the server tells none."""
    try:
        places = [
            [(one["token"].strip(), one["logprob"]) for one in place["top_logprobs"]] for place in logprobs["content"]
        ]
        return tuple(sum_probabilities(place) for place in places)
    except (KeyError, TypeError, AttributeError, ValueError):
        return ()


def sum_probabilities(logs: Sequence[tuple[str, float]]) -> dict[str, float]:
    """The probability of each token by its logarithms. Raises TypeError for what is no number."""
    found: dict[str, float] = {}
    for token, log in logs:
        found[token] = found.get(token, 0.0) + (math.exp(min(0.0, log)) if log > -math.inf else 0.0)
    return found
