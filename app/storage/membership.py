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

import hashlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.clock import follow_clock
from app.core.errors import Overloaded

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
LEAD_SECONDS = 6.0  # since the last heartbeat that PostgreSQL answered
SESSION_SECONDS = 10.0  # without a heartbeat, after which PostgreSQL ends the session
POLL_SECONDS = 1.0  # between two looks of a server for work that another server may have left it


class Duty(StrEnum):
    """Work that one server of a cluster does. Their names are a part of those of the locks."""

    GARBAGE = "garbage"
    JOBS = "old-jobs"
    DELETIONS = "deletions"
    ARRIVALS = "arrivals"
    WEBHOOKS = "webhooks"
    TASKS = "tasks"
    LONG_TASKS = "long-tasks"
    WATCHES = "watched-folders"


NAME = "sightline {place} {kind} {host} {pid}"  # of a session; PostgreSQL keeps 63 characters of it
NAME_PARTS = re.compile(r"sightline ([0-9a-f]{8}) (\S+) (\S+) (\d+)")
MAX_HOST = 20  # characters of the name of a machine
SET_TIMEOUTS = "SELECT set_config('idle_session_timeout', %s, false), set_config('statement_timeout', %s, false)"
SET_NAME = "SELECT set_config('application_name', %s, false)"
CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
TRY_LOCK = "SELECT pg_try_advisory_lock(%s)"
UNLOCK = "SELECT pg_advisory_unlock(%s)"
# The sessions of all processes, with the advisory locks that each holds. No process writes that it is alive: a session
# that gives no sign of life is ended.
LIST = """
SELECT application_name, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    extract(epoch FROM clock_timestamp() - state_change)::float8,
    ARRAY(SELECT (classid::int8 << 32) | objid::int8 FROM pg_locks l
          WHERE l.pid = a.pid AND locktype = 'advisory' AND objsubid = 1 AND granted)
FROM pg_stat_activity a WHERE datname = current_database() AND application_name LIKE 'sightline %'
ORDER BY application_name
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a cluster, which belongs to it `since` a time. `seconds` since it was last heard of."""

    kind: str
    host: str
    pid: int
    since: str
    seconds: float
    duties: tuple[str, ...]


class Membership:
    """Of a process whose data no other machine uses: it does what only one may do."""

    is_cluster = False
    fault: str | None = None
    servers = 1  # that are alive
    poll_seconds: float | None = None  # between two looks for work of which nobody tells this process

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def leads(self, duty: str) -> bool:
        """Whether this process does the work of `duty` now."""
        return True

    def try_lead(self, name: str) -> bool:
        """Whether this process does the work of this name; asked again and again, it does once nobody else does."""
        return True

    def release(self, name: str) -> None:
        """Let another process do the work of this name."""

    def list_members(self) -> list[Member]:
        return []

    def count_alive(self, kind: str) -> int:
        """How many processes of a kind are alive."""
        return sum(one.kind == kind for one in self.list_members())

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

    def __init__(self, url: str, kind: str, duties: Collection[Duty] = ()) -> None:
        """`duties` are those that this process can do."""
        self._url = url
        self._kind = kind
        self._wanted: set[str] = set(duties)
        self._session: Any = None
        self._numbers: dict[int, Duty] = {}  # the locks of all duties
        self._schema = ""
        self._place = ""  # of the tables in the database, as a part of the names of sessions
        self._held: set[str] = set()
        self._heard_at = float("-inf")
        failing = "the database does not hear of this process"
        self._loop = BackgroundLoop("membership", self._beat, failing, Backoff(1.0, 2.0))

    @property
    def fault(self) -> str | None:  # type: ignore[override]
        return self._loop.fault

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        """Leave the cluster: others take the duties at once."""
        self._loop.close()
        self._disconnect()

    def try_lead(self, name: str) -> bool:
        self._wanted.add(name)
        return self.leads(name)

    def release(self, name: str) -> None:
        self._wanted.discard(name)  # the next heartbeat frees its lock

    def leads(self, duty: str) -> bool:
        return duty in self._held and time.monotonic() - self._heard_at < LEAD_SECONDS

    def list_members(self) -> list[Member]:
        """The processes of the cluster that are alive. Raises Overloaded."""
        session = self._session  # which may be used by two threads
        try:
            rows = session.execute(LIST).fetchall() if session is not None else None
        except self._errors():
            rows = None
        if rows is None:
            raise Overloaded("the database does not answer; try again")
        members = []
        for name, since, seconds, locks in rows:
            if (match := NAME_PARTS.fullmatch(name)) and match[1] == self._place:
                duties = tuple(sorted(self._numbers[lock] for lock in locks if lock in self._numbers))
                members.append(Member(match[2], match[3], int(match[4]), since, seconds, duties))
        return members

    def _beat(self) -> float:
        """Show that this process is alive, and take the duties that nobody has."""
        try:
            session = self._session or self._connect()
            (now,) = session.execute(CLOCK).fetchone()
            follow_clock(now)
            wanted = set(self._wanted)
            for duty in sorted(wanted - self._held):
                if self._call(session, TRY_LOCK, duty):
                    self._held.add(duty)
                    log.info("this server does the work of the cluster now: %s", duty)
            for duty in self._held - wanted:
                self._call(session, UNLOCK, duty)
                self._held.discard(duty)
            self._heard_at = time.monotonic()
            if self._kind == "server":
                self.servers = max(1, self.count_alive("server"))
        except self._errors() as error:
            self._disconnect()
            raise Overloaded(f"the session of this process was lost ({type(error).__name__})") from None
        return HEARTBEAT_SECONDS

    def _connect(self) -> Any:
        import psycopg  # of the extra postgresql

        session = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=5,
            tcp_user_timeout=int(LEAD_SECONDS * 1000),
            keepalives_idle=2,
            keepalives_interval=1,
            keepalives_count=3,
        )
        session.execute(SET_TIMEOUTS, [f"{int(1000 * seconds)}ms" for seconds in (SESSION_SECONDS, LEAD_SECONDS)])
        (schema,) = session.execute("SELECT current_schema()").fetchone() or ("",)
        self._schema = str(schema)
        self._numbers = {number_lock(self._schema, duty): duty for duty in Duty}
        self._place = hashlib.sha256(self._schema.encode()).hexdigest()[:8]
        host = re.sub(r"\s", "-", socket.gethostname())[:MAX_HOST] or "-"
        name = NAME.format(place=self._place, kind=self._kind, host=host, pid=os.getpid())
        session.execute(SET_NAME, (name,))
        self._session = session
        return session

    def _disconnect(self) -> None:
        self._held.clear()
        if self._session is not None:
            self._session.close()
            self._session = None

    def _call(self, session: Any, statement: str, duty: str) -> bool:
        (done,) = session.execute(statement, (number_lock(self._schema, duty),)).fetchone()
        return bool(done)

    @staticmethod
    def _errors() -> type[Exception]:
        import psycopg

        return psycopg.Error


def number_lock(schema: str, duty: str) -> int:
    """The number of the advisory lock of a duty, for the tables of one schema."""
    digest = hashlib.sha256(f"sightline duty {duty} of {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
