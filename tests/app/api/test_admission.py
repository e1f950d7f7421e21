"""Who is counted at the door, and what one gets when it is full."""

from __future__ import annotations

import pytest

from app.api.concurrency import Doors, ThreadPools
from app.api.permissions import find_permission


def doors() -> Doors:
    return Doors(ThreadPools(queries=10))


def scope(method: str, path: str) -> dict[str, object]:
    return {"method": method, "path": path, "call": find_permission(method, path)}


def test_so_many_come_in_as_may_work_and_wait() -> None:
    door = doors().of(scope("GET", "/v1/search"))
    assert door is not None
    assert (door.most, door.full) == (ThreadPools(queries=10).queries.most, False)
    for _ in range(door.most):
        door.__enter__()
    assert door.full
    door.__exit__()
    assert not door.full


def test_searches_and_other_reads_do_not_count_for_each_other() -> None:
    both = doors()
    search, images = both.of(scope("GET", "/v1/search")), both.of(scope("GET", "/v1/images/a"))
    assert search is not None
    assert images is not None
    assert search is not images
    assert images is both.of(scope("GET", "/v1/stats"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("GET", "/v1/jobs/a/events"),
        ("POST", "/v1/search"),
        ("POST", "/v1/images"),
    ],
)
def test_health_what_lasts_and_what_has_a_body_are_not_counted(method: str, path: str) -> None:
    assert doors().of(scope(method, path)) is None
