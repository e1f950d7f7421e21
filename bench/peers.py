"""Compare Sightline with clip-retrieval and infinity at the same work, in one run.

`python -m bench.peers`, about four minutes. The first run installs the two from the package index, each into its own
environment below bench/work. All three run on the processor, with the same ViT-B/32 weights from local files, on the
same pictures and queries, and listen on the loopback. The peers keep their default settings, except for the names of
model and files, and for parts that would download from a hub.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from app.cli.client import Client
from app.cli.demo import free_port
from app.decode.limits import PictureLimits
from app.decode.picture import decode_picture
from app.encoder.openvino import OpenVinoEncoder
from app.encoder.protocol import Embeddings
from bench.checkpoint import make_checkpoint
from bench.environment import install
from bench.needs import list_processes, proportional_bytes, resident_bytes
from bench.pictures import LARGE, SMALL, make_photographs
from bench.results import Figures, load_average, save_figures
from bench.serve import CALLERS, FEW, MANY, time_encoder, to_figures
from bench.servers import (
    HOST,
    Ask,
    Pace,
    exit_on_sigterm,
    ingest,
    make_queries,
    measure_pace,
    port_of,
    request,
    run_our_server,
    search,
)
from bench.weights import ARCHITECTURE, WORK, ensure_compiled, ensure_weights

PEERS = WORK / "peers"
PACKAGES = {  # setuptools: clip-anytorch still imports pkg_resources; aiohttp: infinity reads pictures with it
    "clip-retrieval": ("clip-retrieval==2.45.0", "setuptools<81"),
    "infinity": ("infinity-emb[server,torch,vision]==0.0.78", "aiohttp"),
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "CUDA_VISIBLE_DEVICES": ""}
THEIR_NAME = f"open_clip:{ARCHITECTURE}/{ensure_weights()}"  # the part after the first slash is a path
# Left alone, `back` listens on every address.
BACK = """
import functools, sys
from flask import Flask
Flask.run = functools.partialmethod(lambda app, run, **told: run(app, **{**told, "host": "127.0.0.1"}), Flask.run)
from clip_retrieval.clip_back import clip_back
clip_back(sys.argv[1], port=int(sys.argv[2]), clip_model=sys.argv[3], use_jit=False, enable_mclip_option=False,
          provide_aesthetic_embeddings=False, columns_to_return=["image_path"])
"""
START_SECONDS, RUN_SECONDS = 180.0, 400.0
ROUNDS, ONE, ALL = 3, 24, 64  # rounds; queries in each, from one caller and from sixteen
BATCH = 64  # of clip-retrieval; its default of 256 takes half a minute to warm up and is no faster
MIB = 1 << 20


def main() -> None:
    began = load_average()
    exit_on_sigterm()
    for name, packages in PACKAGES.items():
        install(PEERS / name, packages)
    small, large = make_photographs(MANY, SMALL), make_photographs(FEW, LARGE)
    figures: Figures = {}
    with ExitStack() as stack:
        client, pid = stack.enter_context(run_our_server())
        figures |= compare_ingest(client, small, large)
        figures["least cosine of a picture"] = compare_pictures(small)
        servers: dict[str, tuple[int, int, Ask]] = {"ours": (port_of(client), pid, search)}
        servers["clip-retrieval"] = (*stack.enter_context(run_clip_back()), search_clip_back)
        servers["infinity"] = (*stack.enter_context(run_infinity()), embed_with_infinity)
        figures |= compare_searches({name: (port, ask) for name, (port, _, ask) in servers.items()})
        figures["least cosine of a text"] = compare_texts(servers["infinity"][0])
        for name, (_, one, _) in servers.items():
            figures[f"{name}: memory, MiB"] = resident_bytes(one) / MIB
        figures["ours: memory of all processes, MiB"] = (
            sum(proportional_bytes(one) for one, _ in list_processes(pid)) / MIB
        )
    figures |= compute_ratios(figures)
    figures["load before, after"] = max(began, load_average())
    save_figures("peers", figures)


def compute_ratios(figures: Figures) -> Figures:
    """How many times as fast ours is as each peer, and how many times the memory it takes."""
    mine = {name.removeprefix("ours: "): value for name, value in figures.items() if name.startswith("ours: ")}
    made: Figures = {}
    for name, theirs in figures.items():
        peer, _, what = name.partition(": ")
        if peer in PACKAGES and what in mine:
            faster = mine[what] / theirs if "a second" in what or "memory" in what else theirs / mine[what]
            made[f"{what}: ours over {peer}"] = faster
    return made


def compare_ingest(client: Client, small: Sequence[Path], large: Sequence[Path]) -> Figures:
    """Ingest both sizes with both services in turns; time our encoder alone before and after."""
    figures: Figures = {}
    rates = [time_encoder()]
    for name, paths in (("640x480", small), ("12 MP", large)):
        figures[f"ours: {name} pictures a second"] = ingest(client, paths)
        figures[f"clip-retrieval: {name} pictures a second"] = run_inference(paths[0].parent, PEERS / name, len(paths))
        rates.append(time_encoder())
    figures["our encoder alone, pictures a second"] = rate = statistics.median(rates)
    figures["640x480 ingest of our encoder alone"] = figures["ours: 640x480 pictures a second"] / rate
    return figures


def run_inference(folder: Path, target: Path, count: int) -> float:
    """Pictures a second of `clip-retrieval inference`: its own count over its own time, without its start."""
    shutil.rmtree(target, ignore_errors=True)
    words = ["inference", f"--input_dataset={folder}", f"--output_folder={target}", f"--clip_model={THEIR_NAME}"]
    run_command(
        "clip-retrieval",
        [PEERS / "clip-retrieval/bin/clip-retrieval", *words, "--enable_text=False", f"--batch_size={BATCH}"],
    )
    stats = json.loads((target / "stats/0.json").read_text("utf-8"))
    if stats["sample_count"] != count:
        raise SystemExit(f"clip-retrieval encoded {stats['sample_count']} of {count} pictures")
    return count / float(stats["total_duration"])


def run_command(name: str, command: Sequence[str | Path]) -> None:
    """Run a peer's command to its end; its output goes to a log file beside its environment."""
    with open(PEERS / f"{name}.log", "a", encoding="utf-8") as log:
        subprocess.run(command, stdout=log, stderr=log, env={**os.environ, **OFFLINE}, timeout=RUN_SECONDS, check=True)


@contextmanager
def run_clip_back() -> Iterator[tuple[int, int]]:
    """Run `clip-retrieval back` over the small pictures that it encoded; yield its port and process id."""
    embeddings, index = PEERS / "640x480", PEERS / "index"
    shutil.rmtree(index, ignore_errors=True)
    words = [f"--embeddings_folder={embeddings}", f"--index_folder={index}", "--nb_cores=2"]
    run_command("clip-retrieval", [PEERS / "clip-retrieval/bin/clip-retrieval", "index", *words])
    indices = PEERS / "indices.json"
    indices.write_text(json.dumps({"bench": str(index)}), encoding="utf-8")
    port = free_port(HOST, 0)
    command: list[str | Path] = [PEERS / "clip-retrieval/bin/python", "-c", BACK, indices, str(port), THEIR_NAME]
    with run_peer("clip-retrieval", command, port, search_clip_back) as pid:
        yield port, pid


@contextmanager
def run_infinity() -> Iterator[tuple[int, int]]:
    """Run infinity with the checkpoint; yield its port and process id."""
    port = free_port(HOST, 0)
    words = [
        "--model-id",
        str(make_checkpoint()),
        "--served-model-name",
        "clip",
        "--engine",
        "torch",
        "--device",
        "cpu",
    ]
    command: list[str | Path] = [PEERS / "infinity/bin/infinity_emb", "v2", *words, "--host", HOST, "--port", str(port)]
    with run_peer("infinity", command, port, embed_with_infinity) as pid:
        yield port, pid


@contextmanager
def run_peer(name: str, command: Sequence[str | Path], port: int, ask: Ask) -> Iterator[int]:
    """Run a peer's server, and yield its process id once it answers."""
    with open(PEERS / f"{name}.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **OFFLINE})
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError, http.client.HTTPException):
                measure_pace(port, 1, make_queries(4), ask)
                break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name} did not start; see its log in {PEERS}")
            time.sleep(0.5)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def search_clip_back(connection: http.client.HTTPConnection, words: str) -> None:
    said = {"text": words, "modality": "image", "num_images": 10, "num_result_ids": 10, "indice_name": "bench"}
    request(connection, "POST", "/knn-service", json.dumps(said))


def embed_with_infinity(connection: http.client.HTTPConnection, words: str) -> None:
    """Ask infinity for a vector, without any search."""
    request(connection, "POST", "/embeddings", json.dumps({"model": "clip", "input": [words]}))


def compare_searches(servers: dict[str, tuple[int, Ask]]) -> Figures:
    """Search with one caller and with sixteen, the servers in turns, each query once."""
    taken: dict[str, list[Pace]] = {}
    first = 10
    for _ in range(ROUNDS):
        for callers, count in ((1, ONE), (CALLERS, ALL)):
            for name, (port, ask) in servers.items():
                taken.setdefault(f"{name}: {callers}", []).append(
                    measure_pace(port, callers, make_queries(count, first), ask)
                )
            first += count
    figures: Figures = {}
    for name, paces in taken.items():
        middle = Pace(*(statistics.median(getattr(one, field) for one in paces) for field in ("rate", "p50", "p95")))
        figures |= to_figures(f"{name} caller{'s' * (not name.endswith(' 1'))}", middle)
    return figures


def compare_pictures(paths: Sequence[Path]) -> float:
    """Least cosine between clip-retrieval's and our vectors of eight pictures: shows that both did the same work."""
    theirs = np.load(PEERS / "640x480/img_emb/img_emb_0.npy")[:8].astype(np.float32)
    encoder = OpenVinoEncoder(ensure_compiled(), "fp32")
    seen = [decode_picture(path, encoder.preprocessing, PictureLimits()).pixels for path in paths[:8]]
    return least_cosine(encoder.encode_images(np.stack(seen)), theirs)


def compare_texts(port: int) -> float:
    """Least cosine between infinity's and our vectors of four texts."""
    words = make_queries(4)
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    said = json.loads(request(connection, "POST", "/embeddings", json.dumps({"model": "clip", "input": words})))
    theirs = np.array([one["embedding"] for one in said["data"]], np.float32)
    return least_cosine(OpenVinoEncoder(ensure_compiled(), "fp32").encode_texts(words), theirs)


def least_cosine(ours: Embeddings, theirs: Embeddings) -> float:
    """The least cosine between corresponding rows."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / lengths).min())


if __name__ == "__main__":
    main()
