"""A worker's death does not count against the pictures that it held. `scripts/prove kills` shows that none is lost."""

from __future__ import annotations

from pathlib import Path

from tests.reliability.strike import kill_processes
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until


def test_neighbours_of_a_worker_that_keeps_dying_are_not_blamed(tmp_path: Path) -> None:
    # Three deaths are what a picture may cause before it is given up; these did not cause any.
    with RunningServer(tmp_path / "data", lease_seconds=5) as server:
        for n in range(3):
            wait_until(server.pids, 40)
            job = server.bulk([(f"{n}-{m}.png", picture(seed=1000 * n + m, size=(31, 30))) for m in range(64)])
            # more than one, because a picture that is alone at work is suspected
            wait_until(lambda: server.http.get("/v1/stats").json()["images"]["processing"] > 1, 40)
            kill_processes(server, "worker")
        ended = server.wait_job(job["id"])
        assert ended["done"] == 64
        assert server.http.get("/v1/stats").json()["images"]["failed"] == 0
