"""Measure how soon pictures are found with ViT-B/32: the first one of an idle server, and a bulk from its start on.

`python -m bench.bulk`, two minutes. The same run times the encoder alone, and asks the worker what its time went into.
"""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready
from bench.needs import list_processes
from bench.pictures import LARGE, SMALL, make_photographs
from bench.results import Figures, load_average, save_figures
from bench.serve import time_encoder
from bench.servers import HOST, exit_on_sigterm, is_running, upload
from bench.weights import WORK, ensure_compiled, model_name

SINGLE, PAUSE = 15, 0.4  # pictures that are uploaded alone, and seconds between two of them
MANY, FEW = 400, 64
FIRST = 32  # pictures of a batch
STEPS = ("decode", "encode", "commit")


def main() -> None:
    began = load_average()
    exit_on_sigterm()
    small, large = make_photographs(SINGLE + MANY, SMALL), make_photographs(FEW, LARGE)
    ensure_compiled()
    before = time_encoder()
    figures = Figures()
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "models").symlink_to(WORK)
        port = free_port(HOST, 0)
        with (
            run_server(Path(scratch), HOST, port, model_name()) as process,
            Client(f"http://{HOST}:{port}") as client,
        ):
            wait_until_ready(client, process)
            wait_for_worker(Path(scratch))
            figures |= measure_single(client, small[:SINGLE])
            figures |= measure_bulk(client, process.pid, small[SINGLE:], "640x480")
            figures |= measure_bulk(client, process.pid, large, "12 MP")
    rate = (before + time_encoder()) / 2
    figures["encoder alone, pictures/s"] = rate
    for name in ("640x480", "12 MP"):
        figures[f"{name}, of the encoder alone"] = figures[f"{name}, pictures/s"] / rate
        figures[f"{name}, after the first batch, of the encoder alone"] = (
            figures[f"{name}, after the first batch, pictures/s"] / rate
        )
    figures["load before, after"] = max(began, load_average())
    save_figures("bulk", figures)


def wait_for_worker(data: Path) -> None:
    """Wait until the worker has loaded its model and written its lock file, and has nothing to do any more."""
    while not (data / "workers").is_dir() or not list((data / "workers").iterdir()):
        time.sleep(0.1)
    time.sleep(5)


def read_metrics(client: Client) -> str:
    return httpx.get(f"{client.server}/metrics", trust_env=False).text


def measure_single(client: Client, paths: Sequence[Path]) -> Figures:
    """Milliseconds from sending a picture to an idle server until a search finds it."""
    taken = []
    with httpx.Client(base_url=client.server, trust_env=False, timeout=60) as http:
        http.get("/livez")
        for path in paths:
            content = path.read_bytes()
            began = time.perf_counter()
            answer = http.post("/v1/images?wait=30", files={"file": (path.name, content)})
            taken.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, answer.text
            time.sleep(PAUSE)
    later = sorted(taken[1:])
    return {
        "first picture, ms": taken[0],
        "later single pictures, p50, ms": statistics.median(later),
        "later single pictures, worst, ms": later[-1],
    }


def measure_bulk(client: Client, pid: int, paths: Sequence[Path], name: str) -> Figures:
    """A bulk from its first byte until all are ready, and from the first batch on; what the worker did meanwhile."""
    steps, ours, spent_before = read_steps(client), time.process_time(), read_processor_times(pid)
    held, began = count_ready(client), time.perf_counter()
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(upload, client, paths)
        first, _ = wait_for_ready(client, held + 1, began)
        early_at, early = wait_for_ready(client, held + FIRST, began)
        jobs = sending.result()
    early -= held
    while is_running(client, jobs[-1:]) or is_running(client, jobs):
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    time.sleep(1.5)  # the worker writes its metrics once a second
    times = {part: seconds - spent_before.get(part, 0) for part, seconds in read_processor_times(pid).items()}
    times["this caller"] = time.process_time() - ours
    spent = {step: after - steps[step] for step, after in read_steps(client).items()}
    return {
        f"{name}, pictures/s": len(paths) / seconds,
        f"{name}, after the first batch, pictures/s": (len(paths) - early) / (seconds - early_at),
        f"{name}, first found, s": first,
        f"{name}, first {FIRST} found, s": early_at,
        **{f"{name}, share of the worker's time: {step}": spent[step] / seconds for step in STEPS},
        **{f"{name}, processor ms a picture: {part}": one / len(paths) * 1000 for part, one in times.items()},
    }


def read_processor_times(pid: int) -> dict[str, float]:
    """Processor seconds so far, by part of the service."""
    times: dict[str, float] = defaultdict(float)
    for member, part in list_processes(pid):
        times[part] += processor_seconds_alone(member)
    return dict(times)


def processor_seconds_alone(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")


def count_ready(client: Client) -> int:
    return int(client.stats()["images"]["ready"])


def wait_for_ready(client: Client, count: int, began: float) -> tuple[float, int]:
    """Seconds since `began` until so many pictures are ready, and how many are then."""
    while (ready := count_ready(client)) < count:
        time.sleep(0.02)
    return time.perf_counter() - began, ready


def read_steps(client: Client) -> dict[str, float]:
    """Seconds of each step of the worker so far."""
    text = read_metrics(client)
    return {
        step: sum(float(one) for one in re.findall(rf'^\S+_sum{{[^}}]*"{step}"[^}}]*}} (\S+)', text, re.MULTILINE))
        for step in STEPS
    }


if __name__ == "__main__":
    main()
