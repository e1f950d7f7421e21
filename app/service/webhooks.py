"""Webhooks of saved searches: a thread posts new matches, each message at least once, signed as Standard Webhooks say.

What is to be sent, and how far that is, stands in the rows of the searches and their matches. A message keeps its
number until it is delivered, also over a kill, so that a receiver can drop a repeated one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from app.core.background import BackgroundLoop
from app.core.clock import now_rfc3339, unix_now
from app.core.types import Image, Match, SavedSearch
from app.sources.fetch.http_post import HttpPoster, PostResult
from app.storage.database import Database
from app.storage.membership import SINGLE_SERVER, Duty, Membership
from app.storage.sql import Connection
from app.storage.tables import images, saved_searches

log = logging.getLogger(__name__)

EVENT = "saved_search.matched"
MAX_MESSAGE = 100  # matches of one message
SECONDS = 10.0  # for one try
AT_ONCE = 8  # messages under way
MAX_FAILURES = 20  # tries of one message in a row, over half a day, after which a webhook is switched off
FIRST_PAUSE, LAST_PAUSE = 5.0, 3600.0  # before the next try
LOOK_SECONDS = 30.0  # between two looks, at most: the clock may be set
SECRET_BYTES = 32
PREFIX = "whsec_"


def make_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def write_secret(secret: bytes) -> str:
    """The secret as a receiver gets it."""
    return PREFIX + base64.b64encode(secret).decode()


def sign(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: HMAC-SHA256 of id, time and body."""
    signed = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def choose_pause(failures: int, retry_after: float = 0.0) -> float:
    """Seconds until the next try, after so many failures in a row."""
    return max(min(FIRST_PAUSE * 2.0 ** (failures - 1), LAST_PAUSE), min(retry_after, LAST_PAUSE))


class WebhookLoop(BackgroundLoop):
    """Posts what waits; `wake` it when there may be something new."""

    def __init__(
        self,
        database: Database,
        poster: HttpPoster,
        *,
        pause: Any = choose_pause,
        membership: Membership = SINGLE_SERVER,
    ) -> None:
        step = membership.only_leader(Duty.WEBHOOKS, self._send)
        super().__init__("webhooks", step, "webhooks of saved searches are not sent")
        self._database = database
        self._poster = poster
        self._choose_pause = pause
        self._threads = ThreadPoolExecutor(AT_ONCE, "webhook")

    def close(self) -> None:
        self._poster.close()
        super().close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _send(self) -> float | None:
        due = self._database.read(lambda c: saved_searches.list_due(c, unix_now(), AT_ONCE))
        for done in [self._threads.submit(self._deliver, search) for search in due]:
            done.result()
        if due:
            return 0.0
        next_at = self._database.read(saved_searches.get_next_due)
        return None if next_at is None else min(max(0.0, next_at - unix_now()), LOOK_SECONDS)

    def _deliver(self, search: SavedSearch) -> None:
        """Post the next message of a search, and write down what came of it."""
        last = self._database.write(lambda c: saved_searches.begin_message(c, search, MAX_MESSAGE))
        if last is None or (webhook := search.webhook) is None or self.is_closing():
            return
        message = self._database.read(partial(read_message, search=search, last=last))
        result = PostResult()  # of a message whose pictures are all deleted: there is nothing to send
        if message is not None:
            body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
            id, now = f"msg_{search.id}_{webhook.sent}_{last}", int(unix_now())
            headers = {
                "webhook-id": id,
                "webhook-timestamp": str(now),
                "webhook-signature": sign(webhook.secret, id, now, body),
            }
            result = self._poster.post(webhook.url, headers, body)
        if result.error is None:
            self._database.write(lambda c: saved_searches.finish_message(c, search, last, unix_now()))
            return
        if self.is_closing():
            return
        failures = webhook.failures + 1
        is_last = failures >= MAX_FAILURES or result.is_gone
        next_at = None if is_last else unix_now() + self._choose_pause(failures, result.retry_after)
        error = result.error
        self._database.write(lambda c: saved_searches.fail_message(c, search, error, next_at))
        words = "is switched off" if is_last else "was not taken"
        log.warning("a webhook %s: %s", words, error, extra={"saved_search": search.id, "failures": failures})


def read_message(c: Connection, search: SavedSearch, last: int) -> dict[str, Any] | None:
    """The message with the matches up to `last`; None if their pictures are deleted."""
    assert search.webhook is not None
    matches = saved_searches.list_matches(c, search.id, MAX_MESSAGE, after=search.webhook.sent)
    rows = images.get_by_keys(c, [match.key for match in matches])
    sent = [describe_match(match, rows[match.key]) for match in matches if match.n <= last and match.key in rows]
    if not sent:
        return None
    named = {"id": search.id, "name": search.name, "collection": search.collection}
    return {"type": EVENT, "timestamp": now_rfc3339(), "data": {"saved_search": named, "matches": sent}}


def describe_match(match: Match, image: Image) -> Mapping[str, Any]:
    """A match as events and webhooks tell it."""
    return {
        "n": match.n,
        "image_id": image.id,
        "score": match.score,
        "matched": list(match.matched),
        "matched_at": match.matched_at,
        "sha256": image.sha256,
        "caption": image.caption,
        "tags": list(image.tags),
        "auto_tags": [{"tag": tag, "probability": share} for tag, share in image.auto_tags.items()],
    }
