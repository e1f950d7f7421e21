"""SIGTERM ends a server within 20 s, with exit code 0, whatever it is doing.

Each time four clients upload, a bulk is imported, one client has sent half of its body and then stalls, and another has
sent nothing; then comes SIGTERM. The settings are the defaults.

Failing: an exit code other than 0; more than 20 s; an answer other than 2xx and 503; a process that remains; after the
last start, an acknowledged picture or a picture of a job that is missing.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2 as httpx

from tests.reliability.client import connect, digest
from tests.reliability.ledger import Ledger
from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.proofs.kills import bulk, wait_until_settled
from tests.support.processes import descendants, is_running
from tests.support.servers import RunningServer, wait_until

PROMISE = Promise(
    19, "sigterm", "SIGTERM ends it within 20 s with code 0; what was accepted goes on at the next start."
)
BOUND = 20.0
CLIENTS = 4
HEAD = (
    b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Content-Length: 1000\r\n\r\n--x\r\n"
)


def run(scale: Scale) -> Outcome:
    """50 times, five servers at once."""
    lanes, times = scale.pick(2, 5), scale.pick(1, 10)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(lanes) as pool:
        ran = list(pool.map(lambda n: lane(Path(name) / str(n), times), range(lanes)))
    seconds = [each for took, _ in ran for each in took]
    faults = [fault for _, found in ran for fault in found]
    good = sum(each <= BOUND for each in seconds)
    figure = f"{good} of {lanes * times} with code 0, at most {max(seconds):.1f} s"
    if faults:
        figure += f"; {faults[0]}"
    return Outcome(figure, not faults and good == lanes * times)


def lane(folder: Path, times: int) -> tuple[list[float], list[str]]:
    """Stop a server so many times; returns the times and the faults."""
    folder.mkdir()
    with Ledger(folder / "ledger") as ledger:
        seconds = [stop_under_load(folder / "data", ledger) for _ in range(times)]
        wait_until_settled(folder / "data", ledger)
    return seconds, ledger.faults


def stop_under_load(data: Path, ledger: Ledger) -> float:
    """Seconds from SIGTERM to the end of a busy server."""
    with ExitStack() as stack:
        server = RunningServer(data)
        stack.callback(server.process.kill)  # nothing, where it has ended as it should
        return load_and_stop(server, ledger)


def load_and_stop(server: RunningServer, ledger: Ledger) -> float:
    """Load the server, stop it, and check how it ends."""
    threads = [threading.Thread(target=upload, args=(server.url, ledger)) for _ in range(CLIENTS)]
    with connect(server.url) as hanging, connect(server.url):
        hanging.sendall(HEAD)
        bulk(server, ledger, archive=False)
        known = len(ledger.there)
        for thread in threads:
            thread.start()
        wait_until(lambda: len(ledger.there) > known + CLIENTS, 180, server.output)
        below = descendants(server.process.pid)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(120)
        took = time.monotonic() - began
    for thread in threads:
        thread.join(60)
    server.stop()
    if code != 0:
        ledger.faults.append(f"code {code}")
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not any(is_running(pid) for pid in below), 10)
    ledger.faults += [f"process {pid} is left" for pid in below if is_running(pid)]
    return took


def upload(url: str, ledger: Ledger) -> None:
    """Upload until the server no longer answers."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http, contextlib.suppress(httpx.TransportError):
        while True:
            content = ledger.new()
            response = http.post("/v1/images", files={"file": ("one.png", content)})
            if response.status_code in (200, 202):
                ledger.stored(digest(content))
            elif response.status_code != 503:
                ledger.faults.append(f"answered {response.status_code}")
                return
