"""Measure searches with vectors as queries over HTTP, and how soon a server finds a committed picture."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from app.storage.address import open_database
from bench.data_directory import add_pictures
from bench.experiments.timing import anonymous_bytes
from bench.experiments.vectors import load_queries, load_vectors
from bench.needs import resident_bytes
from bench.results import Figures
from bench.servers import HOST, exit_on_sigterm, measure_pace, request
from bench.weights import load_space, model_name

CALLERS, TIMED, WARM = 16, 3_000, 200
ADDED = 1_000
PATIENCE = 60.0


def measure(data: Path, count: int) -> Figures:
    """Search with one caller and with sixteen; then another process commits 1,000 pictures."""
    exit_on_sigterm()
    bodies = [json.dumps({"query": [{"vector": [round(float(x), 7) for x in row]}]}) for row in load_queries()[:TIMED]]
    port = free_port(HOST, 0)
    began = time.perf_counter()
    with run_server(data, HOST, port, model_name()) as process, Client(f"http://{HOST}:{port}") as client:
        wait_until_ready(client, process)
        said: Figures = {"server: start to ready, s": time.perf_counter() - began}
        measure_pace(port, 4, bodies[:WARM], search)
        alone = measure_pace(port, 1, bodies[:WARM], search)
        many = measure_pace(port, CALLERS, bodies, search)
        said |= {
            "HTTP, 1 caller, p50 ms": alone.p50,
            f"HTTP, {CALLERS} callers, a second": many.rate,
            f"HTTP, {CALLERS} callers, p50 ms": many.p50,
            f"HTTP, {CALLERS} callers, p95 ms": many.p95,
            "server: resident, MB": resident_bytes(process.pid) / 1e6,
            "server: memory beyond mapped files, MB": anonymous_bytes(process.pid) / 1e6,
        }
        return said | measure_visibility(data, port, count)


def search(connection: http.client.HTTPConnection, body: str) -> None:
    request(connection, "POST", "/v1/search", body)


def measure_visibility(data: Path, port: int, count: int) -> Figures:
    """Seconds from the commit of 1,000 pictures until searches find the last; whether they find a deleted one."""
    rows = load_vectors(ADDED)[:, ::-1].copy()
    database = open_database(data / "sightline.db")
    try:
        add_pictures(database, load_space(), count + 1, rows)
    finally:
        database.close()
    committed = time.perf_counter()
    connection = http.client.HTTPConnection(HOST, port)
    wanted = [f"p{count + 1 + n}" for n in (0, ADDED // 2, ADDED - 1)]
    body = [json.dumps({"query": [{"vector": rows[n].tolist()}], "k": 1}) for n in (0, ADDED // 2, ADDED - 1)]

    def firsts() -> list[str]:
        said = [json.loads(request(connection, "POST", "/v1/search", text))["hits"] for text in body]
        return [hits[0]["id"] if hits else "" for hits in said]

    while firsts() != wanted:
        if time.perf_counter() - committed > PATIENCE:
            raise SystemExit(f"searches do not find the committed pictures within {PATIENCE:.0f} s")
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
