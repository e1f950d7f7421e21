"""Searches with vectors as queries over HTTP, and how soon a server finds what was committed."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from app.storage.database import Database
from bench.experiments.pace import anonymous
from bench.experiments.vectors import queries, vectors
from bench.filled import add
from bench.needs import resident
from bench.results import Figures
from bench.servers import HOST, answered, end_in_order, pace
from bench.weights import model, space

CALLERS, TIMED, WARM = 16, 3_000, 200
ADDED = 1_000
PATIENCE = 60.0


def figures(data: Path, count: int) -> Figures:
    """One caller and sixteen; then 1,000 are committed by another process."""
    end_in_order()
    bodies = [json.dumps({"query": [{"vector": [round(float(x), 7) for x in row]}]}) for row in queries()[:TIMED]]
    port = free_port(HOST, 0)
    began = time.perf_counter()
    with run_server(data, HOST, port, model()) as process, Client(f"http://{HOST}:{port}") as client:
        wait_until_ready(client, process)
        said: Figures = {"server: start to ready, s": time.perf_counter() - began}
        pace(port, 4, bodies[:WARM], ask)
        alone = pace(port, 1, bodies[:WARM], ask)
        many = pace(port, CALLERS, bodies, ask)
        said |= {
            "HTTP, 1 caller, p50 ms": alone.p50,
            f"HTTP, {CALLERS} callers, a second": many.rate,
            f"HTTP, {CALLERS} callers, p50 ms": many.p50,
            f"HTTP, {CALLERS} callers, p95 ms": many.p95,
            "server: resident, MB": resident(process.pid) / 1e6,
            "server: memory beyond mapped files, MB": anonymous(process.pid) / 1e6,
        }
        return said | noticed(data, port, count)


def ask(connection: http.client.HTTPConnection, body: str) -> None:
    answered(connection, "POST", "/v1/search", body)


def noticed(data: Path, port: int, count: int) -> Figures:
    """Seconds from the commit of 1,000 pictures until the last of them is found, and from a delete's answer on."""
    rows = vectors(ADDED)[:, ::-1].copy()
    database = Database(data / "sightline.db")
    try:
        add(database, space(), count + 1, rows)
    finally:
        database.close()
    committed = time.perf_counter()
    connection = http.client.HTTPConnection(HOST, port)
    wanted = [f"p{count + 1 + n}" for n in (0, ADDED // 2, ADDED - 1)]
    body = [json.dumps({"query": [{"vector": rows[n].tolist()}], "k": 1}) for n in (0, ADDED // 2, ADDED - 1)]

    def firsts() -> list[str]:
        said = [json.loads(answered(connection, "POST", "/v1/search", text))["hits"] for text in body]
        return [hits[0]["id"] if hits else "" for hits in said]

    while firsts() != wanted:
        if time.perf_counter() - committed > PATIENCE:
            raise SystemExit("what was committed is not found")
    seconds = time.perf_counter() - committed
    connection.request("DELETE", f"/v1/images/{wanted[0]}")
    answer = connection.getresponse()
    answer.read()
    if answer.status not in (200, 204):
        raise SystemExit(f"the delete answered {answer.status}")
    return {
        "1,000 committed: all found after, s": seconds,
        "deleted found by the next search": float(wanted[0] in firsts()),
    }
