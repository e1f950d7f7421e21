"""Breaker: after failures in a row, calls fail at once for a while instead of waiting for a deadline each.

Closed, every call goes through. Open, none does. When the pause is over one call goes through to try; its
failure doubles the pause, its success closes the breaker. (M. Nygard, Release It!, "Circuit Breaker".)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from index.errors import RemoteUnavailable

FAILURES = 2
PAUSE_FIRST, PAUSE_LAST = 0.5, 10.0


class CircuitBreaker:
    """Counts the failures of calls to `name`. Any thread may call any method."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = PAUSE_FIRST
        self._next = 0.0  # when the next call may try, if open

    @property
    def open(self) -> bool:
        """Whether calls fail at once."""
        return self._failures >= FAILURES

    def enter(self) -> None:
        """Ask to make a call. Raises EngineUnavailable while the breaker is open and it is no time to try."""
        with self._lock:
            if not self.open:
                return
            now = self._clock()
            if now < self._next:
                raise RemoteUnavailable(f"{self._name} does not answer; it is tried again in {self._next - now:.1f} s")
            self._next = now + self._pause  # this caller tries, the others wait for what becomes of it

    def succeeded(self) -> None:
        """The call was answered."""
        with self._lock:
            self._failures = 0
            self._pause = PAUSE_FIRST

    def failed(self) -> bool:
        """The call was not answered; whether the breaker is open now."""
        with self._lock:
            if self.open:
                self._pause = min(2 * self._pause, PAUSE_LAST)
            self._failures += 1
            if self.open:
                self._next = self._clock() + self._pause
            return self.open
