"""A bad picture fails alone.

The proof sends bulks of a hundred pictures of which one cannot be decoded (in turn the first, the middle, the last),
and archives of a thousand with one bad member.

Failing: a good neighbour is not ready under its id; the bad picture fails without a reason; it takes more than the
allowed attempts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.archives import make_zip
from tests.support.pictures import picture
from tests.support.sample_pictures import sample
from tests.support.servers import RunningServer

PROMISE = Promise(10, "poison", "A poisonous file fails alone, with its reason; its neighbours are taken.")


def run(scale: Scale) -> Outcome:
    """Bulks of a hundred and an archive of a thousand, one bad in each."""
    bad = poison()
    done = failed = 0
    wrong: list[str] = []
    seeds = iter(range(1, 1_000_000))
    with tempfile.TemporaryDirectory() as folder, RunningServer(Path(folder) / "data") as server:
        for place in (0, 50, 99)[: scale.pick(1, 3)]:
            for name, content in bad.items():
                files = [(f"{n}.png", picture(seed=next(seeds))) for n in range(99)]
                files.insert(place, (name, content))
                job = server.wait_job(server.bulk(files)["id"])
                done, failed = done + job["done"], failed + job["failed"]
                wrong += list_faults(server, job, name, 99)
        count = scale.pick(200, 1000)
        members = {f"{n}.png": picture(seed=next(seeds)) for n in range(count - 1)}
        job = server.wait_job(
            server.bulk([("a.zip", make_zip({**members, **dict([next(iter(bad.items()))])}))])["id"], 300
        )
        wrong += list_faults(server, job, next(iter(bad)), count - 1)
        deaths = server.process.poll() is not None
    figure = (
        f"{done} of {done} neighbours taken beside {failed} poisonous, {job['done']} of {count - 1} in an archive;"
        f" {len(wrong)} otherwise{': ' + '; '.join(wrong[:3]) if wrong else ''}"
    )
    return Outcome(figure, not wrong and not deaths)


def poison() -> dict[str, bytes]:
    """Pictures with a valid header and damaged data."""
    whole = {kind: sample(kind, 200, 150, seed=10) for kind in ("png", "jpeg", "webp", "avif")}
    return {f"bad.{kind}": content[: len(content) // 2] for kind, content in whole.items()}


def list_faults(server: RunningServer, job: dict[str, Any], bad: str, good: int) -> list[str]:
    """How the end of a job differs from what it should be."""
    failed = server.http.get(f"/v1/jobs/{job['id']}/items", params={"status": "failed"}).json()["items"]
    found = []
    if (job["state"], job["done"], job["failed"]) != ("succeeded", good, 1):
        found.append(f"{bad}: {job['state']}, {job['done']} done, {job['failed']} failed")
    elif failed[0]["name"] != bad or not failed[0]["error"]["detail"]:
        found.append(f"{bad}: {failed[0]['name']} failed for {failed[0]['error']}")
    return found
