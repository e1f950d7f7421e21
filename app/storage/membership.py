"""Which processes use the same data, and which server does the work that only one of them may do.

A server with SQLite has its data directory for itself (`app.core.locks`), and so it does all of that work. On
PostgreSQL there may be any number of servers. Each keeps one session open, by which it tells every HEARTBEAT_SECONDS
that it is alive, and tries to take the duties that nobody has: one advisory lock of the session for each. When the
process dies, PostgreSQL ends the session and frees its locks, and another server takes them at its next heartbeat.

A frozen or cut-off process does not end its session. PostgreSQL does after SESSION_SECONDS without a heartbeat, and the
process itself stops leading after LEAD_SECONDS, which is less; so no two lead at once by their own clocks. What a
thread has begun before it goes on to its end: every duty is such that a second one at work does no harm.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app import __version__
from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.errors import Overloaded

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
LEAD_SECONDS = 6.0  # since the last heartbeat that PostgreSQL answered
SESSION_SECONDS = 10.0  # without a heartbeat, after which PostgreSQL ends the session
ALIVE_SECONDS = 10.0  # since the last heartbeat, for which a member counts as alive
FORGET_SECONDS = 3600.0  # since the last heartbeat, after which a member is forgotten
LOCKS = 0x5147  # the first half of the names of the advisory locks, which the database may have for other uses, too
POLL_SECONDS = 1.0  # between two looks of a server for work that another server may have left it


class Duty(StrEnum):
    """Work that one server of a cluster does. Their order in LOCK_NUMBERS is a part of the locks' names."""

    GARBAGE = "garbage"
    JOBS = "old-jobs"
    DELETIONS = "deletions"
    ARRIVALS = "arrivals"
    WEBHOOKS = "webhooks"
    TASKS = "tasks"
    LONG_TASKS = "long-tasks"
    WATCHES = "watched-folders"
    MILVUS = "milvus"


LOCK_NUMBERS = {duty: n for n, duty in enumerate(Duty, start=1)}
HEARTBEAT = """
INSERT INTO members (id, kind, host, pid, address, version, duties, started_at, seen_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp())
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), duties = excluded.duties, address = excluded.address
"""
FORGET = "DELETE FROM members WHERE seen_at < clock_timestamp() - make_interval(secs => %s)"
LIST = """
SELECT id, kind, host, pid, address, version, duties,
    to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    extract(epoch FROM clock_timestamp() - seen_at)::float8
FROM members ORDER BY kind, host, started_at
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a cluster. `seconds` since it was last heard of; `duties` of a server."""

    id: str
    kind: str
    host: str
    pid: int
    address: str
    version: str
    duties: tuple[str, ...]
    started_at: str
    seconds: float

    @property
    def is_alive(self) -> bool:
        return self.seconds < ALIVE_SECONDS


class Membership:
    """Of a process whose data no other machine uses: it does what only one may do."""

    is_cluster = False
    fault: str | None = None
    poll_seconds: float | None = None  # between two looks for work of which nobody tells this process

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def leads(self, duty: Duty) -> bool:
        """Whether this process does the work of `duty` now."""
        return True

    def list_members(self) -> list[Member]:
        return []

    def count_alive(self, kind: str) -> int:
        """How many processes of a kind are alive."""
        return sum(one.is_alive and one.kind == kind for one in self.list_members())

    def only_leader(
        self, duty: Duty, step: Callable[[], float | None], otherwise: Callable[[], None] = lambda: None
    ) -> Callable[[], float | None]:
        """The step of a background loop, done only while this process leads; it calls `otherwise` while it does not."""

        def do() -> float | None:
            if not self.leads(duty):
                otherwise()
                return POLL_SECONDS
            pause = step()
            return self.poll_seconds if pause is None else pause

        return do


SINGLE_SERVER = Membership()


class ClusterMembership(Membership):
    """Of a process of a cluster. `kind` is `server`, `worker` or the name of a second pass."""

    is_cluster = True
    poll_seconds = POLL_SECONDS

    def __init__(self, url: str, kind: str, duties: Collection[Duty] = (), id: str | None = None) -> None:
        """`duties` are those that this process can do."""
        self._url = url
        self._duties = tuple(duties)
        self._member = (id or uuid.uuid4().hex, kind, socket.gethostname(), os.getpid())
        self.address = ""
        self._session: Any = None
        self._held: set[Duty] = set()
        self._heard_at = float("-inf")
        self._loop = BackgroundLoop(
            "membership", self._beat, "the database does not hear of this process", Backoff(1.0, 2.0)
        )

    @property
    def fault(self) -> str | None:  # type: ignore[override]
        return self._loop.fault

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        """Leave the cluster: others take the duties at once."""
        self._loop.close()
        if self._session is not None:
            try:
                self._session.execute("DELETE FROM members WHERE id = %s", self._member[:1])
            except self._errors():
                log.info("the database did not hear that this process leaves")
        self._disconnect()

    def leads(self, duty: Duty) -> bool:
        return duty in self._held and time.monotonic() - self._heard_at < LEAD_SECONDS

    def list_members(self) -> list[Member]:
        """The processes of the cluster that were heard of within an hour. Raises Overloaded."""
        import psycopg

        try:
            with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as session:
                rows = session.execute(LIST).fetchall()
        except psycopg.Error:
            raise Overloaded("the database does not answer; try again") from None
        return [
            Member(id, kind, host, pid, address, version, tuple(duties.split()), started_at, seconds)
            for id, kind, host, pid, address, version, duties, started_at, seconds in rows
        ]

    def _beat(self) -> float:
        """Tell that this process is alive, and take the duties that nobody has."""
        try:
            session = self._session or self._connect()
            session.execute(HEARTBEAT, (*self._member, self.address, __version__, " ".join(sorted(self._held))))
            for duty in self._duties:
                if duty not in self._held and self._try_lock(session, duty):
                    self._held.add(duty)
                    log.info("this server does the work of the cluster now: %s", duty)
            session.execute(FORGET, (FORGET_SECONDS,))
            self._heard_at = time.monotonic()
        except self._errors() as error:
            self._disconnect()
            raise Overloaded(f"the session of this process was lost ({type(error).__name__})") from None
        return HEARTBEAT_SECONDS

    def _connect(self) -> Any:
        import psycopg

        session = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=5,
            application_name="sightline membership",
            tcp_user_timeout=int(LEAD_SECONDS * 1000),
            keepalives_idle=2,
            keepalives_interval=1,
            keepalives_count=3,
        )
        session.execute(f"SET idle_session_timeout = {int(SESSION_SECONDS * 1000)}")
        session.execute(f"SET statement_timeout = {int(LEAD_SECONDS * 1000)}")
        self._session = session
        return session

    def _disconnect(self) -> None:
        self._held.clear()
        if self._session is not None:
            self._session.close()
            self._session = None

    @staticmethod
    def _try_lock(session: Any, duty: Duty) -> bool:
        (taken,) = session.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, LOCK_NUMBERS[duty])).fetchone()
        return bool(taken)

    @staticmethod
    def _errors() -> type[Exception]:
        import psycopg

        return psycopg.Error
