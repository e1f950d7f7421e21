"""Measure how fast the Python client loads a folder, beside the best that the server can take.

python -m bench.client [FILES [FOLDER]]   (20,000 without an argument; some minutes)

The data directory lies in FOLDER. In one of memory (/dev/shm) no disk slows the server down, which is harder for the
client.

The best is a sender that has nothing to do: it holds every request as finished bytes, and sends them over as many
connections as the client does. It sends a quarter as many pictures before the client's, and a quarter after them; none
comes twice.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
from sightline_client import Client
from sightline_client.folder import find_files, group_into_batches

from app.cli.client import Client as CommandClient
from app.cli.demo import free_port, run_server, wait_until_ready
from bench.intake import HOST, draw_jpeg
from bench.results import Figures, save_figures
from bench.weights import WORK

FILES = 20_000
SIDE = 48
CONNECTIONS = 4  # as many requests at once as `upload_folder` sends
AIM = 0.95


def main() -> None:
    count, place = int(sys.argv[1]) if sys.argv[1:] else FILES, Path(sys.argv[2]) if sys.argv[2:] else WORK
    place.mkdir(parents=True, exist_ok=True)
    save_figures("client", measure_folder(count, place))


def measure_folder(count: int, place: Path) -> Figures:
    seconds = {"best": 0.0, "client": 0.0}
    sizes, first = {"best": count // 4, "client": count}, 0
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        port = free_port(HOST, 0)
        url = f"http://{HOST}:{port}"
        with run_server(Path(scratch) / "data", HOST, port, "colours") as process, Client(url) as client:
            with CommandClient(url) as command:
                wait_until_ready(command, process)
            write_pictures(Path(scratch) / "first", range(-50, 0))
            send_folder(client, Path(scratch) / "first")  # the worker has its model then
            for part, name in enumerate(("best", "client", "best")):
                folder = Path(scratch) / f"part-{part}"
                write_pictures(folder, range(first, first + sizes[name]))
                first += sizes[name]
                seconds[name] += send_prepared(client, port, folder) if name == "best" else send_folder(client, folder)
    best, ours = 2 * sizes["best"] / seconds["best"], count / seconds["client"]
    return {
        "pictures of the folder": count,
        "the best that the server takes, pictures/s to all ready": best,
        "upload_folder, pictures/s to all ready": ours,
        f"share (aim: {AIM})": ours / best,
    }


def write_pictures(folder: Path, numbers: range) -> None:
    for n in numbers:
        path = folder / f"{n // 1_000}" / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_jpeg(n % 10**9, SIDE))


def send_folder(client: Client, folder: Path) -> float:
    """Seconds of `upload_folder`, until every picture is ready."""
    began = time.perf_counter()
    report = client.upload_folder(folder, concurrency=CONNECTIONS)
    assert (report.done, report.failed) == (report.total, 0), report
    return time.perf_counter() - began


def send_prepared(client: Client, port: int, folder: Path) -> float:
    """Seconds until the pictures of finished requests are ready."""
    bodies = []
    for batch in group_into_batches(find_files(folder)):
        files = [("files", (file.name, file.path.read_bytes())) for file in batch]
        request = httpx.Request("POST", "http://x/", files=files)
        bodies.append((request.headers["Content-Type"], request.read()))

    def post(job: str, part: tuple[str, bytes]) -> str:
        connection = http.client.HTTPConnection(HOST, port, timeout=600)
        connection.request("POST", f"/v1/images/bulk{job}", part[1], {"Content-Type": part[0]})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return str(answer["id"])

    began = time.perf_counter()
    job = post("", bodies[0])
    with ThreadPoolExecutor(CONNECTIONS) as senders:
        list(senders.map(partial(post, f"?job={job}"), bodies[1:]))
    ended = client.wait_for_job(job)
    spent = time.perf_counter() - began
    assert ended.done == ended.total, ended
    return spent


if __name__ == "__main__":
    main()
