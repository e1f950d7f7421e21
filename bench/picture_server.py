"""A web server on this machine with a picture for every number; every fiftieth is missing, no picture, or truncated.

python -m bench.picture_server PORT
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
from bench.many import draw_squares

HOST = "127.0.0.1"
BAD = 50  # one picture in so many is bad
CODES = ("url_unreachable", "unsupported_media_type", "image_corrupt")
WAIT_SECONDS = 0.1


def find_fault(n: int) -> str | None:
    """The error code that the picture of this number must fail with; None for a good one."""
    return CODES[n // BAD % len(CODES)] if n % BAD == BAD - 1 else None


def count_faults(count: int) -> Counter[str]:
    """How many of the first `count` numbers fail, by code."""
    return Counter(code for n in range(count) if (code := find_fault(n)))


def build_answer(path: str) -> tuple[int, bytes]:
    """Status and body of `/N.png`."""
    n = int(path.strip("/").partition(".")[0])
    match find_fault(n):
        case "url_unreachable":
            return 404, b"not here"
        case "unsupported_media_type":
            return 200, b"<html>a page</html>"
        case "image_corrupt":
            return 200, draw_squares(n)[:-40]
        case _:
            return 200, draw_squares(n)


async def application(scope: dict[str, Any], _: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    status, body = build_answer(scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def run_picture_server() -> Iterator[str]:
    """Run the server in its own process; yield its address."""
    port = free_port(HOST, 0)
    process = subprocess.Popen([sys.executable, "-m", "bench.picture_server", str(port)])
    try:
        address = f"http://{HOST}:{port}"
        while not is_up(address):
            time.sleep(WAIT_SECONDS)
        yield address
    finally:
        process.terminate()
        process.wait()


def is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/0.png", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    uvicorn.run(application, host=HOST, port=int(sys.argv[1]), lifespan="off", log_level="warning", access_log=False)
