"""The same work by clip-retrieval and by infinity, beside ours, in one run: what our figures are ratios of.

`python -m bench.peers`, about four minutes; the first run installs the two from the package index, each into an
environment of its own below bench/work. All run on the processor, with the same ViT-B/32 weights from local files
and nothing from a hub, on the same pictures and queries; all listen on the loopback. Their settings are their own
defaults, but for what names model and files and for parts that would need a hub.
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
from bench.checkpoint import checkpoint
from bench.environment import install
from bench.needs import family, proportional, resident
from bench.pictures import LARGE, SMALL, photographs
from bench.results import Figures, busy, keep
from bench.serve import CALLERS, FEW, MANY, alone, told
from bench.servers import HOST, Ask, Pace, answered, end_in_order, ingest, ours, pace, port_of, queries, search
from bench.weights import ARCHITECTURE, WORK, compiled, weights

PEERS = WORK / "peers"
PACKAGES = {  # setuptools: clip-anytorch still imports pkg_resources
    "clip-retrieval": ("clip-retrieval==2.45.0", "setuptools<81"),
    "infinity": ("infinity-emb[server,torch,vision]==0.0.78",),
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "CUDA_VISIBLE_DEVICES": ""}
THEIR_NAME = f"open_clip:{ARCHITECTURE}/{weights()}"  # what follows the first slash is a path
# `back` would listen on every address
BACK = """
import functools, sys
from flask import Flask
Flask.run = functools.partialmethod(lambda app, run, **told: run(app, **{**told, "host": "127.0.0.1"}), Flask.run)
from clip_retrieval.clip_back import clip_back
clip_back(sys.argv[1], port=int(sys.argv[2]), clip_model=sys.argv[3], use_jit=False, enable_mclip_option=False,
          provide_aesthetic_embeddings=False, columns_to_return=["image_path"])
"""
START_SECONDS, RUN_SECONDS = 180.0, 400.0
ROUNDS, ONE, ALL = 3, 24, 64  # rounds; queries of one caller and of sixteen in each
BATCH = 64  # of clip-retrieval, whose 256 takes half a minute to warm up; no slower for that
MIB = 1 << 20


def main() -> None:
    """Print and keep the figures."""
    began = busy()
    end_in_order()
    for name, packages in PACKAGES.items():
        install(PEERS / name, packages)
    small, large = photographs(MANY, SMALL), photographs(FEW, LARGE)
    figures: Figures = {}
    with ExitStack() as stack:
        client, pid = stack.enter_context(ours())
        figures |= ingested(client, small, large)
        figures["least cosine of a picture"] = pictures_alike(small)
        servers: dict[str, tuple[int, int, Ask]] = {"ours": (port_of(client), pid, search)}
        servers["clip-retrieval"] = (*stack.enter_context(back()), knn)
        servers["infinity"] = (*stack.enter_context(infinity()), embed)
        figures |= asked({name: (port, ask) for name, (port, _, ask) in servers.items()})
        figures["least cosine of a text"] = texts_alike(servers["infinity"][0])
        for name, (_, one, _) in servers.items():
            figures[f"{name}: memory, MiB"] = resident(one) / MIB
        figures["ours: memory of all processes, MiB"] = sum(proportional(one) for one, _ in family(pid)) / MIB
    figures |= ratios(figures)
    figures["load before, after"] = max(began, busy())
    keep("peers", figures)


def ratios(figures: Figures) -> Figures:
    """Ours over theirs: how many times as fast, and how many times the memory."""
    mine = {name.removeprefix("ours: "): value for name, value in figures.items() if name.startswith("ours: ")}
    made: Figures = {}
    for name, theirs in figures.items():
        peer, _, what = name.partition(": ")
        if peer in PACKAGES and what in mine:
            faster = mine[what] / theirs if "a second" in what or "memory" in what else theirs / mine[what]
            made[f"{what}: ours over {peer}"] = faster
    return made


def ingested(client: Client, small: Sequence[Path], large: Sequence[Path]) -> Figures:
    """Both sizes by both, in turns, beside our encoder alone before and after."""
    figures: Figures = {}
    rates = [alone()]
    for name, paths in (("640x480", small), ("12 MP", large)):
        figures[f"ours: {name} pictures a second"] = ingest(client, paths)
        figures[f"clip-retrieval: {name} pictures a second"] = inference(paths[0].parent, PEERS / name, len(paths))
        rates.append(alone())
    figures["our encoder alone, pictures a second"] = rate = statistics.median(rates)
    figures["640x480 ingest of our encoder alone"] = figures["ours: 640x480 pictures a second"] / rate
    return figures


def inference(folder: Path, target: Path, count: int) -> float:
    """`clip-retrieval inference`: its own count of samples over its own time, without its start."""
    shutil.rmtree(target, ignore_errors=True)
    words = ["inference", f"--input_dataset={folder}", f"--output_folder={target}", f"--clip_model={THEIR_NAME}"]
    run(
        "clip-retrieval",
        [PEERS / "clip-retrieval/bin/clip-retrieval", *words, "--enable_text=False", f"--batch_size={BATCH}"],
    )
    stats = json.loads((target / "stats/0.json").read_text("utf-8"))
    if stats["sample_count"] != count:
        raise SystemExit(f"clip-retrieval encoded {stats['sample_count']} of {count} pictures")
    return count / float(stats["total_duration"])


def run(name: str, command: Sequence[str | Path]) -> None:
    """A peer's command to its end; what it prints goes to a file beside its environment."""
    with open(PEERS / f"{name}.log", "a", encoding="utf-8") as log:
        subprocess.run(command, stdout=log, stderr=log, env={**os.environ, **OFFLINE}, timeout=RUN_SECONDS, check=True)


@contextmanager
def back() -> Iterator[tuple[int, int]]:
    """`clip-retrieval back` over the small pictures that it encoded; its port and process id."""
    embeddings, index = PEERS / "640x480", PEERS / "index"
    shutil.rmtree(index, ignore_errors=True)
    words = [f"--embeddings_folder={embeddings}", f"--index_folder={index}", "--nb_cores=2"]
    run("clip-retrieval", [PEERS / "clip-retrieval/bin/clip-retrieval", "index", *words])
    indices = PEERS / "indices.json"
    indices.write_text(json.dumps({"bench": str(index)}), encoding="utf-8")
    port = free_port(HOST, 0)
    command: list[str | Path] = [PEERS / "clip-retrieval/bin/python", "-c", BACK, indices, str(port), THEIR_NAME]
    with started("clip-retrieval", command, port, knn) as pid:
        yield port, pid


@contextmanager
def infinity() -> Iterator[tuple[int, int]]:
    """infinity with the checkpoint; its port and process id."""
    port = free_port(HOST, 0)
    words = ["--model-id", str(checkpoint()), "--served-model-name", "clip", "--engine", "torch", "--device", "cpu"]
    command: list[str | Path] = [PEERS / "infinity/bin/infinity_emb", "v2", *words, "--host", HOST, "--port", str(port)]
    with started("infinity", command, port, embed) as pid:
        yield port, pid


@contextmanager
def started(name: str, command: Sequence[str | Path], port: int, ask: Ask) -> Iterator[int]:
    """A peer's server, answering; ended with the block."""
    with open(PEERS / f"{name}.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **OFFLINE})
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError, http.client.HTTPException):
                pace(port, 1, queries(4), ask)
                break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name} did not start; its log says why")
            time.sleep(0.5)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def knn(connection: http.client.HTTPConnection, words: str) -> None:
    """A search by clip-retrieval."""
    said = {"text": words, "modality": "image", "num_images": 10, "num_result_ids": 10, "indice_name": "bench"}
    answered(connection, "POST", "/knn-service", json.dumps(said))


def embed(connection: http.client.HTTPConnection, words: str) -> None:
    """A vector of infinity, without any search."""
    answered(connection, "POST", "/embeddings", json.dumps({"model": "clip", "input": [words]}))


def asked(servers: dict[str, tuple[int, Ask]]) -> Figures:
    """One caller and sixteen, the servers in turns, each query once."""
    taken: dict[str, list[Pace]] = {}
    first = 10
    for _ in range(ROUNDS):
        for callers, count in ((1, ONE), (CALLERS, ALL)):
            for name, (port, ask) in servers.items():
                taken.setdefault(f"{name}: {callers}", []).append(pace(port, callers, queries(count, first), ask))
            first += count
    figures: Figures = {}
    for name, paces in taken.items():
        middle = Pace(*(statistics.median(getattr(one, field) for one in paces) for field in ("rate", "p50", "p95")))
        figures |= told(f"{name} caller{'s' * (not name.endswith(' 1'))}", middle)
    return figures


def pictures_alike(paths: Sequence[Path]) -> float:
    """Least cosine of eight pictures as clip-retrieval and as we see them: whether the work was the same."""
    theirs = np.load(PEERS / "640x480/img_emb/img_emb_0.npy")[:8].astype(np.float32)
    encoder = OpenVinoEncoder(compiled(), "fp32")
    seen = [decode_picture(path, encoder.preprocessing, PictureLimits()).pixels for path in paths[:8]]
    return least(encoder.encode_images(np.stack(seen)), theirs)


def texts_alike(port: int) -> float:
    """Least cosine of four texts as infinity and as we read them."""
    words = queries(4)
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    said = json.loads(answered(connection, "POST", "/embeddings", json.dumps({"model": "clip", "input": words})))
    theirs = np.array([one["embedding"] for one in said["data"]], np.float32)
    return least(OpenVinoEncoder(compiled(), "fp32").encode_texts(words), theirs)


def least(ours: Embeddings, theirs: Embeddings) -> float:
    """The least cosine of rows with rows."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / lengths).min())


if __name__ == "__main__":
    main()
