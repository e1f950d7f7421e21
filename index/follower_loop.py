"""FollowerLoop: one thread that steps many followers, where a thread each would be thousands.

It looks whether the database changed (one question for all logs), asks which logs have grown, and steps just their
followers; besides, those that somebody notified, and those that asked for another step after some time. So an idle
index costs only its memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from index.follower import Follower

K = TypeVar("K", bound=Hashable)

log = logging.getLogger(__name__)

POLL_GROWTH = 1.05
"""Each look in vain lengthens the pause by so much: it stays near a twentieth of the time since the last change."""
FAULT_SECONDS = 0.2
NOW = 0.0


class FollowerLoop(Generic[K]):
    """Steps the followers that are attached under their keys.

    `data_version()` returns a number that differs once a log may have grown; `find_grown()` returns the keys of those
    that have since its last call, or None where any may have changed. Only the loop's thread calls them. `poll` and
    `poll_idle` are seconds between two looks, just after a change and when long idle.
    """

    poll, poll_idle = 0.005, 0.05

    def __init__(self, data_version: Callable[[], int], find_grown: Callable[[], Iterable[K] | None]) -> None:
        self._data_version = data_version
        self._find_grown = find_grown
        self._lock = threading.Condition()  # guards what follows
        self._followers: dict[K, Follower] = {}
        self._due: dict[K, float] = {}
        self._stepping: K | None = None
        self._closing = False
        self._version: int | None = None
        self._thread = threading.Thread(target=self._run, name="follower-loop", daemon=True)

    def start(self) -> None:
        """Begin. Once only."""
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def attach(self, key: K, follower: Follower) -> None:
        """Step `follower` from now on, the first time at once: the log may have grown meanwhile."""
        follower.on_notify = lambda: self._wake(key)
        with self._lock:
            self._followers[key] = follower
            self._due[key] = NOW
            self._lock.notify_all()

    def detach(self, key: K) -> None:
        """When this returns the loop steps the follower no more. An unknown key is ignored."""
        with self._lock:
            self._followers.pop(key, None)
            self._due.pop(key, None)
            self._lock.wait_for(lambda: self._stepping != key)

    def close(self) -> None:
        """Stop and join the thread. The followers stay as they are."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        delay = self.poll
        while not self._closing:
            try:
                changed = self._check_database()
            except Exception:  # followers that are due are stepped all the same
                log.warning("the database does not say which logs have grown; trying again", exc_info=True)
                self._pause(FAULT_SECONDS)
                changed = False
            delay = self.poll if changed else min(delay * POLL_GROWTH, self.poll_idle)
            for key in self._find_due():
                self._step(key)
            self._pause(delay)

    def _check_database(self) -> bool:
        """Whether the database changed; the followers of logs that have grown are due then."""
        version = self._data_version()
        if version == self._version:
            return False
        found = self._find_grown()
        grown = None if found is None else list(found)
        self._version = version
        with self._lock:
            if grown is None:
                grown = list(self._followers)
            self._due.update((key, NOW) for key in grown if key in self._followers)
        return True

    def _find_due(self) -> list[K]:
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
            again = follower.step()
        finally:
            with self._lock:
                self._stepping = None
                self._lock.notify_all()
        if again is not None:
            with self._lock:
                if key in self._followers:
                    self._due.setdefault(key, time.monotonic() + again if again else NOW)

    def _wake(self, key: K) -> None:
        """Step this one now."""
        with self._lock:
            if key in self._followers:
                self._due[key] = NOW
                self._lock.notify_all()

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._closing or NOW in self._due.values(), seconds)
