"""How many requests, and how many wrong keys, one caller may send; the library `limits` counts them in memory."""

from __future__ import annotations

import ipaddress
import math
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from app.core.errors import StartupError

MAX_CALLERS = 10_000  # with a count of their own; all further callers share one
WRONG_KEYS = parse("10/minute")  # of one address
WRONG_COOKIES = parse("300/minute")  # a page whose key was revoked sends its old one with every picture
OTHER_CALLERS = "all others"


class RateLimiter:
    """Counts callers, each for one window of time. `rule` is `600/minute`, say; empty is no limit."""

    def __init__(self, rule: str = "") -> None:
        try:
            self._rule = parse(rule) if rule else None
        except ValueError:
            raise StartupError(
                f"--rate-limit (SIGHTLINE_RATE_LIMIT): {rule!r} is not like 600/minute, 20/second or 1000/15minutes"
            ) from None
        self._storage = MemoryStorage()
        self._counter = FixedWindowRateLimiter(self._storage)

    def count_request(self, caller: str) -> int | None:
        """Count a request; the seconds to wait when the caller has sent too many, else None."""
        return None if self._rule is None else self._count(self._rule, caller)

    def count_wrong_key(self, address: str, rule: RateLimitItem = WRONG_KEYS) -> int | None:
        """Count a wrong key; the seconds to wait when the address has sent too many, else None."""
        return self._count(rule, address)

    def _count(self, rule: RateLimitItem, caller: str) -> int | None:
        known = self._storage.storage
        if len(known) >= MAX_CALLERS and rule.key_for(caller) not in known:
            caller = OTHER_CALLERS
        if self._counter.hit(rule, caller):
            return None
        return max(1, math.ceil(self._counter.get_window_stats(rule, caller).reset_time - time.time()))


def rate_limit_key(client: tuple[str, int] | None) -> str:
    """An IPv4 address, or the first 64 bits of an IPv6 address: one subscriber has all addresses that begin so."""
    if client is None:
        return "unknown"
    try:
        address = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
