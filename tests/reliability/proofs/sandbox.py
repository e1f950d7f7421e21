"""A decoder that a picture has taken over reaches nothing, and its picture fails alone.

The proof gives a worker pictures of which every second one tells its decoder to do what an intruder would: read the
database, change or remove it, open a socket to a server or a local one, run a program, become one, start a process,
trace, read or kill the fork server, read the environment that the process began with. No decoder of the product obeys:
a pool of the proof's own runs the functions of `tests/support/intruders.py` in place of `decode_picture`, in the same
children.

Failing: an attempt succeeds; the database changes; a server is connected to; the worker's environment is found in a
child; an attempt is not counted; a picture of an intruder does not fail as `image_corrupt`, or a picture between two
of them is not ready. Impossible where the kernel has no seccomp filters.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.core.metrics import ProcessMetrics
from app.core.types import Image, Status
from app.decode.limits import ArchiveLimits, ChildLimits, PictureLimits
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.decode.sandbox import find_protections
from app.encoder.dummy import DummyEncoder
from app.storage.address import open_database
from app.storage.blobs import BlobStore
from app.storage.library import Library
from app.worker.embed import EmbeddingWorker, WorkerOptions
from app.worker.importer import Importer
from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.support import intruders
from tests.support.makers import add, count_waiting
from tests.support.pictures import picture
from tests.support.servers import wait_until

PROMISE = Promise(25, "sandbox", "A decoder that a file has taken over reaches no file, network, program or secret.")
SECRET = "a-secret-of-the-worker"
MARK = b"TAKEN OVER TO "  # at the end of a picture, with what its decoder is to try


class TakenOverPool(DecodePool):
    """Its children obey the pictures that are marked. Each intrusion is aimed at `targets`."""

    def __init__(self, metrics: ProcessMetrics, targets: dict[str, tuple[Any, ...]]) -> None:
        limits = ChildLimits(seconds=10, cpu_seconds=5)
        super().__init__(2, limits, metrics=metrics, modules=["tests.support.intruders"])
        self._targets = targets

    def submit(self, function: Callable[..., Any], *args: Any, seconds: float | None = None) -> Future[Any]:
        _, _, wanted = args[0].read_bytes().partition(MARK) if function is decode_picture else ("", "", b"")
        if wanted:
            name = wanted.decode().rpartition(" ")[0]
            return super().submit(intruders.INTRUSIONS[name], *self._targets.get(name, ()), seconds=seconds)
        return super().submit(function, *args, seconds=seconds)


def run(scale: Scale) -> Outcome:
    """Each intrusion twice, or fifty times."""
    if not find_protections().seccomp:
        raise Impossible("this kernel has no seccomp filters")
    times = scale.pick(2, 50)
    os.environ["SIGHTLINE_INDEX_TOKEN"] = SECRET
    try:
        with tempfile.TemporaryDirectory() as folder, listening(Path(folder)) as (port, connections):
            found = try_intrusions(Path(folder), port, times)
            found["connections"] = len(connections)
    finally:
        del os.environ["SIGHTLINE_INDEX_TOKEN"]
    tried = times * len(intruders.INTRUSIONS)
    figure = (
        f"{tried} attempts of {len(intruders.INTRUSIONS)} kinds: {found['failed']} pictures failed alone,"
        f" {found['counted']} counted, {found['ready']} of {tried} neighbours ready;"
        f" {found['connections']} connections, {found['leaks']} leaks, {found['changed']} changes of files;"
        f" {find_protections().describe()}"
    )
    whole = found["failed"] == found["counted"] == found["ready"] == tried
    return Outcome(figure, whole and not (found["connections"] or found["leaks"] or found["changed"]))


def try_intrusions(folder: Path, port: int, times: int) -> dict[str, int]:
    """Give a worker the marked pictures and as many good ones; returns what came of it."""
    database = open_database(folder / "sightline.db")
    library = Library(database, BlobStore(folder), PictureLimits(), max_queue=100_000)
    treasure = folder / "sightline.db"
    targets: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(("read the database", "read the database by number"), (str(treasure),)),
        **dict.fromkeys(("write a file", "remove a file"), (str(folder / "whole"),)),
        "open a socket": (port,),
        "open a local socket": (str(folder / "local"),),
    }
    whole = folder / "whole"
    whole.write_text("whole")
    metrics = ProcessMetrics("worker")
    for n in range(times):
        for m, name in enumerate(intruders.INTRUSIONS):
            number = n * len(intruders.INTRUSIONS) + m
            add(library, picture("red", number) + MARK + f"{name} {number}".encode(), id=f"bad-{number}")
            add(library, picture("blue", number), id=f"good-{number}")
    try:
        with TakenOverPool(metrics, targets) as pool:
            images = embed_all(library, pool, folder)
            leaks = sum(SECRET in repr(pool.submit(intruders.read_environment).result()) for _ in range(4))
    finally:
        library.close()
    bad = [image for image in images if image.id.startswith("bad-")]
    counted = metrics.registry.get_sample_value(
        "sightline_decode_deaths_total", {"process": "worker", "cause": "sandbox"}
    )
    return {
        "failed": sum(image.error is not None and image.error.code == "image_corrupt" for image in bad),
        "counted": round(counted or 0),
        "ready": sum(image.status is Status.READY for image in images if image.id.startswith("good-")),
        "leaks": leaks,
        "changed": int(not whole.exists() or whole.read_text() != "whole" or not treasure.exists()),
    }


def embed_all(library: Library, pool: DecodePool, folder: Path) -> list[Image]:
    """Run a worker until no picture waits."""
    importer = Importer(library, pool, ArchiveLimits(), 60.0, 60.0, 3)
    options = WorkerOptions(batch_size=4, lease_seconds=60.0, max_attempts=3, thumbnail_size=32)
    worker = EmbeddingWorker(library, DummyEncoder(), pool, importer, folder / "workers", options)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: count_waiting(library.database) == 0, 300)
    finally:
        worker.stop()
        thread.join(60)
    return library.list_images("default", 100_000, None)


@contextmanager
def listening(folder: Path) -> Iterator[tuple[int, list[str]]]:
    """A server on the loopback and one on a local socket: the port, and a list that names each connection."""
    connections: list[str] = []

    def accept(server: socket.socket, name: str) -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return
            connections.append(name)

    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(folder / "local"))
        local.listen()
        threads = [
            threading.Thread(target=accept, args=(one, name)) for one, name in ((server, "network"), (local, "local"))
        ]
        for thread in threads:
            thread.start()
        try:
            yield server.getsockname()[1], connections
        finally:
            for one in (server, local):
                one.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(10)
