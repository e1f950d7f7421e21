"""A client's own book, fsynced before and after each request: what was sent, acknowledged, deleted, or is unsure."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.reliability.client import digest, pictures
from tests.support.pictures import picture
from tests.support.servers import RunningServer

NUMBERS = itertools.count()


class Ledger:
    """The book of one data directory. Digests stand for pictures, of which no two are alike."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (held until exit)
        self.sent: dict[str, bytes] = {}
        self.there: set[str] = set()  # acknowledged, and not deleted
        self.gone: set[str] = set()  # deleted with an answer, or found absent after a lost one
        self.unsure: set[str] = set()  # of these an answer was lost
        self.jobs: dict[str, set[str]] = {}
        self.faults: list[str] = []
        self.given_up = 0  # pictures that had to be sent again

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def new(self, size: tuple[int, int] = (37, 29)) -> bytes:
        """A picture like no other, about to be sent."""
        content = picture(seed=next(NUMBERS), size=size)
        sha256 = digest(content)
        self.sent[sha256] = content
        self.unsure.add(sha256)
        self._note("sent", sha256)
        return content

    def stored(self, sha256: str) -> None:
        """It was acknowledged."""
        self.unsure.discard(sha256)
        self.there.add(sha256)
        self._note("stored", sha256)

    def deleting(self, sha256: str) -> None:
        """Its delete is about to be sent."""
        self.there.discard(sha256)
        self.unsure.add(sha256)
        self._note("deleting", sha256)

    def deleted(self, sha256: str) -> None:
        """Its delete was acknowledged."""
        self.unsure.discard(sha256)
        self.gone.add(sha256)
        self._note("deleted", sha256)

    def accepted(self, job: str, contents: list[bytes]) -> None:
        """A bulk was acknowledged."""
        self.jobs[job] = {digest(content) for content in contents}
        self._note("accepted", job)

    def compare(self, server: RunningServer, settled: bool = False) -> int:
        """Hold what is there against the book, and decide what was unsure; returns how many pictures are there.

        `settled`: the jobs have ended, so that their pictures must be there, too. Every byte is compared then.
        """
        listed = {}
        for image in pictures(server):
            if image["sha256"] in listed:
                self.faults.append(f"doubled {image['sha256'][:8]}")
            listed[image["sha256"]] = image
        waiting: set[str] = set().union(*self.jobs.values()) if self.jobs else set()
        if settled:
            self.there |= waiting
            self.unsure -= waiting
        unsure = self.unsure - waiting
        self.faults += [f"lost {sha256[:8]}" for sha256 in self.there - set(listed)]
        self.faults += [f"back again {sha256[:8]}" for sha256 in self.gone & set(listed)]
        self.faults += [f"never sent {sha256[:8]}" for sha256 in set(listed) - set(self.sent)]
        for sha256 in set(listed) & set(self.sent) if settled else set(listed) & unsure:
            content = server.http.get(f"/v1/images/{listed[sha256]['id']}/file").content
            if content != self.sent[sha256]:
                self.faults.append(f"altered {sha256[:8]}")
        self.there |= unsure & set(listed)
        self.gone |= unsure - set(listed)
        self.unsure -= unsure
        return len(listed)

    def summarise(self) -> str:
        """What was found, in words."""
        kinds = ("lost", "doubled", "altered", "back again", "never sent")
        return ", ".join(f"{sum(fault.startswith(kind) for fault in self.faults)} {kind}" for kind in kinds[:3])

    def _note(self, what: str, which: str) -> None:
        self._file.write(json.dumps([what, which]) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
