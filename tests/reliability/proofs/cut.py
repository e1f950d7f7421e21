"""A bucket that is cut off, slow, failing or silent loses nothing, doubles nothing and fails no picture.

Clients upload to a cluster of two servers and two workers, which reach their bucket through a proxy. In turns the proxy
refuses connections, delays each piece, answers 503, and lets requests through but loses their answers.

Failing: a picture that was acknowledged is lost, doubled, altered or marked `failed`; an answer that is neither success
nor a refusal that a client may repeat; a picture or job that has not ended when its lease and 10 s have passed since
the bucket is back, beside the time that the workers need for what waits.
"""

from __future__ import annotations

import asyncio
import time

from tests.index.proxy import Proxy
from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.reliability.uploader import Uploader, count_faults, settle
from tests.support.cluster import Cluster, StoreProcess, has_postgresql

PROMISE = Promise(
    38, "cut", "A bucket that is cut off, slow or failing loses, doubles and fails no acknowledged picture."
)
MODES = ("reset", "delay", "unavailable", "unheard")
CUT_SECONDS = 2.0
REFUSAL = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class StoreProxy(Proxy):
    """Also with the mode `unavailable`: each connection gets 503."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode != "unavailable":
            await super()._serve(reader, writer)
            return
        await reader.read(1 << 16)
        writer.write(REFUSAL)
        await writer.drain()
        writer.close()

    def switch(self, mode: str) -> None:
        """Change the mode, also of what is connected."""
        self.mode = "reset"
        time.sleep(0.1)
        self.mode = mode


def run(scale: Scale) -> Outcome:
    """Each kind of cut ten times."""
    if not has_postgresql():
        raise Impossible("PostgreSQL is not installed")
    rounds = scale.pick(1, 10)
    store = StoreProcess()
    with StoreProxy(store.port) as proxy, Cluster(2, 2, store, f"http://127.0.0.1:{proxy.port}") as cluster:
        proxy.delay = 0.3
        uploaders = [Uploader(cluster, cluster.folder, n) for n in range(2)]
        for mode in MODES * rounds:
            time.sleep(CUT_SECONDS / 2)
            proxy.switch(mode)
            time.sleep(CUT_SECONDS)
            proxy.switch("pass")
        for uploader in uploaders:
            uploader.end()
        stored, faults = settle(cluster, uploaders)
        failed = cluster.servers[0].http.get("/v1/stats").json()["images"]["failed"]
        refused = sum(uploader.refused for uploader in uploaders)
    figure = f"{len(MODES) * rounds} cuts, {refused} uploads refused, {stored} pictures, {failed} failed"
    return Outcome(f"{figure}: {count_faults(faults)}", not faults and not failed and refused > 0)
