"""Bounds on calls and requests: a burst is answered or refused, and other kinds of calls go on."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from app.api.concurrency import RequestLimits, ThreadPool
from app.core.errors import Overloaded
from tests.app.api.asking import check_refusal, upload_ready
from tests.support.servers import RunningServer


def test_a_burst_of_searches_is_answered_or_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", max_concurrent_queries=2) as server:
        upload_ready(server)
        with ThreadPoolExecutor(40) as threads:
            answers = list(threads.map(lambda _: server.http.get("/v1/search?q=red"), range(200)))
        for answer in answers:
            if answer.status_code != 200:
                check_refusal(answer, 503, "overloaded")
        assert any(answer.status_code == 200 for answer in answers)
        assert server.http.get("/v1/search?q=red").status_code == 200


def test_a_pool_runs_so_many_at_once_and_refuses_past_its_depth() -> None:
    running: list[int] = []
    most = 0

    def work(n: int) -> int:
        nonlocal most
        running.append(n)
        most = max(most, len(running))
        time.sleep(0.02)
        running.remove(n)
        return n

    async def main() -> tuple[list[int], list[str]]:
        pool = ThreadPool("writes", 2, 3)
        done: list[int] = []
        refusals: list[str] = []

        async def call(n: int) -> None:
            try:
                done.append(await pool.run(work, n))
            except Overloaded as error:
                refusals.append(error.detail)

        async with anyio.create_task_group() as group:
            for n in range(10):
                group.start_soon(call, n)
        return sorted(done), refusals

    done, refusals = anyio.run(main)
    assert len(done) == 5
    assert refusals == ["too many writes at once: the limit is 5; try again in a moment"] * 5
    assert most == 2


def test_a_fault_reaches_the_caller() -> None:
    def fail() -> None:
        raise Overloaded("as it is")

    async def main() -> None:
        with pytest.raises(Overloaded, match="as it is"):
            await ThreadPool("writes", 1, 1).run(fail)

    anyio.run(main)


@pytest.mark.parametrize(
    ("method", "url", "name"),
    [
        (b"GET", b"/v1/search?q=red", "searches"),
        (b"POST", b"/v1/search", "searches"),
        (b"POST", b"/v1/search/batch", "searches"),
        (b"GET", b"/v1/images/a?x=/events", "reads"),
        (b"GET", b"/v1/stats", "reads"),
        (b"GET", b"/v1/jobs/a/events?x", None),
        (b"GET", b"/livez", None),
        (b"GET", b"/readyz", None),
        (b"GET", b"/metrics", None),
        (b"GET", b"/", None),
        (b"POST", b"/v1/images", None),
    ],
)
def test_health_checks_event_streams_and_uploads_are_not_counted(method: bytes, url: bytes, name: str | None) -> None:
    limit = RequestLimits(2, 2).find(method, url)
    assert (limit and limit.name) == name
