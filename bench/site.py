"""A web server of this machine with a picture for every number; every fiftieth is missing, no picture, or cut off.

python -m bench.site PORT
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from app.cli.demo import free_port
from bench.many import squares

HOST = "127.0.0.1"
BAD = 50  # one of so many
CODES = ("url_unreachable", "unsupported_media_type", "image_corrupt")
WAIT_SECONDS = 0.1


def fault(n: int) -> str | None:
    """The code that the picture of this number fails with; None for a good one."""
    return CODES[n // BAD % len(CODES)] if n % BAD == BAD - 1 else None


def expected(count: int) -> Counter[str]:
    """How many of the first `count` numbers fail with each code."""
    return Counter(code for n in range(count) if (code := fault(n)))


def answer(path: str) -> tuple[int, bytes]:
    """Status and body of `/N.png`."""
    n = int(path.strip("/").partition(".")[0])
    match fault(n):
        case "url_unreachable":
            return 404, b"not here"
        case "unsupported_media_type":
            return 200, b"<html>a page</html>"
        case "image_corrupt":
            return 200, squares(n)[:-40]
        case _:
            return 200, squares(n)


async def application(scope: dict[str, Any], _: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """The ASGI application."""
    status, body = answer(scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def running() -> Iterator[str]:
    """The server in a process of its own, ended with the block; its address."""
    port = free_port(HOST, 0)
    process = subprocess.Popen([sys.executable, "-m", "bench.site", str(port)])
    try:
        address = f"http://{HOST}:{port}"
        while not there(address):
            time.sleep(WAIT_SECONDS)
        yield address
    finally:
        process.terminate()
        process.wait()


def there(address: str) -> bool:
    """Whether it answers."""
    try:
        return httpx.get(f"{address}/0.png", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    uvicorn.run(application, host=HOST, port=int(sys.argv[1]), lifespan="off", log_level="warning", access_log=False)
