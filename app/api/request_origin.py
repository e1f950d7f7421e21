"""Which host a request names, and whether another site's page sent it.

A page of another site can give its own name the address of this server (DNS rebinding). The browser then treats its
requests as same-origin, but they still carry the name of the other site as their Host.
"""

from __future__ import annotations

import ipaddress
import re
from ipaddress import ip_network
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from app.core.errors import StartupError


def read_host(scope: Scope) -> str | None:
    """The name in the header Host, in lower case, without the port; None unless there is exactly one."""
    named = [value for name, value in scope["headers"] if name == b"host"]
    if len(named) != 1:
        return None
    try:
        name: str | None = urlsplit("//" + named[0].decode("ascii")).hostname
    except ValueError:
        return None
    return name


def read_port(scope: Scope) -> int:
    """The port in the header Host; 0 when there is none."""
    named = next((value for name, value in scope["headers"] if name == b"host"), b"")
    try:
        return urlsplit("//" + named.decode("ascii")).port or 0
    except ValueError:
        return 0


def is_trusted_host(host: str | None, allowed: frozenset[str]) -> bool:
    """Whether the host is localhost, an address (which no page can take as its name), or one of those allowed."""
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


def parse_origins(text: str) -> frozenset[str]:
    """Origins with commas between them, as browsers send them; `*` stands for all. Raises StartupError."""
    origins = {one.strip().rstrip("/").lower() for one in text.split(",")} - {""}
    for origin in origins - {"*"}:
        if not re.fullmatch(r"https?://[^/?#@\s]+", origin):
            raise StartupError(
                f"SIGHTLINE_CORS_ORIGINS: {origin!r} is no origin: write it as https://photos.example.org"
            )
    return frozenset(origins)


def parse_proxies(text: str) -> list[str]:
    """Addresses and networks with commas between them; `*` stands for all. Raises StartupError."""
    proxies = [one.strip() for one in text.split(",") if one.strip()]
    for one in proxies:
        try:
            _ = one == "*" or ip_network(one)
        except ValueError as error:
            raise StartupError(f"SIGHTLINE_TRUSTED_PROXIES: {one!r} is no address and no network: {error}") from None
    return proxies


def is_cross_site(scope: Scope, *, behind_proxy: bool) -> bool:
    """Whether a page of another site sent this request, and the request may change something."""
    if scope["method"] in SAFE:
        return False
    headers = Headers(scope=scope)
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    ours = {headers.get("host"), headers.get("x-forwarded-host") if behind_proxy else None}
    return (urlsplit(origin).netloc or None) not in ours - {None}
