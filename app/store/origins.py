"""What URLs gave when they were fetched last, so that the same bytes need not come again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import apsw

from app.store.rows import fetch_all


@dataclass(frozen=True, slots=True)
class Known:
    """The ETag of a URL and the digest of the bytes that it had then."""

    tag: str
    sha256: str


def known(c: apsw.Connection, urls: Iterable[str]) -> dict[str, Known]:
    """What these URLs gave last; those that were never fetched, or had no ETag, are absent."""
    rows = fetch_all(
        c,
        "SELECT url, tag, sha256 FROM origins WHERE url IN (SELECT value FROM json_each(?))",
        (json.dumps(list(urls)),),
    )
    return {url: Known(tag, sha256) for url, tag, sha256 in rows}


def keep(c: apsw.Connection, url: str, known: Known) -> None:
    """Remember what a URL gave."""
    c.execute("INSERT OR REPLACE INTO origins (url, tag, sha256) VALUES (?, ?, ?)", (url, known.tag, known.sha256))
