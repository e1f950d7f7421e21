"""Background jobs run at least once, and take effect exactly once.

The server has no workers of its own. The proof starts workers beside it and kills each with -9 after 0 to 1.5 s of
work, or stops it (SIGSTOP) until its lease has expired and then lets it continue. Bulks keep arriving meanwhile.

Failing: a job that has not ended `lease + 10 s` after the proof left a worker alone and the queue was empty; a picture
that is not done; a picture with two vectors in the log or two places in a job; a wrong count in a job.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import apsw

from tests.reliability.ledger import Ledger
from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.proofs.kills import bulk, wait_until_settled
from tests.support.servers import RunningServer, wait_until

PROMISE = Promise(17, "jobs", "Background jobs run at least once, and take effect exactly once.")
LEASE = 5.0
LONGEST = 1.5
SOONEST = 60.0


def run(scale: Scale) -> Outcome:
    """200 kills of workers."""
    kills = scale.pick(8, 200)
    dice = random.Random(17)
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name) / "ledger") as ledger:
        data = Path(name) / "data"
        with RunningServer(data, workers=0) as server:
            for n in range(kills):
                if n % 2 == 0:
                    bulk(server, ledger, archive=n % 4 == 0)
                kill_worker(data, server, dice, asleep=n % 10 == 7)
        wait_until_settled(data, ledger)
        twice = count_doubled(data)
    figure = (
        f"{kills} kills of workers, {len(ledger.there)} pictures: {len(ledger.faults)} stuck or lost, {twice} doubled"
    )
    if ledger.faults:
        figure += f"; {ledger.faults[0]}"
    return Outcome(figure, not ledger.faults and not twice)


def kill_worker(data: Path, server: RunningServer, dice: random.Random, asleep: bool) -> None:
    """Start a worker and kill it at work; if `asleep`, stop it and let it continue once its lease has expired."""
    worker = start(data)
    try:
        wait_until(lambda: is_busy(server) or worker.poll() is not None, SOONEST)
        time.sleep(dice.uniform(0, LONGEST) * dice.random())
        if asleep:
            worker.send_signal(signal.SIGSTOP)
            other = start(data)
            time.sleep(LEASE + 1)
            worker.send_signal(signal.SIGCONT)
            time.sleep(0.5)
            other.kill()
            other.wait()
    finally:
        worker.kill()
        worker.wait()


def start(data: Path) -> subprocess.Popen[bytes]:
    """Start a worker without a supervisor."""
    settings = {"MODEL": "colours", "DATA_DIR": data, "LEASE_SECONDS": LEASE, "MAX_ATTEMPTS": 1000, "BATCH_SIZE": 8}
    environment = {**os.environ, **{f"SIGHTLINE_{name}": str(value) for name, value in settings.items()}}
    return subprocess.Popen([sys.executable, "-m", "app", "worker"], env=environment, stderr=subprocess.DEVNULL)


def is_busy(server: RunningServer) -> bool:
    """Whether a worker holds pictures, or has finished all."""
    images: dict[str, int] = server.http.get("/v1/stats").json()["images"]
    return images["processing"] > 0 or images["queued"] == 0


def count_doubled(data: Path) -> int:
    """Count the pictures with more than one vector in the log, or with too many places in a job."""
    connection = apsw.Connection(str(data / "sightline.db"), flags=apsw.SQLITE_OPEN_READONLY)
    vectors = (
        "SELECT count(*) FROM (SELECT key FROM embeddings WHERE op = 'add' GROUP BY target, key HAVING count(*) > 1)"
    )
    items = "SELECT count(*) FROM (SELECT image_key FROM job_items GROUP BY job_id, image_key HAVING count(*) > 1)"
    total = sum(int(next(iter(connection.execute(sql)))[0]) for sql in (vectors, items))
    connection.close()
    return total
