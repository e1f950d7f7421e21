"""What one server of a cluster has written, the others know within a second.

Two servers. Texts and pictures are written to one and searched on the other, in turns. API keys, keys that are bound
to a collection, and collections are made, revoked and dropped on one, and tried on the other.

Failing: of 100 writes the second slowest is found later than a second after it was acknowledged (of pictures: after the
first server called it ready); a key or a collection that is revoked or dropped is good for longer than a second
anywhere; a key that is bound to one collection sees another; a search with the token of a write does not find it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx2 as httpx

from tests.acceptance.commands import sightline
from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.support.cluster import Cluster, has_postgresql
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until

PROMISE = Promise(
    37, "shared", "What one server has written, the others find within a second; a revoked key ends everywhere."
)
SOON = 1.0
LONGEST = 20.0


def run(scale: Scale) -> Outcome:
    """400 writes and 20 keys."""
    if not has_postgresql():
        raise Impossible("PostgreSQL is not installed")
    writes, keys = scale.pick((40, 3), (400, 20))
    with Cluster(2, 1) as cluster:
        seen = sorted(write_and_find(cluster, n) for n in range(writes))
        tokens = [find_by_token(cluster, n) for n in range(keys)]
        ended = [revoke(cluster, n) for n in range(keys)]
    p99 = seen[-1 - len(seen) // 100]
    figure = (
        f"{writes} writes found on the other server: p50 {seen[len(seen) // 2]:.2f} s, p99 {p99:.2f} s;"
        f" {sum(tokens)} of {keys} by their token at once; {keys} keys and collections ended within {max(ended):.2f} s"
    )
    return Outcome(figure, p99 <= SOON and all(tokens) and max(ended) <= SOON)


def measure(condition: Callable[[], Any]) -> float:
    """Seconds until the condition holds."""
    began = time.monotonic()
    wait_until(condition, LONGEST)
    return time.monotonic() - began


def write_and_find(cluster: Cluster, n: int) -> float:
    """Seconds from a write on one server until the other finds it."""
    one, other = cluster.servers[n % 2], cluster.servers[1 - n % 2]
    if n % 4 < 3:
        made = one.http.post("/v1/texts", json={"texts": [{"id": f"t{n}", "text": f"red {n}"}]})
        assert made.status_code == 200, made.text
        return measure(lambda: f"t{n}" in search(other, f"red {n}", "texts"))
    made = one.upload(picture(seed=n, size=(31, 17)), id=f"p{n}")
    assert made.status_code == 200, made.text
    return measure(lambda: f"p{n}" in search(other, "red", "images"))


def search(server: RunningServer, words: str, target: str, **params: Any) -> list[str]:
    given = {"q": words, "target": target, "k": 1000, "mode": "vector", **params}
    answer = server.http.get("/v1/search", params=given)
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def find_by_token(cluster: Cluster, n: int) -> bool:
    """Whether the other server finds a write when it is asked with its token, without waiting in between."""
    one, other = cluster.servers[n % 2], cluster.servers[1 - n % 2]
    made = one.http.post("/v1/texts", json={"texts": [{"id": f"a{n}", "text": f"blue {n}"}]})
    token = made.headers["sightline-token"]
    return f"a{n}" in search(other, f"blue {n}", "texts", after=token)


def revoke(cluster: Cluster, n: int) -> float:
    """Make a collection and a key that is bound to it; the longest that any server takes for it after its end."""
    # An address of its own for each: one that sends wrong keys too often gets 429.
    with ExitStack() as opened:
        transports = [httpx.HTTPTransport(local_address=f"127.0.1.{n + 1}") for _ in cluster.servers]
        clients = [
            opened.enter_context(httpx.Client(base_url=server.url, transport=transport, timeout=LONGEST))
            for server, transport in zip(cluster.servers, transports, strict=True)
        ]
        return end_key(clients[n % 2], clients[1 - n % 2], f"c{n}", {"SIGHTLINE_DATABASE": cluster.address})


def end_key(one: httpx.Client, other: httpx.Client, name: str, settings: dict[str, str]) -> float:
    """Of a collection that `one` makes, and of a key that the command line makes."""
    admin = sightline("keys", "create", "admin", "--scope", "admin", **settings).stdout.strip()
    head = {"X-API-Key": admin}
    wait_until(lambda: one.get("/v1/stats", headers=head).status_code == 200, LONGEST)
    made = one.post("/v1/collections", json={"name": name}, headers=head)
    assert made.status_code in (200, 201), made.text
    bound = sightline("keys", "create", "bound", "--scope", "search", "--collection", name, **settings).stdout.strip()
    mine = {"X-API-Key": bound}
    wait_until(lambda: is_known(other, name, mine), LONGEST)
    for client in (one, other):
        assert client.get("/v1/images", headers=mine).status_code in (403, 404)  # of `default`
    listed = sightline("keys", "list", "--json", **settings).stdout
    (id,) = [key["id"] for key in parse(listed) if key["name"] == "bound" and not key.get("revoked_at")]
    assert sightline("keys", "revoke", id, **settings).returncode == 0
    slowest = measure(lambda: is_refused(one, name, mine) and is_refused(other, name, mine))
    assert one.delete(f"/v1/collections/{name}", headers=head).status_code == 204
    slowest = max(slowest, measure(lambda: not is_known(other, name, head)))
    assert sightline("keys", "clear", "--yes", **settings).returncode == 0
    wait_until(lambda: all(each.get("/v1/stats").status_code == 200 for each in (one, other)), LONGEST)
    return slowest


def is_refused(client: httpx.Client, name: str, headers: dict[str, str]) -> bool:
    return client.get("/v1/images", params={"collection": name}, headers=headers).status_code == 401


def is_known(client: httpx.Client, name: str, headers: dict[str, str]) -> bool:
    return client.get("/v1/images", params={"collection": name}, headers=headers).status_code == 200


def parse(text: str) -> list[dict[str, Any]]:
    found: Any = httpx.Response(200, text=text).json()
    return list(found["keys"] if isinstance(found, dict) else found)
