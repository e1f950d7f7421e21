"""How many requests, and how many wrong keys, one caller may send; the library `limits` counts them in memory."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from app.core.errors import StartupError

MAX_CALLERS = 10_000  # addresses with a count of their own; all further ones share one
WRONG_KEYS = parse("10/minute")  # of one address
WRONG_COOKIES = parse("300/minute")  # a page whose key was revoked sends its old one with every picture
OTHER_CALLERS = "all others"
SITE_FACTOR = 16  # a site (an IPv6 /48) may send as much as this many subscribers (/64)


class RateLimiter:
    """Counts keys and addresses, each in a table of its own. `rule` is `600/minute`, say; empty is no limit.

    Each of several servers allows its share, so that all together allow no more than one would. `count_servers` is
    called at every count.
    """

    def __init__(self, rule: str = "", count_servers: Callable[[], int] = lambda: 1) -> None:
        self._count_servers = count_servers
        try:
            self._rule = parse(rule) if rule else None
        except ValueError:
            raise StartupError(
                f"--rate-limit (SIGHTLINE_RATE_LIMIT): {rule!r} is not like 600/minute, 20/second or 1000/15minutes"
            ) from None
        self._keys = _Counts(None)  # there are few: a stranger cannot make any
        self._addresses = _Counts(MAX_CALLERS)

    def count_request(self, client: tuple[str, int] | None, key_id: str | None = None, cost: int = 1) -> int | None:
        """Count a request `cost` times; the seconds to wait when the key, or the address, has sent too many."""
        if self._rule is None:
            return None
        if key_id is None:
            return self._count(self._rule, client, cost)
        return self._keys.count(self._share(self._rule), key_id, cost)

    def count_wrong_key(self, client: tuple[str, int] | None, rule: RateLimitItem = WRONG_KEYS) -> int | None:
        """Count a wrong key; the seconds to wait when the address has sent too many, else None."""
        return self._count(rule, client)

    def _share(self, rule: RateLimitItem) -> RateLimitItem:
        """What of a rule is allowed at this server, at least one request."""
        servers = self._count_servers()
        return rule if servers == 1 else type(rule)(max(1, rule.amount // servers), rule.multiples, rule.namespace)

    def _count(self, rule: RateLimitItem, client: tuple[str, int] | None, cost: int = 1) -> int | None:
        rule = self._share(rule)
        if (site := find_site(client)) is not None:
            wide = type(rule)(rule.amount * SITE_FACTOR, rule.multiples, rule.namespace)
            if (wait := self._addresses.count(wide, site, cost)) is not None:
                return wait
        return self._addresses.count(rule, rate_limit_key(client), cost)


class _Counts:
    """How often each name was counted in its window of time; past `most` names, new ones share a count."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self.storage = MemoryStorage()
        self._counter = FixedWindowRateLimiter(self.storage)

    def count(self, rule: RateLimitItem, name: str, cost: int = 1) -> int | None:
        known = self.storage.storage
        if self._most is not None and len(known) >= self._most and rule.key_for(name) not in known:
            name = OTHER_CALLERS
        if self._counter.hit(rule, name, cost=min(cost, rule.amount)):
            return None
        return max(1, math.ceil(self._counter.get_window_stats(rule, name).reset_time - time.time()))


def rate_limit_key(client: tuple[str, int] | None) -> str:
    """An IPv4 address, or the first 64 bits of an IPv6 address: one subscriber has all addresses that begin so."""
    address = _parse_address(client)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return "unknown" if address is None else str(address)


def find_site(client: tuple[str, int] | None) -> str | None:
    """The first 48 bits of an IPv6 address: a site is given 65,536 networks that begin so."""
    address = _parse_address(client)
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    return str(ipaddress.ip_network((address, 48), strict=False))


def _parse_address(client: tuple[str, int] | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address((client or ("", 0))[0].partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
