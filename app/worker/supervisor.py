"""Keeps the workers of a server and the processes of its second passes running, and ends them with the server."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial

from app.core.backoff import Backoff
from app.core.process import spawn
from app.core.settings import Settings

log = logging.getLogger(__name__)

STABLE_SECONDS = 30.0  # a worker that lived this long did not fail at its start
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0  # seconds between the end of a worker and the start of the next
POLL_SECONDS = 0.1  # between two looks whether a worker has ended


class WorkerSupervisor:
    """Runs `settings.workers` workers, and a process for each of the second passes `enrichments` (see
    `app.worker.enrich`), and restarts those that end, after longer pauses while they keep failing."""

    def __init__(
        self, settings: Settings, on_exit: Callable[[], None] = lambda: None, enrichments: Sequence[str] = ()
    ) -> None:
        """The supervisor calls `on_exit` whenever a process has ended by itself."""
        self._settings = settings
        self._on_exit = on_exit
        self._starts = {f"worker {n}": self._start_worker for n in range(settings.workers)} | {
            f"the process of {kind}": partial(self._start_enricher, kind) for kind in enrichments
        }

    async def run(self) -> None:
        """Run until cancelled; then ask the workers to finish, and kill those that take longer than
        `settings.drain_seconds`."""
        await asyncio.gather(*(self._keep_running(*one) for one in self._starts.items()))

    async def _keep_running(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        backoff = Backoff(FIRST_PAUSE, LAST_PAUSE)
        while True:
            started = time.monotonic()
            process = start()
            try:
                code = await wait_for_exit(process)
            except asyncio.CancelledError:
                await self._stop_worker(process)
                raise
            self._on_exit()
            if time.monotonic() - started > STABLE_SECONDS:
                backoff.reset()
            pause = backoff.next()
            log.warning("%s ended with code %d; the next one starts in %g s", name, code, pause)
            await asyncio.sleep(pause)

    def _start_worker(self) -> subprocess.Popen[bytes]:
        # Not with asyncio: uvloop would run Python in the child before it becomes a worker. That closes connections of
        # other threads to the database and may wait for ever on a lock that one of them held, while the loop waits.
        return spawn("app", "worker", "--parent", str(os.getpid()), env=self._settings.environment())

    def _start_enricher(self, kind: str) -> subprocess.Popen[bytes]:
        return spawn("app.worker.enrich", kind, str(os.getpid()), env=self._settings.environment())

    async def _stop_worker(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(wait_for_exit(process), self._settings.drain_seconds)
        except TimeoutError:
            log.warning("a worker did not finish in time; killing it (its pictures are not lost)")
            process.kill()
            await wait_for_exit(process)


async def wait_for_exit(process: subprocess.Popen[bytes]) -> int:
    """Wait until the process has ended; returns its exit code."""
    while (code := process.poll()) is None:  # noqa: ASYNC110 (nothing signals it)
        await asyncio.sleep(POLL_SECONDS)
    return code
