"""Odd archives of others do not delay a clean one.

For each kind, the proof measures how long a server takes to load a clean archive alone. Then it sends a hundred odd
archives of that kind, ten jobs of ten, and at once the same clean pictures in another form: damaged headers, sparse
members, links, long names, archives in archives, PAX headers of digits. Both loads follow each other, so that whatever
else the machine does slows both.

Failing: the clean job takes more than twice its time alone, three times in a row; a picture of it is missing; an odd
job does not end.
"""

from __future__ import annotations

import gzip
import math
import random
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.archives import PNG, make_tar, make_zip
from tests.support.pictures import picture
from tests.support.servers import RunningServer

Make = Callable[[random.Random], tuple[str, bytes]]

PROMISE = Promise(26, "crowding", "Odd archives do not hold up a clean one: it ends within twice its time alone.")
JOBS = 10
TRIES = 3  # of a kind, should the machine pause at one


def run(scale: Scale) -> Outcome:
    """Each kind once, or the worst two of them with fewer pictures."""
    kinds = {name: make for name, make in KINDS.items() if scale is Scale.LONG or name in ("pax", "damaged")}
    count, odd = scale.pick(400, 1000), scale.pick(3, 10)
    dice = random.Random(26)
    wrong: list[str] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data", archive_seconds=60) as server:
        load_clean(server, count, 0)  # the first one starts the decoders
        seeds = iter(range(1, 100))
        for name, make in kinds.items():
            for _ in range(TRIES):
                alone, _ = load_clean(server, count, next(seeds))
                jobs = [server.bulk([odd_file(make, dice, n) for n in range(odd)])["id"] for _ in range(JOBS)]
                seconds, done = load_clean(server, count, next(seeds))
                ratios[name] = min(seconds / alone, ratios.get(name, math.inf))
                states = {server.wait_job(job, 120)["state"] for job in jobs}
                if done != count or states != {"succeeded"}:
                    wrong.append(f"{name}: {done} of {count} pictures, {sorted(states)}")
                if ratios[name] <= 2:
                    break
    wrong += [f"{name}: {ratio:.2f} times" for name, ratio in ratios.items() if ratio > 2]
    worst = max(ratios, key=lambda name: ratios[name])
    figure = (
        f"{count} pictures beside {JOBS * odd} odd archives of one kind ({len(kinds)}) take at most"
        f" {ratios[worst]:.2f} times as long as alone ({worst});"
        f" {len(wrong)} otherwise{': ' + '; '.join(wrong[:3]) if wrong else ''}"
    )
    return Outcome(figure, not wrong)


def odd_file(make: Make, dice: random.Random, n: int) -> tuple[str, bytes]:
    """A name and an archive."""
    end, content = make(dice)
    return f"odd-{n}.{end}", content


def load_clean(server: RunningServer, count: int, seed: int) -> tuple[float, int]:
    """Seconds from sending an archive of new pictures until its job has ended, and how many came in."""
    content = make_zip({f"{n}.png": picture("green", seed * 100_000 + n, (320, 240)) for n in range(count)})
    began = time.monotonic()
    job = server.wait_job(server.bulk([("clean.zip", content)])["id"], 300)
    return time.monotonic() - began, job["done"]


def damaged(dice: random.Random) -> tuple[str, bytes]:
    """A tar with a byte of its second header changed."""
    content = bytearray(make_tar({"a.png": PNG, "b.png": PNG, "c.png": PNG}))
    content[len(content) // 3 + dice.randrange(100)] ^= 1 + dice.randrange(255)
    return "tar", bytes(content)


def sparse(dice: random.Random) -> tuple[str, bytes]:
    """A file that claims terabytes of zeros, by a PAX header."""
    info = tarfile.TarInfo("sparse.png")
    size = str(dice.randrange(1 << 40, 1 << 43))
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": size, "GNU.sparse.realsize": size}
    return "tar", make_tar({"s": info})


def links(dice: random.Random) -> tuple[str, bytes]:
    """Links to each other and out of the archive."""
    members = {}
    for n in range(200):
        info = tarfile.TarInfo(f"{n}.png")
        info.type, info.linkname = dice.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)), f"../{(n + 1) % 200}.png"
        members[info.name] = info
    return "tar", make_tar(members)


def names(dice: random.Random) -> tuple[str, bytes]:
    """Names of thousands of characters, with steps out of the folder."""
    return "zip", make_zip({"../" * 1_000 + f"{dice.random()}{n}.png": PNG[:20] for n in range(200)})


def nested(dice: random.Random) -> tuple[str, bytes]:
    """Archives in archives, eight deep."""
    content = make_zip({f"{dice.random()}.png": PNG})
    for n in range(8):
        content = make_zip({f"{n}.zip": content})
    return "zip", content


def pax(dice: random.Random) -> tuple[str, bytes]:
    """A PAX header of 80,000 digits, which cost Python 3.11.7 six seconds."""
    digits = str(dice.randrange(1, 10)).encode() * 80_000
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(digits)
    head = info.tobuf(tarfile.USTAR_FORMAT) + digits + bytes(-len(digits) % 512)
    return "tar.gz", gzip.compress(head + make_tar({"a.png": PNG}))


KINDS: dict[str, Make] = {make.__name__: make for make in (damaged, sparse, links, names, nested, pax)}
