"""The broker: it has the decode children of one process of the service. `python -m app.decode.broker`

It runs no foreign code, parses no foreign file, loads no decoder, and has none of the service's environment. Its
standard input is a socket to the service: messages are pickles, which only the two of them write. The first is
(workers, limits, modules); then (id, TaskRequest) begins a task, (id, None) cancels it, () ends the broker. It answers
(id, Answer, seconds, error), and (cause,) when a child has died. It ends with the service.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from app.core.errors import Overloaded, SightlineError
from app.decode.child_pool import ChildPool
from app.decode.task_channel import NO_CHILD, Answer


class Broker:
    """Runs the tasks of one service."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._running: dict[int, Future[tuple[Answer, float]]] = {}
        workers, limits, modules = connection.recv()
        self._pool = ChildPool(workers, limits, modules, lambda cause: self._say(cause))

    def run(self) -> None:
        """Until the service ends, or says so."""
        try:
            while message := self._connection.recv():
                number, request = message
                if request is None:
                    if (running := self._running.get(number)) is not None:
                        running.cancel()
                    continue
                future = self._running[number] = self._pool.submit(request)
                future.add_done_callback(lambda done, number=number: self._finish(number, done))  # type: ignore[misc]
        except (EOFError, OSError):
            pass
        self._pool.close()

    def _finish(self, number: int, done: Future[tuple[Answer, float]]) -> None:
        self._running.pop(number, None)
        try:
            answer, seconds = done.result()
        except CancelledError:
            return
        except SightlineError as error:
            self._say(number, None, 0.0, error)
        except Exception as error:
            refusal = Overloaded(NO_CHILD)
            refusal.add_note(repr(error)[:200])
            self._say(number, None, 0.0, refusal)
        else:
            self._say(number, answer, seconds, None)

    def _say(self, *message: Any) -> None:
        with self._lock, suppress(OSError):  # the service has ended
            self._connection.send(message)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the service drains on SIGTERM, and needs its children until then
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(socket.socket(fileno=0).detach())
    Broker(connection).run()
    os._exit(0)  # threads of large tasks may still wait


if __name__ == "__main__":
    main()
