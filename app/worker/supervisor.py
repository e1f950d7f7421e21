"""Keeps the worker processes of a server alive, and takes them with it when it goes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable

from app.core.process import child_env, sightline_command
from app.core.settings import Settings

log = logging.getLogger(__name__)

LONG_ENOUGH = 30.0  # a worker that lived this long did not fail at its start
LAST_PAUSE = 30.0
LOOK_SECONDS = 0.1  # between two looks whether a worker has ended


class WorkerSupervisor:
    """Starts `settings.workers` workers and restarts them, more and more rarely while they keep failing."""

    def __init__(self, settings: Settings, ended: Callable[[], None] = lambda: None) -> None:
        """`ended` is called whenever a worker has ended by itself."""
        self._settings = settings
        self._ended = ended

    async def run(self) -> None:
        """Until cancelled; then the workers are asked to finish, and killed when they take too long."""
        await asyncio.gather(*(self._keep(n) for n in range(self._settings.workers)))

    async def _keep(self, n: int) -> None:
        pause = 0.5
        while True:
            began = time.monotonic()
            process = self._start()
            try:
                code = await wait_for_exit(process)
            except asyncio.CancelledError:
                await self._end(process)
                raise
            self._ended()
            pause = 0.5 if time.monotonic() - began > LONG_ENOUGH else min(LAST_PAUSE, pause * 2)
            log.warning("worker %d ended with code %d; the next one starts in %.0f s", n, code, pause)
            await asyncio.sleep(pause)

    def _start(self) -> subprocess.Popen[bytes]:
        # Not by the loop: uvloop would run Python in the child before it becomes a worker. That closes connections of
        # other threads to the database, may wait for ever on a lock that one of these held, and the loop waits for it.
        return subprocess.Popen(
            sightline_command("worker", "--parent", str(os.getpid())),
            stdin=subprocess.DEVNULL,
            env={**child_env(os.environ), **self._settings.environment()},
            start_new_session=True,  # Ctrl-C is for the server, which tells its workers
        )

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(wait_for_exit(process), self._settings.drain_seconds)
        except TimeoutError:
            log.warning("a worker did not finish in time and is killed; its pictures are not lost")
            process.kill()
            await wait_for_exit(process)


async def wait_for_exit(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a process, once it has ended."""
    while (code := process.poll()) is None:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(LOOK_SECONDS)
    return code
