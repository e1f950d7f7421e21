"""A supervised thread: it repeats one step, survives its errors, and keeps the last one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from app.core.backoff import Backoff
from app.core.errors import SightlineError, describe_error

log = logging.getLogger(__name__)


class BackgroundLoop:
    """A thread that calls `step` until it is closed.

    `step()` returns the seconds to wait before the next call; None waits for `wake`. If it raises, the error is logged
    and kept in `fault`, behind the text `failing` ("old jobs are not removed"), until the step succeeds; the next call
    follows after a pause of `backoff`. A step that takes long must look at `is_closing` and return early.
    """

    def __init__(
        self, name: str, step: Callable[[], float | None], failing: str, backoff: Backoff | None = None
    ) -> None:
        self._step = step
        self._failing = failing
        self._backoff = backoff or Backoff(5.0, 300.0)
        self._closing = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.fault: str | None = None

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Call `step` now, or once more if it is running."""
        self._woken.set()

    def close(self) -> None:
        """End after the running step. May be called twice, and without `start`."""
        self._closing.set()
        self._woken.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def is_closing(self) -> bool:
        return self._closing.is_set()

    def pause(self, seconds: float) -> bool:
        """Wait within a step; True if the loop was closed meanwhile."""
        return self._closing.wait(seconds)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._woken.clear()
            try:
                pause = self._step()
            except Exception as error:  # no error may end this thread
                self.fault = f"{self._failing}: {describe_error(error)}"
                log.warning("%s", self.fault, exc_info=not isinstance(error, SightlineError))
                self._closing.wait(self._backoff.next())
                continue
            self.fault = None
            self._backoff.reset()
            if not self._closing.is_set():  # close() may have come before clear(), which undid its set()
                self._woken.wait(pause)
