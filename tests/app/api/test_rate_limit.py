from __future__ import annotations

import threading

import pytest

from app.api import rate_limit
from app.api.rate_limit import SITE_FACTOR, WRONG_COOKIES, RateLimiter, rate_limit_key
from app.core.errors import StartupError


def address(text: str) -> tuple[str, int]:
    """A client at this address."""
    return text, 1


A, B = address("192.0.2.1"), address("192.0.2.2")


def test_without_a_rule_nothing_is_counted() -> None:
    unbound = RateLimiter()
    assert [unbound.count_request(A) for _ in range(1000)] == [None] * 1000


def test_a_caller_past_its_rate_is_told_how_long_to_wait_and_others_are_not() -> None:
    bound = RateLimiter("3/minute")
    assert [bound.count_request(A) for _ in range(3)] == [None] * 3
    wait = bound.count_request(A)
    assert wait is not None
    assert 1 <= wait <= 60
    assert bound.count_request(B) is None


def test_wrong_keys_are_counted_by_address_and_apart_from_cookies() -> None:
    counted = RateLimiter()
    assert [counted.count_wrong_key(A) is None for _ in range(12)] == [True] * 10 + [False] * 2
    assert counted.count_wrong_key(A, WRONG_COOKIES) is None
    assert counted.count_wrong_key(B) is None


def test_memory_is_bounded_whoever_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CALLERS", 50)
    counted = RateLimiter()
    refused = sum(counted.count_wrong_key(address(f"10.0.{n // 250}.{n % 250}")) is not None for n in range(2000))
    assert len(counted._addresses.storage.storage) <= 51
    assert refused == 2000 - 50 - 10  # those past the fiftieth share one count


def test_a_key_never_shares_a_count_with_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CALLERS", 20)
    counted = RateLimiter("3/minute")
    strangers = [counted.count_request(address(f"10.0.0.{n}")) for n in range(200)]
    assert [one is None for one in strangers] == [True] * 23 + [False] * 177
    keys = [[counted.count_request(A, f"key {n}") is None for _ in range(4)] for n in range(100)]
    assert keys == [[True] * 3 + [False]] * 100


def test_a_site_has_as_many_requests_as_a_few_subscribers() -> None:
    counted = RateLimiter("3/minute")

    def ask(site: str) -> int:
        return sum(counted.count_request(address(f"{site}:{n:x}::1")) is None for n in range(1000))

    assert ask("2001:db8:1") == 3 * SITE_FACTOR
    assert len(counted._addresses.storage.storage) == 1 + 3 * SITE_FACTOR
    assert ask("2001:db8:2") == 3 * SITE_FACTOR


def test_a_rule_that_is_none_is_one_line() -> None:
    for rule in ("many", "0", "10", "ten/minute", "10/fortnight"):
        with pytest.raises(StartupError, match="SIGHTLINE_RATE_LIMIT"):
            RateLimiter(rule)


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::ffff%eth0", 1), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("a name", 1), "unknown"),
        (None, "unknown"),
    ],
)
def test_one_subscriber_is_one_address(client: tuple[str, int] | None, address: str) -> None:
    assert rate_limit_key(client) == address


def test_counting_leaves_no_thread_behind() -> None:
    RateLimiter("3/minute").count_request(A)
    assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer) and one.interval > 1]


def test_each_of_several_servers_allows_its_share() -> None:
    servers = 2
    shared = RateLimiter("5/minute", lambda: servers)
    assert [shared.count_request(A, "key") is None for _ in range(3)] == [True, True, False]
    servers = 10
    assert [shared.count_request(B) is None for _ in range(2)] == [True, False]
