"""How long JSON bodies of requests take to parse: by `json`, by ours on it (decision 49), and by pydantic-core."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

import pydantic_core

from app.core.strict_json import load_json

PARSERS: dict[str, Callable[[bytes], object]] = {
    "json": json.loads,
    "strict": load_json,
    "pydantic-core": pydantic_core.from_json,
}
ROUNDS = 9


def make_bodies(size: int) -> dict[str, bytes]:
    """A body of numbers and one of texts, of about so many bytes."""
    dice = random.Random(49)
    numbers = [round(dice.random(), 8) for _ in range(size // 12)]
    texts = [{"id": f"t{n}", "text": "a red car " * 6} for n in range(size // 90)]
    return {
        "numbers": json.dumps({"query": [{"vector": numbers}]}).encode(),
        "texts": json.dumps({"texts": texts}).encode(),
    }


def measure(parse: Callable[[bytes], object], body: bytes) -> float:
    """Milliseconds of the fastest of ROUNDS."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        parse(body)
        times.append(1000 * (time.perf_counter() - began))
    return min(times)


if __name__ == "__main__":
    for size in (64 << 10, 256 << 10, 1 << 20):
        for kind, body in make_bodies(size).items():
            times = ", ".join(f"{name} {measure(parse, body):.2f} ms" for name, parse in PARSERS.items())
            print(f"{len(body) >> 10} KiB of {kind}: {times}")
