"""Saved searches: kept, counted and listed, with what nobody has seen of them.

`app.service.arrivals` compares new pictures with them; `app.service.webhooks` sends what they find.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.core.errors import NotFound, Validation
from app.core.types import Image, Match, MatchCount, SavedSearch
from app.service.webhooks import make_secret, write_secret
from app.sources.fetch.http_post import HttpPoster
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import collections, images, saved_searches

MAX_SEARCHES = saved_searches.MAX_SEARCHES
OFF = "this server sends no webhooks; its operator switches them on with SIGHTLINE_WEBHOOKS=true"


@dataclass(frozen=True, slots=True)
class Counted:
    """A saved search with its counts. `secret` is that of its webhook, only where it was just made."""

    search: SavedSearch
    count: MatchCount
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What to change of a saved search; None leaves it. `match` belongs to `query`; `url` "" takes the webhook away."""

    name: str | None = None
    query: Mapping[str, Any] | None = None
    match: str | None = None
    seen: bool | int | None = None
    url: str | None = None
    new_secret: bool = False
    enable: bool = False


class SavedSearchService:
    """`on_webhook` is called when a webhook may have something to send; there is none without a `poster`."""

    def __init__(
        self, database: Database, poster: HttpPoster | None, on_webhook: Callable[[], None] | None = None
    ) -> None:
        self._database = database
        self._poster = poster
        self._on_webhook = on_webhook

    def wake_webhooks(self) -> None:
        """Send what webhooks have to send."""
        if self._on_webhook is not None:
            self._on_webhook()

    @property
    def sends_webhooks(self) -> bool:
        return self._poster is not None

    def list_all(self, collection: str | None) -> list[Counted]:
        """The saved searches of a collection, or of all; newest first. Raises NotFound."""

        def work(c: Connection) -> list[Counted]:
            if collection is not None:
                collections.require(c, collection)
            found = saved_searches.list_all(c, collection)
            return [Counted(search, saved_searches.count_matches(c, search)) for search in found]

        return self._database.read(work)

    def get(self, id: str) -> Counted:
        """Raises NotFound."""
        return self._database.read(lambda c: count(c, id))

    def add(self, collection: str, name: str, query: Mapping[str, Any], match: str | None, url: str | None) -> Counted:
        """Save a search. Raises NotFound, UrlNotAllowed, and Validation past the limit of its collection."""
        self._check_url(url)
        secret = make_secret() if url else None

        def work(c: Connection) -> Counted:
            label = collections.require(c, collection).label
            if saved_searches.count_of_collection(c, label) >= MAX_SEARCHES:
                raise Validation(f"a collection may have {MAX_SEARCHES} saved searches; delete one first")
            id = saved_searches.add(c, label, name, query, match)
            if url and secret:
                saved_searches.set_webhook(c, id, url, secret)
            return count(c, id, secret)

        return self._database.write(work)

    def change(self, id: str, changes: Changes) -> Counted:
        """Raises NotFound, Validation, UrlNotAllowed."""
        self._check_url(changes.url)

        def work(c: Connection) -> Counted:
            search = require_search(c, id)
            if changes.name is not None:
                saved_searches.rename(c, id, changes.name)
            if changes.query is not None:
                saved_searches.change_query(c, id, changes.query, changes.match)
            secret = change_webhook(c, search, changes)
            if changes.seen is not None and changes.seen is not False:
                saved_searches.mark_seen(c, id, None if changes.seen is True else changes.seen)
            return count(c, id, secret)

        changed = self._database.write(work)
        self.wake_webhooks()
        return changed

    def delete(self, id: str) -> None:
        """Raises NotFound."""

        def work(c: Connection) -> None:
            require_search(c, id)
            saved_searches.delete(c, id)

        self._database.write(work)

    def list_matches(self, id: str, limit: int, before: int | None) -> list[tuple[Match, Image]]:
        """The newest matches whose number is below `before`. Raises NotFound."""
        return self._read_matches(id, limit, before=before)

    def list_news(self, id: str, limit: int, after: int) -> list[tuple[Match, Image]]:
        """The first new matches past the number `after`. Raises NotFound."""
        return self._read_matches(id, limit, after=after)

    def get_last_match(self, id: str) -> int:
        """The number of the last new match, 0 before the first. Raises NotFound."""
        last = self._database.read(lambda c: saved_searches.get_last_match(c, id))
        if last is None:
            raise NotFound(f"there is no saved search {id!r}")
        return last

    def _read_matches(self, id: str, limit: int, **where: int | None) -> list[tuple[Match, Image]]:
        def work(c: Connection) -> list[tuple[Match, Image]]:
            require_search(c, id)
            found = saved_searches.list_matches(c, id, limit, **where)
            rows = images.get_by_keys(c, [match.key for match in found])
            return [(match, rows[match.key]) for match in found if match.key in rows]

        return self._database.read(work)

    def _check_url(self, url: str | None) -> None:
        if not url:
            return
        if self._poster is None:
            raise Validation(OFF)
        self._poster.check_url(url)


def change_webhook(c: Connection, search: SavedSearch, changes: Changes) -> bytes | None:
    """Change the webhook of a search; returns its secret if that is new. Raises Validation."""
    webhook = search.webhook
    if changes.url == "":
        saved_searches.set_webhook(c, search.id, None, None)
        return None
    if changes.url is not None and (webhook is None or changes.url != webhook.url):
        secret = make_secret() if webhook is None or changes.new_secret else webhook.secret
        saved_searches.set_webhook(c, search.id, changes.url, secret)
        return secret if webhook is None or changes.new_secret else None
    if webhook is None and (changes.new_secret or changes.enable):
        raise Validation("this saved search has no webhook")
    if changes.new_secret:
        saved_searches.set_secret(c, search.id, secret := make_secret())
        return secret
    if changes.enable:
        saved_searches.enable_webhook(c, search.id)
    return None


def count(c: Connection, id: str, secret: bytes | None = None) -> Counted:
    """Raises NotFound."""
    search = require_search(c, id)
    return Counted(search, saved_searches.count_matches(c, search), secret and write_secret(secret))  # type: ignore[arg-type]


def require_search(c: Connection, id: str) -> SavedSearch:
    """Raises NotFound."""
    if (search := saved_searches.get(c, id)) is None:
        raise NotFound(f"there is no saved search {id!r}")
    return search
