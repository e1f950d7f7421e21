"""A log for followers to follow, in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from index.errors import LogReplaced
from index.follower import Follower
from index.types import Embeddings, LogEntry, Op

Open = Callable[..., Follower]
"""What the fixture `follow` is: follows the log with these options until the end of the test."""


class Log:
    """A log in memory, with the questions that a database answers; it can be made to fail."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.version = 0
        self.reads = 0
        self.looks = 0
        self.fault: BaseException | None = None
        self.mark = ""
        self.marks: list[str] = []

    def append(self, *entries: LogEntry) -> int:
        self.entries.extend(entries)
        self.marks.append(f"{self.last_seq()}:{secrets.randbits(62)}")
        self.version += 1
        return self.last_seq()

    def add(self, id: int, vector: Embeddings | None) -> int:
        return self.append(LogEntry(self.last_seq() + 1, Op.ADD, id, vector))

    def remove(self, id: int) -> int:
        return self.append(LogEntry(self.last_seq() + 1, Op.REMOVE, id))

    def lose(self, seq: int) -> None:
        """Lose what came after this entry, as a database that was restored."""
        self.entries = [entry for entry in self.entries if entry.seq <= seq]
        self.marks = [mark for mark in self.marks if int(mark.partition(":")[0]) <= seq]

    def has_mark(self, mark: str) -> bool:
        return not mark or mark in self.marks

    def last_seq(self) -> int:
        return self.entries[-1].seq if self.entries else 0

    def data_version(self) -> int:
        self.looks += 1
        return self.version

    def read(self, after_seq: int, limit: int, /) -> Sequence[LogEntry]:
        self.reads += 1
        if self.fault:
            raise self.fault
        if not self.has_mark(self.mark):
            raise LogReplaced(self.mark)
        self.mark = self.marks[-1] if self.marks else ""
        return [entry for entry in self.entries if entry.seq > after_seq][:limit]
