"""A cluster loses, doubles and forgets nothing, whichever of its processes is killed, PostgreSQL included.

Three servers and four workers share a PostgreSQL and an S3 (in the short form two and two). Clients upload single
pictures and bulks to any server, and write to their fsynced ledger what they sent and what was acknowledged. Meanwhile
the proof kills with -9 a server, a worker, or PostgreSQL (which recovers from its log), chosen at random, and starts
it again, 200 times.

Failing: a picture that was acknowledged is lost, doubled, altered or not found at the end; an answer that is neither
success nor a refusal that a client may repeat; a picture, an upload or a job that has not ended when its lease and 10 s
have passed since the last kill, beside the time that the workers need for what waits.
"""

from __future__ import annotations

import random
import time

from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.reliability.uploader import Uploader, count_faults, settle
from tests.support.cluster import Cluster, has_postgresql

PROMISE = Promise(
    35,
    "cluster",
    "In a cluster no acknowledged picture is lost or doubled, whichever process is killed, PostgreSQL too.",
)
STARTED = 0.5  # seconds between a start and the next kill
KINDS = ("server", "worker", "worker", "server", "worker", "postgresql")
SEED = random.SystemRandom().randrange(1 << 32)


def run(scale: Scale) -> Outcome:
    """200 kills."""
    if not has_postgresql():
        raise Impossible("PostgreSQL is not installed")
    kills, size = scale.pick(6, 200), scale.pick((2, 2), (3, 4))
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    counts = dict.fromkeys(KINDS, 0)
    with Cluster(*size) as cluster:
        uploaders = [Uploader(cluster, cluster.folder, n) for n in range(2)]
        for n in range(kills):
            time.sleep(dice.uniform(0, 1.0))
            kind = KINDS[n % len(KINDS)] if n < len(KINDS) else dice.choice(KINDS)
            kill(cluster, kind, dice)
            counts[kind] += 1
            time.sleep(STARTED)
        for uploader in uploaders:
            uploader.end()
        stored, faults = settle(cluster, uploaders)
    said = ", ".join(f"{count} of a {kind}" for kind, count in counts.items()).replace("a postgresql", "PostgreSQL")
    figure = f"{size[0]} servers, {size[1]} workers, {kills} kills ({said}), {stored} pictures"
    return Outcome(f"{figure}: {count_faults(faults)}", not faults)


def kill(cluster: Cluster, kind: str, dice: random.Random) -> None:
    """kill -9 of one process of a kind, and start it again."""
    if kind == "postgresql":
        cluster.postgresql.kill()
        time.sleep(dice.uniform(0, 1.0))
        cluster.postgresql.start()
    elif kind == "worker":
        dice.choice(cluster.workers).restart()
    else:
        server = dice.choice(cluster.servers)
        server.kill()
        cluster.replace_server(server)
