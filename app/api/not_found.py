"""The small page for a person who has mistyped an address; programs get problem+json."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse
from starlette.types import Scope

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Not found · Sightline</title>
<link rel="icon" href="{root}web/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{root}web/css/page.css">
</head>
<body>
<main class="lost">
<img src="{root}web/icon.svg" alt="" width="48" height="48">
<h1>There is no page at this address</h1>
<p lang="zh">这个地址没有网页。</p>
<p><a class="button" href="{home}">{label}</a></p>
</main>
</body>
</html>
"""


MAX_QUERY = 4096  # characters that are read for the words of a search


def wants_page(scope: Scope) -> bool:
    """Whether a person asks, in a browser: it names HTML among what it accepts, and JSON not before it."""
    return scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "").partition("json")[0]


def page_not_found(scope: Scope) -> HTMLResponse:
    """404 with a link home, by the way of relative addresses: a proxy may serve us below a prefix."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    root = "../" * (path.count(b"/") - 1) or "./"
    query = scope["query_string"].decode("latin-1")
    words = parse_qs(query).get("q") if len(query) < MAX_QUERY else None
    home = f"{root}?{urlencode({'q': words[0]})}" if words else root
    label = f"Search for “{words[0]}”" if words else "To the pictures"
    return HTMLResponse(PAGE.format(root=root, home=escape(home), label=escape(label)), 404)
