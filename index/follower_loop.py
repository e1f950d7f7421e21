"""Driver: one thread that steps many followers, where a thread each would be thousands.

It looks whether the database moved (one `changed` for all), asks `news` which logs have grown, and steps just those;
besides, whoever was notified, and whoever asked to be stepped again after some time. So what an idle index costs
is its memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from index.follower import POLL_GROWTH, Follower

K = TypeVar("K", bound=Hashable)

log = logging.getLogger(__name__)

FAULT_SECONDS = 0.2
BATCHES_PER_STEP = 4
"""So much of one log at a time, then it is the others' turn."""
NOW = 0.0


class FollowerLoop(Generic[K]):
    """Steps the followers that are attached under their keys.

    `changed()` returns a number that differs once a log may have grown; `news()` returns the keys of those that have
    since its last call. Both are called on the driver's thread only. `poll` and `poll_idle` are seconds between two
    looks, just after a change and when long idle.
    """

    def __init__(
        self,
        changed: Callable[[], int],
        news: Callable[[], Iterable[K]],
        *,
        poll: float = 0.005,
        poll_idle: float = 0.05,
    ) -> None:
        self._changed = changed
        self._news = news
        self._poll, self._poll_idle = poll, poll_idle
        self._lock = threading.Condition()  # guards what follows
        self._followers: dict[K, Follower] = {}
        self._due: dict[K, float] = {}
        self._stepping: K | None = None
        self._closing = False
        self._version: int | None = None
        self._thread = threading.Thread(target=self._run, name="driver", daemon=True)

    def start(self) -> None:
        """Begin. Once only."""
        self._thread.start()

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def attach(self, key: K, follower: Follower) -> None:
        """From now on `follower` is stepped here, the first time at once: the log may have grown meanwhile."""
        with self._lock:
            self._followers[key] = follower
            self._due[key] = NOW
            self._lock.notify_all()

    def detach(self, key: K) -> None:
        """When this returns the follower is not stepped any more. An unknown key is ignored."""
        with self._lock:
            self._followers.pop(key, None)
            self._due.pop(key, None)
            self._lock.wait_for(lambda: self._stepping != key)

    def wake(self, key: K) -> None:
        """Step this one now."""
        with self._lock:
            if key in self._followers:
                self._due[key] = NOW
                self._lock.notify_all()

    def close(self) -> None:
        """Stop and join the thread. The followers stay as they are."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        delay = self._poll
        while not self._closing:
            try:
                moved = self._look()
            except Exception:  # the database is away, say; whoever is due is stepped all the same
                log.warning("which logs have grown is not known; trying again", exc_info=True)
                self._pause(FAULT_SECONDS)
                moved = False
            delay = self._poll if moved else min(delay * POLL_GROWTH, self._poll_idle)
            for key in self._ripe():
                self._step(key)
            self._pause(delay)

    def _look(self) -> bool:
        """Whether the database moved; the followers of logs that have grown are due then."""
        version = self._changed()
        if version == self._version:
            return False
        grown = list(self._news())
        self._version = version
        with self._lock:
            self._due.update((key, NOW) for key in grown if key in self._followers)
        return True

    def _ripe(self) -> list[K]:
        now = time.monotonic()
        with self._lock:
            return [key for key, at in self._due.items() if at <= now]

    def _step(self, key: K) -> None:
        with self._lock:
            follower = self._followers.get(key)
            if follower is None or self._closing:
                return
            self._due.pop(key, None)  # before the step: a wake in the middle of it counts
            self._stepping = key
        try:
            again = follower.step(BATCHES_PER_STEP)
        finally:
            with self._lock:
                self._stepping = None
                self._lock.notify_all()
        if again is not None:
            with self._lock:
                if key in self._followers:
                    self._due.setdefault(key, time.monotonic() + again if again else NOW)

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._closing or NOW in self._due.values(), seconds)
