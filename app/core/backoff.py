"""Back-off: pauses between tries, longer after each failure."""

from __future__ import annotations


class Backoff:
    """Pauses in seconds that double from `first` up to `last`."""

    def __init__(self, first: float, last: float) -> None:
        self._first, self._last = first, last
        self._pause = first

    def next(self) -> float:
        """The pause after one more failure."""
        pause = self._pause
        self._pause = min(self._pause * 2, self._last)
        return pause

    def reset(self) -> None:
        """A try succeeded: the next pause is `first` again."""
        self._pause = self._first
