"""Recorded requests, changed at random: what a fuzzer of a foreign wire sends."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    1 << 64,
    -(1 << 63),
    "",
    " ",
    "a" * 5_000,
    "\x00",
    "é\U0001f600",
    "%s",
    "../x",
]
ODD += ["data:image/png;base64,", "http://127.0.0.1:1/x", [], {}, [[]], [None], {"": ""}, [0.0] * 60, 1e308]


def mutate_json(recorded: Any, count: int, seed: int = 0) -> Iterator[bytes]:
    """Bodies in which something of a recorded one is replaced, removed or doubled, or that are no JSON any more."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = copy.deepcopy(recorded)
        for _ in range(rng.choice((1, 1, 2, 3))):
            changed = _change_value(changed, rng)
        body = json.dumps(changed).encode()
        yield mutate_bytes(body, rng) if rng.random() < 0.2 else body


def mutate_bytes(body: bytes, rng: random.Random) -> bytes:
    """The same bytes, with some cut off, turned or repeated."""
    at = rng.randrange(len(body) + 1)
    kind = rng.randrange(3)
    if kind == 0:
        return body[:at]
    if kind == 1:
        return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
    return body[:at] + body[max(0, at - 40) :]


def _change_value(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(ODD)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        value[at : at + 1] = rng.choice(([], [_change_value(value[at], rng)], [value[at]] * 3))
        return value
    name = rng.choice(list(value))
    kind = rng.random()
    if kind < 0.15:
        del value[name]
    elif kind < 0.25:
        value[rng.choice(("x", "", name + "s"))] = value.pop(name)
    else:
        value[name] = _change_value(value[name], rng)
    return value
