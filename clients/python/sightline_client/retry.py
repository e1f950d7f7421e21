"""When a call is tried again, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

BUSY = frozenset({429, 502, 503, 504})
REFUSED = frozenset({429, 503})  # nothing was done; behind 502 and 504 of a proxy the server may have done it
FIRST_PAUSE, LAST_PAUSE = 0.25, 10.0


@dataclass(slots=True)
class Patience:
    """How long a call goes on trying: `seconds` from its first failure on, with pauses that double, or as long as the
    server says. `said` is the last failure that somebody was shown."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    began: float | None = field(default=None, init=False)
    pause: float = field(default=FIRST_PAUSE, init=False)
    said: str = field(default="", init=False)

    def next_pause(self, asked: float = 0.0) -> float | None:
        """How long to wait now; None when the patience is over. `asked` is what the server wants."""
        if self.began is None:
            self.began = self.clock()
        pause = max(asked, self.pause * random.uniform(0.5, 1.0))
        self.pause = min(self.pause * 2, LAST_PAUSE)
        left = self.began + self.seconds - self.clock()
        return pause if pause <= left else None


def read_retry_after(text: str | None) -> float:
    """The seconds that a Retry-After header asks for, a number or a date; 0 if it says nothing."""
    text = (text or "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
