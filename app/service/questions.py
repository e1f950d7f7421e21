"""Questions about a picture with candidate answers: answered by the encoder, or by the server that writes captions."""

from __future__ import annotations

import logging
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.errors import Validation
from app.core.settings import Settings
from app.core.types import AnswerWarning
from app.decode.picture import read_jpeg
from app.decode.pool import DecodePool
from app.search.query_encoder import QueryPart
from app.service.search_service import SearchService
from app.sources.fetch.chat_server import ChatAnswer, ChatOptions, ChatServer, ChatUnavailable
from app.storage.library import Library

log = logging.getLogger(__name__)

By = Literal["encoder", "captioner"]

PROMPT = """Look at the picture and answer the question with one of the answers.
Question: {question}
Answers:
{answers}
Reply with the letter of the right answer alone."""
LETTERS = string.ascii_uppercase
LETTER = re.compile(
    r"(?:(?:the )?(?:right |correct )?answer(?: is)?\W+)?\W*([a-z])(?:\W+(.*))?", re.IGNORECASE | re.DOTALL
)
MAX_CHOICE = 500  # characters of an answer that names a letter and repeats its words
LEAST_SHARE = 0.5  # of the probability at a place of an answer that letters must have together
NO_CAPTIONER = (
    "by: no captioner is set here that answers questions; start the server with --captioner and the URL of a server"
    " (SIGHTLINE_CAPTIONER), or send by: 'encoder'"
)
NO_PROBABILITIES = "the captioner named one answer, and no probabilities: the others get 0"


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers with their probabilities, likeliest first, and what has answered."""

    answers: Sequence[tuple[str, float]]
    by: By
    model: str
    warnings: Sequence[AnswerWarning] = ()


class QuestionService:
    """Answers questions about stored pictures. Its methods block."""

    def __init__(self, library: Library, pool: DecodePool, search: SearchService, settings: Settings) -> None:
        self._library = library
        self._pool = pool
        self._search = search
        self._side = settings.captioner_side
        options = ChatOptions.of(settings)
        self._chat = ChatServer(options) if options else None

    def close(self) -> None:
        if self._chat is not None:
            self._chat.close()

    def choose(self, by: By | None) -> By:
        """What is to answer. Raises Validation for a captioner that is not there."""
        if by == "captioner" and self._chat is None:
            raise Validation(NO_CAPTIONER)
        return by or ("captioner" if self._chat is not None else "encoder")

    def ask(self, collection: str, id: str, question: str, answers: Sequence[str], by: By) -> Answered:
        """Answer by the captioner, and by the encoder if that cannot; or by the encoder at once.

        Raises NotFound, Validation for a picture without a vector, Busy.
        """
        warnings: list[AnswerWarning] = []
        if by == "captioner" and self._chat is not None:
            try:
                shares, warnings = self._ask_captioner(self._chat, collection, id, question, answers)
                return Answered(sort(answers, shares), "captioner", self._chat.name, warnings)
            except ChatUnavailable as error:
                log.warning("the captioner does not answer a question: %s", error.detail)
                failed = "the captioner does not answer, or not with one of the answers; the encoder did"
                warnings = [AnswerWarning("captioner_failed", failed)]
        searcher = self._search.searcher
        shares, found = searcher.zero_shot.answer(collection, QueryPart(image_id=id), question, answers)
        return Answered(sort(answers, shares), "encoder", self._search.model.encoder.space.model, [*warnings, *found])

    def _ask_captioner(
        self, chat: ChatServer, collection: str, id: str, question: str, answers: Sequence[str]
    ) -> tuple[list[float], list[AnswerWarning]]:
        """Raises NotFound, BlobMissing, Rejected, and ChatUnavailable also for an answer that is none of them."""
        image = self._library.get(collection, id)
        with self._library.blobs.fetch(image.sha256) as file:
            jpeg = self._pool.submit(read_jpeg, file.path, self._pool.picture_limits, self._side).result()
        named = zip(LETTERS, (" ".join(answer.split()) for answer in answers), strict=False)
        listed = "\n".join(f"{letter}. {answer}" for letter, answer in named)
        prompt = PROMPT.format(question=" ".join(question.split()), answers=listed)
        answer = chat.ask(jpeg, prompt, wants_probabilities=True)
        chosen = read_choice(answer.text, answers)
        if shares := read_shares(answer, chosen, len(answers)):
            return shares, []
        return [float(n == chosen) for n in range(len(answers))], [AnswerWarning("no_probabilities", NO_PROBABILITIES)]


def sort(answers: Sequence[str], shares: Sequence[float]) -> list[tuple[str, float]]:
    """Answers with their probabilities, likeliest first."""
    return sorted(zip(answers, shares, strict=True), key=lambda pair: -pair[1])


def read_choice(text: str, answers: Sequence[str]) -> int:
    """Which of the answers a captioner has named: by its letter alone, by both, or in its words.

    Raises ChatUnavailable for everything else.
    """
    words = [_plain(answer) for answer in answers]
    if _plain(text) in words:
        return words.index(_plain(text))
    if found := LETTER.fullmatch(text.strip()[:MAX_CHOICE]):
        chosen = LETTERS.index(found[1].upper())
        if chosen < len(answers) and _plain(found[2] or "") in ("", words[chosen]):
            return chosen
    raise ChatUnavailable("its answer is none of the answers")


def read_shares(answer: ChatAnswer, chosen: int, count: int) -> list[float]:
    """The probability of each answer by those of its letter, at the last place where the chosen one stands.

    Empty where the server tells none.
    """
    for place in reversed(answer.tokens):
        shares = [_find_share(place, LETTERS[n]) for n in range(count)]
        if sum(shares) >= LEAST_SHARE and max(shares) == shares[chosen]:
            return [share / sum(shares) for share in shares]
    return []


def _find_share(place: Mapping[str, float], letter: str) -> float:
    return place.get(letter, 0.0) + place.get(letter.lower(), 0.0)


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", text).casefold().split())
