"""Clients that send the costliest bodies that they can think of, in a process of their own:
`python -m tests.reliability.costly` reads its order from standard input.

An order is `{"port", "bodies": [NAME], "clients", "seconds", "key"}`: each client sends one body after the other, each
on a connection of its own; or `{"port", "half": NAME, "clients", "seconds", "key"}`: each sends the first MiB of one
and holds its connection. How often each answer came is printed as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from tests.support.pictures import picture

HOST = "127.0.0.1"
MIB = 1 << 20
JSON = "application/json"
FORM = "multipart/form-data; boundary=xx"
PART = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'


def _query(inside: bytes) -> bytes:
    return b'{"query":[{"text":"red"}],' + inside + b"}"


def _repeat(item: bytes, size: int) -> bytes:
    return b",".join([item] * (size // (len(item) + 1)))


def _names(count: int) -> bytes:
    return b",".join(b'"n%06d":0' % n for n in range(count))


def _searches(count: int, parts: int) -> Iterator[dict[str, Any]]:
    """Searches by words that no cache has."""
    for _ in range(count):
        yield {"query": [{"text": f"red {secrets.token_hex(4)}"} for _ in range(parts)], "k": 100, "exact": True}


def _picture() -> dict[str, str]:
    return {"image": base64.b64encode(picture(size=(640, 480))).decode()}


def _field(n: int) -> bytes:
    return b'\r\n--xx\r\nContent-Disposition: form-data; name="labels"\r\n\r\nred %d' % n


# By name: the path, the type and the bytes of a body.
BODIES: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "session-lists": ("/v1/session", JSON, lambda: b'{"key":[' + _repeat(b"[]", 1000) + b"]}"),
    "session-names": ("/v1/session", JSON, lambda: b"{" + _names(80) + b"}"),
    "session-wrong": ("/v1/session", JSON, lambda: b'{"key":"sl_' + b"x" * 180 + b'"}'),
    "session-large": ("/v1/session", JSON, lambda: b'{"key":[' + _repeat(b"[]", MIB) + b"]}"),
    "groups": ("/v1/search", JSON, lambda: _query(b'"filter":{"must":[' + _repeat(b"{}", 90_000) + b"]}")),
    "many-groups": ("/v1/search", JSON, lambda: _query(b'"filter":{"must":[' + _repeat(b"{}", 45 * MIB) + b"]}")),
    "names": ("/v1/search", JSON, lambda: _query(_names(49_000))),
    "numbers": ("/v1/search", JSON, lambda: b'{"query":[{"vector":[' + _repeat(b"0.12345678", MIB - 99) + b"]}]}"),
    "many-numbers": ("/v1/search", JSON, lambda: b'{"query":[{"vector":[' + _repeat(b"1", 45 * MIB) + b"]}]}"),
    "small": ("/v1/search", JSON, lambda: _query(b'"filter":{"must":[' + _repeat(b"{}", 60_000) + b"]}")),
    "picture": (
        "/v1/search",
        JSON,
        lambda: b'{"query":[{"image":"' + base64.b64encode(bytes(30 * MIB)) + b'"}]}',
    ),
    "percent": ("/v1/search", JSON, lambda: b'{"query":[{"image":"data:;base64,' + b"%41" * (10 * MIB) + b'"}]}'),
    "form": ("/v1/search/image", FORM, lambda: PART + b"\r\n--x" * (2 * MIB) + b"\r\n--xx--\r\n"),
    "bulk": ("/v1/images/bulk", FORM, lambda: PART + bytes(MIB)),
    "batch": ("/v1/search/batch", JSON, lambda: json.dumps({"searches": list(_searches(100, 3))}).encode()),
    "pictures": ("/v1/search", JSON, lambda: json.dumps({"query": [_picture() for _ in range(8)]}).encode()),
    "words": ("/v1/search", JSON, lambda: json.dumps(next(_searches(1, 32))).encode()),
    "labels": ("/v1/classify", FORM, lambda: PART + picture() + b"".join(map(_field, range(500))) + b"\r\n--xx--\r\n"),
}
LENGTHS = {"bulk": 4 << 30, "picture": 47 * MIB, "form": 96 * MIB}  # that half-sent ones announce


def make_head(name: str, length: int, key: str) -> bytes:
    """The head of a request that announces a body of so many bytes."""
    path, kind, _ = BODIES[name]
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {length}"]
    lines += ["Connection: close", *([f"X-API-Key: {key}"] if key else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def send(port: int, head: bytes, body: bytes) -> str:
    """The status of the answer, which may come before the body has gone."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(head)
        answer = asyncio.ensure_future(reader.read(4096))
        for at in range(0, len(body), 1 << 18):
            if answer.done():
                break
            writer.write(body[at : at + (1 << 18)])
            with suppress(OSError):  # the server has answered and closed
                await writer.drain()
        return (await answer)[9:12].decode() or "closed"
    finally:
        writer.close()


async def send_on(order: dict[str, Any], told: Counter[str], first: int, bodies: dict[str, bytes]) -> None:
    """One client, until its time is over."""
    end = time.monotonic() + order["seconds"]
    names = list(bodies)
    for name in itertools.cycle(names[first % len(names) :] + names[: first % len(names)]):
        if time.monotonic() >= end:
            return
        try:
            body = bodies[name]
            told[await asyncio.wait_for(send(order["port"], make_head(name, len(body), order["key"]), body), 30)] += 1
        except (OSError, TimeoutError) as error:
            told[type(error).__name__] += 1


async def send_half(order: dict[str, Any], told: Counter[str], body: bytes) -> None:
    """One client that holds its connection, with as much sent as the server has read of it."""
    name = order["half"]
    try:
        reader, writer = await asyncio.open_connection(HOST, order["port"])
    except OSError as error:
        told[type(error).__name__] += 1
        return
    writer.write(make_head(name, LENGTHS[name], order["key"]) + body[:MIB])
    with suppress(OSError, TimeoutError):
        head = await asyncio.wait_for(reader.read(4096), order["seconds"])
        told[head[9:12].decode() or "closed"] += 1
        writer.close()
        return
    told["held"] += 1
    writer.close()


async def run(order: dict[str, Any]) -> dict[str, int]:
    """Every client of an order."""
    told: Counter[str] = Counter()
    if "half" in order:
        body = BODIES[order["half"]][2]()
        await asyncio.gather(*(send_half(order, told, body) for _ in range(order["clients"])))
    else:
        bodies = {name: BODIES[name][2]() for name in order["bodies"]}
        await asyncio.gather(*(send_on(order, told, n, bodies) for n in range(order["clients"])))
    return dict(told)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(json.load(sys.stdin)))))
