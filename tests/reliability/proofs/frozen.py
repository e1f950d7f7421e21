"""A worker that was frozen, and wakes after its lease went to another, commits nothing.

The proof freezes a worker (SIGSTOP, with its decoders) while it holds pictures, waits until another worker has embedded
all of them, notes the log, and wakes the first.

Failing: the log has one entry more, or another one; a picture has two vectors or none; the worker that woke does not
go on with other work.
"""

from __future__ import annotations

import time

from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.support.cluster import LEASE_SECONDS, Cluster, has_postgresql
from tests.support.pictures import picture
from tests.support.servers import wait_until

PROMISE = Promise(36, "frozen", "A worker that wakes after its lease went to another commits nothing.")
PICTURES = 300  # more than a worker embeds until it is frozen
AWAKE = 3.0  # seconds that it has to commit what it holds
HELD = "SELECT count(*) FROM images WHERE status = 'processing'"
LOG = "SELECT seq, op, key, md5(vector) FROM embeddings ORDER BY seq"


def run(scale: Scale) -> Outcome:
    """Five times."""
    if not has_postgresql():
        raise Impossible("PostgreSQL is not installed")
    rounds = scale.pick(1, 5)
    held = added = doubled = 0
    with Cluster(1, 0, batch_size=8) as cluster:
        server = cluster.servers[0]
        for n in range(rounds):
            first = cluster.add_worker()
            contents = [picture(seed=PICTURES * n + each, size=(24, 24)) for each in range(PICTURES)]
            job = server.bulk([(f"{each}.png", content) for each, content in enumerate(contents)])
            wait_until(lambda: cluster.query(HELD)[0][0] > 0, 60)
            first.freeze()
            held += cluster.query(HELD)[0][0]
            second = cluster.add_worker()
            server.wait_job(job["id"], LEASE_SECONDS + 120)
            before = cluster.query(LOG)
            first.wake()
            time.sleep(AWAKE)
            after = cluster.query(LOG)
            added += len(after) - len(before) if after[: len(before)] == before else PICTURES
            doubled += len(after) - len({key for _, op, key, _ in after if op == "add"})
            second.kill()
            image = server.upload(picture(seed=PICTURES * (n + 1) - 1, size=(25, 25)), wait=30)
            assert image.status_code == 200, image.text  # by the worker that woke
            first.kill()
            cluster.workers.clear()
    figure = f"{held} pictures held by {rounds} frozen workers: {added} committed after waking, {doubled} doubled"
    return Outcome(figure, added == doubled == 0 and held > 0)
