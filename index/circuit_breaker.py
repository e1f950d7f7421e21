"""CircuitBreaker: after failures in a row, calls fail at once for a while instead of waiting for a deadline each.

While it is closed, every call goes through; while it is open, none does. After a pause one call goes through as a
trial: its failure doubles the pause, its success closes the breaker. (M. Nygard, Release It!, "Circuit Breaker".)
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
        self._next = 0.0  # when an open breaker lets the next trial through

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once."""
        return self._failures >= FAILURES

    def allow_call(self) -> None:
        """Raise RemoteUnavailable while the breaker is open and no trial is due."""
        with self._lock:
            if not self.is_open:
                return
            now = self._clock()
            if now < self._next:
                raise RemoteUnavailable(f"{self._name} does not answer; the next try is in {self._next - now:.1f} s")
            self._next = now + self._pause  # this call is the trial; the others wait for its outcome

    def record_success(self) -> None:
        with self._lock:
            self._failures = 0
            self._pause = PAUSE_FIRST

    def record_failure(self) -> bool:
        """The call had no answer; returns whether the breaker is open now."""
        with self._lock:
            if self.is_open:
                self._pause = min(2 * self._pause, PAUSE_LAST)
            self._failures += 1
            if self.is_open:
                self._next = self._clock() + self._pause
            return self.is_open
