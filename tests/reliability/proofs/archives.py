"""Archives are read within fixed bounds, and none of their members is written outside the store.

The proof sends some forty hostile archives (`tests/reliability/archives.py`: bombs, traversals, links and devices,
false sizes, damage) to a server that permits 24 MiB and 1,000 members.

Failing: a file appears beside the data directory or where a member's name points; the data directory ever holds more
than twice the permitted size; a bomb is not refused as a whole; a job does not end; the server ends.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.reliability.archives import corpus
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(14, "archives", "Archives are read within fixed bounds and never write outside of the store.")
PERMITTED = 24 << 20
REFUSED = {"archive_limit", "archive_corrupt", "unsupported_media_type", "image_corrupt", "image_too_large"}


class Disk:
    """Samples the size of a folder twenty times a second; keeps the maximum."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Disk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.most = max(self.most, sum(size(path) for path in self.folder.rglob("*")))


def size(path: Path) -> int:
    """Bytes on the disk; 0 if the file has disappeared meanwhile."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def entries(folder: Path) -> set[str]:
    """Everything in a folder, except the data directory."""
    return {str(path) for path in folder.rglob("*") if "data" not in path.relative_to(folder).parts[:1]}


def run(scale: Scale) -> Outcome:
    """Send one archive after the other; the short form sends every fourth."""
    wrong: list[str] = []
    count = 0
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        settings: dict[str, Any] = {"max_archive_bytes": PERMITTED, "max_archive_members": 1_000, "archive_seconds": 20}
        outside = entries(Path(scratch))
        with RunningServer(data, **settings) as server, Disk(data) as disk:
            largest = 0
            for name, content in corpus(scale.pick(4, 1)):
                count += 1
                largest = max(largest, len(content))
                job = server.wait_job(server.bulk([(name, content)])["id"], 120)
                found = server.http.get(f"/v1/jobs/{job['id']}/items").json()["items"]
                codes = {item["error"]["code"] for item in found if item["error"]}
                if job["state"] != "succeeded" or not codes <= REFUSED:
                    wrong.append(f"{name}: {job['state']} {sorted(codes)}")
                if name.startswith("bomb-") and (job["done"] or codes - {"archive_limit"}):
                    wrong.append(f"{name}: {job['done']} taken, {sorted(codes)}")
            alive = server.upload(picture(seed=14)).json()["status"] == "ready" and server.process.poll() is None
            traceback = "Traceback" in server.output()
        beside = len(entries(Path(scratch)) - outside) + sum(path.exists() for path in STRAYS)
    bound = 2 * PERMITTED + largest
    odd = f"{len(wrong)} not as they should{': ' + '; '.join(wrong[:3]) if wrong else ''}"
    figure = (
        f"{count} archives, {odd}; {beside} files outside of the store, at most {disk.most >> 20} MiB on the disk where"
        f" an archive may have {PERMITTED >> 20}"
    )
    return Outcome(figure, not wrong and not beside and alive and not traceback and disk.most <= bound)


STRAYS = [Path(folder) / "evil.png" for folder in ("/", "/etc", "/tmp", str(Path.home()), str(Path.cwd()))]
