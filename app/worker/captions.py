"""The second pass `caption`: captions by a CoCa of open_clip, or by a server that speaks OpenAI's chat shape.

A server may be away for hours, hang, or answer nonsense. A picture is at fault only if the server does answer about
another one: otherwise it waits, and no attempt counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from app.core.settings import Settings
from app.core.types import Image
from app.decode.picture import DecodedPicture, decode_picture, read_jpeg
from app.decode.pool import DecodePool
from app.encoder.loader import EncoderOptions
from app.encoder.memory_check import ModelProcesses
from app.sources.fetch.chat_server import ChatAnswer, ChatOptions, ChatServer, ChatUnavailable
from app.storage.attributes import MAX_CAPTION_CHARS
from app.storage.tables.enrichments import Enrichment
from app.worker.enricher import BatchEnricher, EnricherAway

COCA_SECONDS = 600.0  # for the pictures of one batch, on a slow processor
SPARE_SECONDS = 60.0  # beside the answers
MAX_SUSPICIONS = 3  # how often a server may stop answering at the same picture, before that is to blame
# 64 x 64 grey pixels as a JPEG. If the server answers about these but not about a picture, the picture is at fault.
PROBE_JPEG = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeX"
    "BkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCABA"
    "AEADASIAAhEBAxEB/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/xAAUAQEAAAAAAAAAAAAAAAAAAAAA/8QAFB"
    "EBAAAAAAAAAAAAAAAAAAAAAP/aAAwDAQACEQMRAD8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/9k="
)
PROBE_PROMPT = "What colour is this? Answer in one word."
MAX_READ = 10 * MAX_CAPTION_CHARS  # characters of an answer
LABEL = re.compile(r"^[\W_]*(?:caption|description|alt text|描述|说明|标题)\s*[:：][\s*_]*", re.IGNORECASE)
FENCE = re.compile(r"^```\w*\s*|\s*```$")
MARKS = re.compile(r"[*_`#]{2,}|^[#>*-]\s+")
QUOTES = ('""', "''", "“”", "「」", "«»", "‘’")
SENTENCE_END = re.compile(r".*[.!?。！？…](?=\s|[^\x00-\x7f]|$)", re.DOTALL)


def open_captioner(settings: Settings, pool: DecodePool) -> BatchEnricher:
    """What the setting `captioner` names. Raises StartupError."""
    if options := ChatOptions.of(settings):
        return ChatEnricher(ChatServer(options), settings, pool)
    return CocaEnricher(settings, pool)


class ChatEnricher:
    """Asks a server, a few pictures at once."""

    kind = "caption"
    memory: int | None = None

    def __init__(self, chat: ChatServer, settings: Settings, pool: DecodePool) -> None:
        self._chat = chat
        self._pool = pool
        self._prompt, self._side = settings.captioner_prompt, settings.captioner_side
        self.at_once = settings.captioner_at_once
        self.seconds = 3 * settings.captioner_seconds + settings.decode_seconds * self.at_once + SPARE_SECONDS
        self._threads = ThreadPoolExecutor(self.at_once, "caption")
        self._is_up = False  # whether the server has answered since it last failed
        self._suspicions: Counter[int] = Counter()  # by the key of a picture at which the server stopped answering

    def enrich_all(self, pictures: Sequence[tuple[Image, Path]]) -> list[Enrichment | Exception]:
        if not self._is_up:
            self._probe()
        jpegs = [self._pool.submit(read_jpeg, path, self._pool.picture_limits, self._side) for _, path in pictures]
        outcomes = list(self._threads.map(self._caption, jpegs))
        failed = {n: one for n, one in enumerate(outcomes) if isinstance(one, ChatUnavailable)}
        if failed and (away := self._judge([pictures[n][0].key for n in failed], list(failed.values()))):
            return [away if n in failed else one for n, one in enumerate(outcomes)]
        return outcomes

    def _caption(self, jpeg: Future[str]) -> Enrichment | Exception:
        try:
            text = clean_caption(self._chat.ask(jpeg.result(), self._prompt))
        except Exception as error:
            return error
        if not text:
            return ChatUnavailable("the captioner wrote no words")
        return Enrichment({"generated_caption": text}, {"model": self._chat.name, "prompt": self._prompt})

    def _judge(self, keys: Sequence[int], errors: Sequence[ChatUnavailable]) -> EnricherAway | None:
        """Whether the server is at fault for these failures; None if the pictures are, which counts their attempts."""
        self._is_up = False
        if pause := max(error.pause for error in errors):
            return EnricherAway(f"the captioner: {errors[0].detail}", pause)
        try:
            self._probe()
        except EnricherAway as away:
            self._suspicions.update(keys)
            if max(self._suspicions[key] for key in keys) < MAX_SUSPICIONS:
                return away
        for key in keys:
            del self._suspicions[key]
        return None

    def _probe(self) -> None:
        """Raise EnricherAway unless the server answers about a picture that is surely right."""
        try:
            self._chat.ask(PROBE_JPEG, PROBE_PROMPT)
        except ChatUnavailable as error:
            raise EnricherAway(f"the captioner: {error.detail}", error.pause) from None
        self._is_up = True


class CocaEnricher:
    """Writes with a model in this process, a batch at once."""

    kind = "caption"
    memory: int | None = None
    seconds = COCA_SECONDS

    def __init__(self, settings: Settings, pool: DecodePool) -> None:
        from app.encoder.coca import load_captioner  # torch: the other kinds do without it

        options = EncoderOptions.of(settings, ModelProcesses(workers=1))
        self._captioner = load_captioner(settings.captioner, settings.models, options)
        self._pool = pool
        self.at_once = settings.captioner_at_once

    def enrich_all(self, pictures: Sequence[tuple[Image, Path]]) -> list[Enrichment | Exception]:
        preprocessing, limits = self._captioner.preprocessing, self._pool.picture_limits
        tasks = [self._pool.submit(decode_picture, path, preprocessing, limits) for _, path in pictures]
        decoded = [_get_result(task) for task in tasks]
        pixels = [one.pixels for one in decoded if isinstance(one, DecodedPicture)]
        captions = iter(self._captioner.caption(np.stack(pixels)) if pixels else ())
        return [one if isinstance(one, Exception) else self._describe(next(captions)) for one in decoded]

    def _describe(self, text: str) -> Enrichment:
        caption = clean_caption(ChatAnswer(text)) or None
        return Enrichment({"generated_caption": caption}, {"model": self._captioner.name})


def _get_result(task: Future[DecodedPicture]) -> DecodedPicture | Exception:
    try:
        return task.result()
    except Exception as error:
        return error


def clean_caption(answer: ChatAnswer) -> str:
    """One paragraph of plain text within the limit of captions, without what models put around one; may be empty."""
    text = FENCE.sub("", answer.text.strip()[:MAX_READ])
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    text = " ".join(MARKS.sub("", LABEL.sub("", text)).encode("utf-8", "ignore").decode().split())
    for quotes in QUOTES:
        if len(text) > 1 and text[0] == quotes[0] and text[-1] == quotes[1] and quotes[0] not in text[1:-1]:
            text = text[1:-1].strip()
    if not any(c.isalnum() for c in text):
        return ""
    is_cut = answer.is_cut or len(text) > MAX_CAPTION_CHARS
    text = text[:MAX_CAPTION_CHARS]
    if is_cut and (whole := SENTENCE_END.match(text)):
        return whole[0].strip()
    return text
