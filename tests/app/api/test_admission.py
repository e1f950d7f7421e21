"""What bodies may cost is decided before they are read, and given back at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Request

from app.api.admission import (
    AT_ONCE,
    BATCHES,
    CHEAP_SECONDS,
    JSON,
    LARGE,
    MAX_WAITING,
    PICTURES,
    QUERY,
    SMALL,
    TINY_BODY,
    UPLOAD,
    Admission,
    BodyLimit,
    ByteBudget,
    Turns,
)
from app.core.errors import Overloaded, PayloadTooLarge, RateLimited
from app.core.settings import Settings

MIB = 1 << 20


def make_request(parts: list[bytes], length: int | None, kind: str = "application/json", caller: str = "me") -> Request:
    """A request whose body comes in these parts; `length` is what its head says."""
    headers = [(b"content-type", kind.encode())]
    headers += [] if length is None else [(b"content-length", str(length).encode())]
    coming = iter(parts)

    async def receive() -> dict[str, Any]:
        part = next(coming)
        return {"type": "http.request", "body": part, "more_body": part is not parts[-1]}

    return Request({"type": "http", "method": "POST", "headers": headers, "caller": caller}, receive)


def read(admission: Admission, limit: BodyLimit, parts: list[bytes], length: int | None, **sent: Any) -> int:
    """Bytes of a body that was let in and read; whatever happened, all is given back."""

    async def call() -> int:
        async with admission.admit(make_request(parts, length, **sent), limit) as admitted:
            return len(await admitted.body())

    try:
        return asyncio.run(call())
    finally:
        assert (admission.memory.taken, admission.files.taken) == (0, 0)
        assert admission.memory.callers == admission.files.callers == {}


@pytest.mark.parametrize(
    ("limit", "most", "kind"),
    [
        (TINY_BODY, 1024, "application/json"),
        (TINY_BODY, 1024, "text/plain"),
        (JSON, MIB, "application/json"),
        (QUERY, 3 * MIB, "application/json"),
        (UPLOAD, MIB, "application/json"),
        (UPLOAD, 5 * MIB, "multipart/form-data"),
    ],
)
def test_a_body_has_the_limit_of_its_call(limit: BodyLimit, most: int, kind: str) -> None:
    admission = Admission(Settings(max_query_json_bytes=3 * MIB, max_upload_bytes=5 * MIB))
    whole = [bytes(most // 2), bytes(most - most // 2)]
    for length in (most, None):
        assert read(admission, limit, whole, length, kind=kind) == most
    with pytest.raises(PayloadTooLarge, match=f"may have {most} bytes"):
        read(admission, limit, [], most + 1, kind=kind)  # nothing is read
    with pytest.raises(PayloadTooLarge, match=f"may have {most} bytes"):
        read(admission, limit, [*whole, b"x"], None, kind=kind)


def test_a_budget_is_shared() -> None:
    budget = ByteBudget("JSON", 8 * MIB, MIB)
    for name in ("a", "b", "c"):
        budget.take(name, 2 * MIB, small=False)
    with pytest.raises(
        RateLimited, match=f"{2 * MIB} bytes of JSON of this caller are under way; the limit is {2 * MIB}"
    ):
        budget.take("a", 1, small=True)
    with pytest.raises(Overloaded, match=f"{6 * MIB} bytes of JSON are under way; the limit is {6 * MIB}"):
        budget.take("d", MIB, small=False)
    budget.take("d", SMALL, small=True)  # the last quarter is theirs
    budget.give_back("a", 2 * MIB)
    budget.take("a", 2 * MIB - SMALL, small=False)


def test_the_largest_body_fits_whatever_the_budget() -> None:
    admission = Admission(Settings(max_memory_bodies=1, max_incoming_bytes=1, max_upload_bytes=5 * MIB))
    assert read(admission, JSON, [bytes(MIB)], MIB) == MIB
    assert read(admission, UPLOAD, [bytes(5 * MIB)], 5 * MIB, kind="multipart/form-data") == 5 * MIB


def test_bytes_under_way_are_reserved_before_they_come() -> None:
    admission = Admission(Settings(max_memory_bodies=8 * MIB))

    async def call() -> None:
        first = [admission.admit(make_request([], MIB), JSON) for _ in range(2)]
        for one in first:
            await one.__aenter__()
        with pytest.raises(RateLimited):
            await admission.admit(make_request([], MIB), JSON).__aenter__()
        async with admission.admit(make_request([], MIB, caller="another"), JSON):
            assert admission.memory.taken == 3 * MIB
        for one in first:
            await one.__aexit__(ValueError, ValueError(), None)
        assert admission.memory.taken == 0

    asyncio.run(call())


def test_few_large_bodies_of_a_caller_are_read_at_once_and_few_wait() -> None:
    admission = Admission(Settings(max_memory_bodies=1 << 40))

    async def call() -> None:
        is_open = asyncio.Event()
        inside = 0

        async def enter(caller: str) -> None:
            nonlocal inside
            async with admission.admit(make_request([], SMALL + 1, caller=caller), JSON):
                inside += 1
                await is_open.wait()

        tasks = [asyncio.create_task(enter("me")) for _ in range(AT_ONCE[LARGE] + MAX_WAITING)]
        await asyncio.sleep(0)
        assert inside == AT_ONCE[LARGE]
        with pytest.raises(RateLimited, match=f"{MAX_WAITING} large requests of this caller wait"):
            await enter("me")
        other = asyncio.create_task(enter("another"))
        async with admission.admit(make_request([], SMALL), JSON):
            await asyncio.sleep(0)
        assert inside == AT_ONCE[LARGE] + 1
        is_open.set()
        await asyncio.gather(*tasks, other)

    asyncio.run(call())


def spin(seconds: float) -> Callable[[], None]:
    def use_the_processor() -> None:
        import time

        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    return use_the_processor


def test_costly_work_of_one_caller_is_followed_by_a_pause_that_others_do_not_have() -> None:
    async def call() -> list[str]:
        turns = Turns()
        ended: list[str] = []

        async def work(name: str, caller: str, seconds: float) -> None:
            await turns.work(caller, spin(seconds))
            ended.append(name)

        await work("costly", "me", 20 * CHEAP_SECONDS)
        mine = [asyncio.create_task(work("next", "me", 0)), asyncio.create_task(work("last", "me", 0))]
        await work("of another", "you", 0)
        await asyncio.gather(*mine)
        return ended

    assert asyncio.run(call()) == ["costly", "of another", "next", "last"]


def test_an_error_in_a_thread_comes_out_and_work_goes_on() -> None:
    async def call() -> int:
        turns = Turns()
        with pytest.raises(ZeroDivisionError):
            await turns.work("me", lambda: 1 // 0)
        return await turns.work("me", threading.get_ident)

    assert asyncio.run(call()) != threading.get_ident()


def test_each_kind_of_costly_call_has_seats_of_its_own_for_each_caller() -> None:
    async def call() -> dict[str, int]:
        turns, is_open = Turns(), asyncio.Event()
        inside = dict.fromkeys((LARGE, PICTURES, BATCHES), 0)

        async def enter(caller: str, name: str) -> None:
            async with turns.enter(caller, name):
                inside[name] += 1
                await is_open.wait()

        tasks = [asyncio.create_task(enter("me", name)) for name in (PICTURES, BATCHES) for _ in range(20)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(enter("you", BATCHES)))
        await asyncio.sleep(0)
        seen = dict(inside)
        is_open.set()
        await asyncio.gather(*tasks)
        assert inside == {LARGE: 0, PICTURES: 20, BATCHES: 21}
        return seen

    assert asyncio.run(call()) == {LARGE: 0, PICTURES: AT_ONCE[PICTURES], BATCHES: AT_ONCE[BATCHES] + 1}
