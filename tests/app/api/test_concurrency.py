"""Bounds on calls and requests: a burst is answered or refused, and other kinds of calls go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from app.api.concurrency import RequestLimits, SharedCalls, ThreadPool
from app.core.errors import NotFound, Overloaded
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


class Answers:
    """Answers queries, and keeps which of them came in one call. The first call waits until `go` is set."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.began, self.go = threading.Event(), threading.Event()

    def answer(self, queries: Sequence[str]) -> list[str | Exception]:
        self.calls.append(list(queries))
        self.began.set()
        self.go.wait(10)
        if "bug" in queries:
            raise ZeroDivisionError
        if "busy" in queries:
            raise Overloaded("busy")
        return [NotFound(query) if query == "nothing" else query.upper() for query in queries]


def share(answers: Answers, queries: Sequence[str], *, capacity: int = 100, gone: Collection[str] = ()) -> list[str]:
    """Ask for all queries one after the other while the first call waits; each answer, or the name of its error. Those
    `gone` are cancelled meanwhile."""

    async def ask(shared: SharedCalls[str, str], query: str) -> str:
        try:
            return await shared.run(answers.answer, query)
        except Exception as error:
            return type(error).__name__
        except asyncio.CancelledError:
            return "gone"

    async def main() -> list[str]:
        shared: SharedCalls[str, str] = SharedCalls(ThreadPool("queries", 4, capacity - 4), 1)
        tasks = []
        for query in queries:
            tasks.append(asyncio.create_task(ask(shared, query)))
            await asyncio.sleep(0)
        await asyncio.to_thread(answers.began.wait, 10)
        for query, task in zip(queries, tasks, strict=True):
            if query in gone:
                task.cancel()
        answers.go.set()
        return await asyncio.gather(*tasks)

    return asyncio.run(main())


def test_queries_that_wait_share_the_next_call_and_each_gets_its_own_answer() -> None:
    answers = Answers()
    assert share(answers, ["a", "b", "nothing", "c"]) == ["A", "B", "NotFound", "C"]
    assert answers.calls == [["a"], ["b", "nothing", "c"]]


def test_a_call_takes_so_many_queries_at_most() -> None:
    answers = Answers()
    names = [str(n) for n in range(SharedCalls.most + 5)]
    assert share(answers, names) == names
    assert [len(call) for call in answers.calls] == [1, SharedCalls.most, 4]


def test_a_bug_that_one_query_meets_fails_no_other_one_and_a_refusal_is_for_all() -> None:
    answers = Answers()
    assert share(answers, ["a", "b", "bug", "c"]) == ["A", "B", "ZeroDivisionError", "C"]
    assert answers.calls[1:] == [["b", "bug", "c"], ["b"], ["bug"], ["c"]]
    assert share(Answers(), ["a", "busy", "c"]) == ["A", "Overloaded", "Overloaded"]


def test_nobody_works_for_a_caller_that_has_gone() -> None:
    answers = Answers()
    assert share(answers, ["a", "b", "c"], gone={"b"}) == ["A", "gone", "C"]
    assert answers.calls == [["a"], ["c"]]


def test_queries_past_the_capacity_are_refused() -> None:
    answers = Answers()
    assert share(answers, ["a", "b", "c", "d", "e", "f"], capacity=4) == ["A", *"BCDE", "Overloaded"]


def test_queries_of_different_functions_share_no_call() -> None:
    first, second = Answers(), Answers()
    first.go.set()
    second.go.set()

    async def main() -> list[str]:
        shared: SharedCalls[str, str] = SharedCalls(ThreadPool("queries", 4, 96), 1)
        calls = [shared.run(function, "q") for function in (first.answer, first.answer, second.answer, first.answer)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == ["Q"] * 4
    assert (first.calls, second.calls) == ([["q"], ["q"], ["q"]], [["q"]])
