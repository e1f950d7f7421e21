"""Many clients in a process of their own, on raw sockets: `python -m tests.reliability.crowd` reads its orders from
standard input.

An order is `{"port", "kinds": {KIND: COUNT}, "seconds", "ramp", "large"}` for slow clients: one whose connection is
closed opens another, so that their number stays what it is; or `{"port", "queries": COUNT}` for as many searches at
the same moment, each on a connection of its own. What came of it is printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

HOST = "127.0.0.1"
HEAD = b"Host: localhost\r\n"
TRICKLE = 5.0  # seconds between two bytes
LONG = 60.0
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Told = Counter[str]
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter, dict[str, Any]], Awaitable[str]]


async def _read_end(reader: asyncio.StreamReader) -> str:
    """How the server ended it: its status, `closed` without a word, or `kept` when it did not."""
    try:
        head = await asyncio.wait_for(reader.read(4096), LONG)
    except TimeoutError:
        return "kept"
    return head[9:12].decode("ascii", "replace") if head.startswith(b"HTTP/1.1 ") else "closed"


async def _trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """A byte now and then, until the server says something."""
    said = asyncio.ensure_future(_read_end(reader))
    try:
        while not said.done():
            writer.write(b"x")
            await asyncio.wait([said], timeout=TRICKLE)
        return said.result()
    finally:
        said.cancel()


async def header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: dict[str, Any]) -> str:
    """Slow loris: a header that never ends."""
    writer.write(b"GET /livez HTTP/1.1\r\n" + HEAD + b"X-Slow: ")
    return await _trickle(reader, writer)


async def body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: dict[str, Any]) -> str:
    """A body that never ends."""
    kind = b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    writer.write(b"POST /v1/search HTTP/1.1\r\n" + HEAD + kind)
    return await _trickle(reader, writer)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: dict[str, Any]) -> str:
    """Nothing is ever sent."""
    return await _read_end(reader)


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: dict[str, Any]) -> str:
    """One request, and nothing after its answer."""
    writer.write(b"GET /livez HTTP/1.1\r\n" + HEAD + b"\r\n")
    await asyncio.wait_for(reader.readuntil(b"}"), LONG)
    return await _read_end(reader)


async def unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: dict[str, Any]) -> str:
    """A large answer that is asked for and not read."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET " + order["large"].encode() + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
    await asyncio.sleep(LONG)
    return "kept"


KINDS: dict[str, Client] = {
    "header": header,
    "body": body,
    "silent": silent,
    "idle": idle,
    "unread": unread,
}


async def _repeat(kind: str, order: dict[str, Any], told: Told) -> None:
    """One client after the other in the same place, until it is cancelled."""
    await asyncio.sleep(random.random() * order["ramp"])
    while True:
        try:
            reader, writer = await asyncio.open_connection(HOST, order["port"])
        except OSError:
            told[f"{kind} not connected"] += 1
            await asyncio.sleep(1)
            continue
        told[f"{kind} connected"] += 1
        try:
            told[f"{kind} {await KINDS[kind](reader, writer, order)}"] += 1
        except (OSError, asyncio.IncompleteReadError):
            told[f"{kind} closed"] += 1
        finally:
            writer.transport.abort()


async def _hold(order: dict[str, Any]) -> None:
    told: Told = Counter()
    clients = [
        asyncio.ensure_future(_repeat(kind, order, told))
        for kind, count in order["kinds"].items()
        for _ in range(count)
    ]
    await asyncio.wait(clients, timeout=order["seconds"])
    print(json.dumps(told), flush=True)
    os._exit(0)  # thousands of clients need not end one by one


async def _query(n: int, port: int) -> tuple[str, float]:
    """A search for words of its own: the answer's status, or what came instead, and when."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"GET /v1/search?q=red+%d HTTP/1.1\r\nConnection: close\r\n" % n + HEAD + b"\r\n")
        answer = await reader.read()
        writer.close()
    except OSError as error:
        return type(error).__name__, time.monotonic() - began
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head[9:12].decode("ascii", "replace") if body else "nothing"
    if status in ("429", "503") and b"\r\nretry-after: " not in head.lower():
        status += " without Retry-After"
    return status, time.monotonic() - began


async def _ask(order: dict[str, Any]) -> None:
    """Every query at once; statuses, and the seconds until each kind of answer."""
    asked = [asyncio.ensure_future(_query(n, order["port"])) for n in range(order["queries"])]
    done, pending = await asyncio.wait(asked, timeout=LONG)
    told: dict[str, list[float]] = {"hung": [LONG] * len(pending)} if pending else {}
    for one in done:
        status, seconds = one.result()
        told.setdefault(status, []).append(seconds)
    print(json.dumps({status: sorted(times) for status, times in told.items()}), flush=True)
    os._exit(0)


def main() -> None:
    """Do what standard input orders; the counts as JSON on standard output."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    order = json.load(sys.stdin)
    if "kinds" in order:
        os.nice(5)  # such a crowd is on other machines, and does not take processors from the server
    uvloop.run(_ask(order) if "queries" in order else _hold(order))


if __name__ == "__main__":
    main()
