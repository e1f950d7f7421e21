"""Whom a request takes us for. A page elsewhere can give its own name our address (DNS rebinding); its requests then
count as ours in the browser's eyes, but still carry its name as their Host.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope


def read_host(scope: Scope) -> str | None:
    """The name that the request gives us, in lower case, without the port; None unless there is exactly one."""
    named = [value for name, value in scope["headers"] if name == b"host"]
    if len(named) != 1:
        return None
    try:
        name: str | None = urlsplit("//" + named[0].decode("ascii")).hostname
    except ValueError:
        return None
    return name


def read_port(scope: Scope) -> int:
    """The port that the request was sent to, as far as its Host tells; 0 for the scheme's own."""
    named = next((value for name, value in scope["headers"] if name == b"host"), b"")
    try:
        return urlsplit("//" + named.decode("ascii")).port or 0
    except ValueError:
        return 0


def is_trusted_host(host: str | None, allowed: frozenset[str]) -> bool:
    """Whether the name is the machine's own, an address (which no page can take), or one of those allowed."""
    if host is None:
        return False
    if host in allowed or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


SAFE = ("GET", "HEAD", "OPTIONS")  # they change nothing, and no other site can read their answers


def is_cross_site(scope: Scope) -> bool:
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
