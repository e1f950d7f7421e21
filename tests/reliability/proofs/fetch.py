"""Fetching pictures by URL never reaches an inner network.

The fetcher gets 60 addresses that are not public (loopback, private, link-local, metadata, IPv6 in every notation),
100 names that resolve to another address the second time, and 20 chains of redirects from a permitted address to
forbidden ones. A recorder takes the place of the network. A real server is asked over HTTP with its default settings,
under which it must not fetch.

Failing: one connection to a forbidden address; a server that fetches although no setting allows it.
"""

from __future__ import annotations

import itertools
import tempfile
from functools import partial
from pathlib import Path

from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.http import FetchLimits, FetchRequest, HttpFetcher
from tests.app.sources.fetch.test_address_policy import REFUSED
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.servers import RunningServer
from tests.support.web_servers import Recorder, WebServer, status

PROMISE = Promise(13, "fetch", "URL ingest is off by default and cannot reach inner networks.")
TARGETS = (
    "http://127.0.0.2/",
    "http://10.0.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[fd00:ec2::254]/",
    "http://192.168.1.1:8080/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_x",
    "http://user:word@127.0.0.1/",
)


def run(scale: Scale) -> Outcome:
    """The same in both forms: it takes a second."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        dialled = try_addresses(at) + try_rebinding(at)
        followed, refused = try_redirects(at)
        with RunningServer(at / "data", workers=0) as server:
            body = {"source": "urls", "items": [{"url": "http://127.0.0.1:9/"}]}
            off = server.http.post("/v1/images/ingest", json=body).json()["code"]
    figure = (
        f"{len(REFUSED)} addresses, 100 names that change their minds, {refused} chains of redirects:"
        f" {dialled + followed} connections to a refused address; without SIGHTLINE_FETCH the answer is {off}"
    )
    return Outcome(figure, dialled + followed == 0 and refused == 2 * len(TARGETS) and off == "url_not_allowed")


def _always(address: str, host: str, port: int) -> list[str]:
    return [address]


def try_addresses(folder: Path) -> int:
    """Count the addresses that were dialled, given in a URL and behind a name."""
    count = 0
    for address in REFUSED:
        network = Recorder()
        fetcher = HttpFetcher(AddressPolicy(), network=network, resolve=partial(_always, address))
        try:
            for host in (f"[{address}]" if ":" in address else address, "inside.example"):
                fetcher.fetch(FetchRequest(f"http://{host}/a.png", folder / "picture"))
        finally:
            fetcher.close()
        count += len(network.dialled)
    return count


def try_rebinding(folder: Path) -> int:
    """Count how often a name led inside that first resolves to a public address and then to an inner one."""
    network = Recorder()
    answers = itertools.cycle([["1.1.1.1"], ["127.0.0.1"], ["1.1.1.1", "169.254.169.254"], ["::1"]])
    fetcher = HttpFetcher(AddressPolicy(), network=network, resolve=lambda host, port: next(answers))
    try:
        for n in range(100):
            fetcher.fetch(FetchRequest(f"http://turn{n}.example/a.png", folder / "picture"))
    finally:
        fetcher.close()
    return sum(host != "1.1.1.1" for host, _ in network.dialled)


def try_redirects(folder: Path) -> tuple[int, int]:
    """Count the chains that led inside, and those refused. Each starts directly, and again after one honest hop."""
    inside, refused = 0, 0
    trap = WebServer("127.0.0.2")
    web = WebServer()
    fetcher = HttpFetcher(AddressPolicy(["127.0.0.1"]), FetchLimits(seconds=10))
    try:
        for target in TARGETS:
            web.pages["/last"] = status(302, Location=target.replace("127.0.0.2/", f"127.0.0.2:{trap.port}/"))
            web.pages["/first"] = status(302, Location="/last")
            for start in ("/last", "/first"):
                got = fetcher.fetch(FetchRequest(web.url + start, folder / "picture"))
                refused += got.error is not None and got.error.code == "url_not_allowed"
        inside = sum(trap.asked.values())
    finally:
        fetcher.close()
        web.close()
        trap.close()
    return inside, refused
