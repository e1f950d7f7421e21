"""A TCP proxy that does what networks do: it delays, falls silent, resets and refuses."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Between a client and 127.0.0.1:`port`, in a thread of its own. `mode` may be changed at any time.

    pass: bytes go through. delay: each piece `delay` seconds late. silence: connections are taken and bytes
    are swallowed. unheard: what is asked goes through, the answers are swallowed. reset: every connection is
    cut, with an RST where the system gives one, and so is every new one.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._started = threading.Event()
        self._mode = "pass"
        self.delay = 0.0
        self.connections = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.mode = "reset"
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = mode
        if mode == "reset":
            self._loop.call_soon_threadsafe(self._cut)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()

    async def _stop(self) -> None:
        self._server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._mode == "reset":
            writer.transport.abort()
            return
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        mine = {writer, other_writer}
        self._writers |= mine
        try:
            await asyncio.gather(
                self._pump(reader, other_writer, ("silence",)), self._pump(other_reader, writer, ("silence", "unheard"))
            )
        finally:
            self._writers -= mine
            for end in mine:
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallowing: tuple[str, ...]
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if self._mode in swallowing:
                    continue
                if self._mode == "delay":
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        writer.close()
