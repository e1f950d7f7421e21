"""An upload is on the disk before its acknowledgement: file, name, folder, row, in this order.

strace watches a server from its first call on, while four clients upload. For every 2xx the trace must show, before the
server writes the answer: fsync of the file, then its link and rename, then fsync of its folder (and of each folder
above it since that folder got its last name), then frames written to the WAL, then fdatasync of the WAL.

Failing: for one answer, one of these calls is missing, did not succeed, or came later; the trace has fewer answers than
the clients got.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.reliability import durable, traced
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PROMISE = Promise(2, "order", "Acknowledged also means fsynced: the file, its folder, and the row.")
CLIENTS = 4


def run(scale: Scale) -> Outcome:
    """1,000 uploads under strace."""
    uploads = scale.pick(100, 1000)
    with tempfile.TemporaryDirectory() as folder:
        data, trace = Path(folder).resolve() / "data", Path(folder) / "trace"
        under = (traced.require(), "-f", "-D", "--seccomp-bpf", "-o", str(trace), *durable.OPTIONS)
        with RunningServer(data, workers=0, under=under) as server, ThreadPoolExecutor(CLIENTS) as clients:

            def send(n: int) -> int:
                return server.upload(picture(seed=n, size=(43, 31)), wait=0).status_code

            accepted = list(clients.map(send, range(uploads))).count(202)
        log = durable.Log(str(data))
        durable.read_trace(trace, log)
    figure = f"{uploads - len(log.wrong)} of {uploads} uploads in order"
    if log.wrong:
        figure += f"; {log.wrong[0]}"
    return Outcome(figure, accepted == log.answered == uploads and not log.wrong)
