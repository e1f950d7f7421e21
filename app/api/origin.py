"""Refuses what other sites' pages send: a browser lets any page post a form here, and on loopback it has the way in.

Browsers tell by `Sec-Fetch-Site`, and where they do not (plain HTTP beyond loopback) by `Origin`
(https://web.dev/articles/fetch-metadata). Programs send neither and are let through.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

SAFE = ("GET", "HEAD", "OPTIONS")  # they change nothing, and no other site can read their answers


def foreign(scope: Scope) -> bool:
    """Whether a page of another site sent this request, and it would change something."""
    if scope["method"] in SAFE:
        return False
    headers = Headers(scope=scope)
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    ours = {headers.get("host"), headers.get("x-forwarded-host")}
    return (urlsplit(origin).netloc or None) not in ours - {None}
