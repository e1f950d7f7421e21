"""Compare the embeddings wire with infinity's own server, over HTTP, in one run.

`python -m bench.experiments.embeddings`, about two minutes. Both servers have the same ViT-B/32 with seeded random
weights and run on the processor; both get the same requests, in turns: from 16 callers, one text or 32 in a request,
and one JPEG of 640 x 480 as a data URI. The first run installs infinity (see `bench.peers`).
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from app.encoder.protocol import Embeddings
from bench.environment import install
from bench.peers import PACKAGES, PEERS, least_cosine, run_infinity
from bench.pictures import SMALL, make_photographs
from bench.results import Figures, load_average, save_figures
from bench.servers import HOST, Ask, make_queries, measure_pace, port_of, request, run_our_server

CALLERS = 16
ROUNDS = 5  # of which the best counts: other processes only make a server slower
TEXTS, BATCHES, PICTURES = 64, 16, 32  # requests of one round
BATCH = 32  # texts in a request of many
COMPARED = 8


def main() -> None:
    began = load_average()
    install(PEERS / "infinity", PACKAGES["infinity"])
    photographs = make_photographs(PICTURES * ROUNDS, SMALL)
    figures: Figures = {}
    with ExitStack() as stack:
        client, _ = stack.enter_context(run_our_server())
        ports = {"ours": port_of(client), "infinity": stack.enter_context(run_infinity())[0]}
        names = {"ours": model_of(ports["ours"]), "infinity": "clip"}
        asks = {name: make_ask(names[name]) for name in ports}
        figures["least cosine of a text"] = compare(ports, names, make_queries(COMPARED), "text")
        figures["least cosine of a picture"] = compare(
            ports, names, [data_uri(one) for one in photographs[:8]], "image"
        )
        figures |= measure(ports, asks, [data_uri(one) for one in photographs])
    for what in ("texts a second, 1 a request", f"texts a second, {BATCH} a request", "pictures a second"):
        figures[f"{what}: ours over infinity"] = figures[f"ours: {what}"] / figures[f"infinity: {what}"]
    figures["load before, after"] = max(began, load_average())
    save_figures("embeddings", figures)


def measure(ports: dict[str, int], asks: dict[str, Ask], uris: Sequence[str]) -> Figures:
    """The rates of each server; each text and picture comes once."""
    taken: dict[str, list[float]] = {}
    queries = make_queries(ROUNDS * TEXTS)
    for n in range(ROUNDS):
        texts = queries[n * TEXTS : (n + 1) * TEXTS]
        # The words are few, so a text of a batch is made new by its number.
        many = [
            json.dumps([f"{text} number {n} {k} {m}" for m, text in enumerate(texts[:BATCH])]) for k in range(BATCHES)
        ]
        sets = {
            "texts a second, 1 a request": ([json.dumps([text]) for text in texts], 1),
            f"texts a second, {BATCH} a request": (many, BATCH),
            "pictures a second": ([json.dumps([uri]) for uri in uris[n * PICTURES : (n + 1) * PICTURES]], 1),
        }
        for what, (bodies, each) in sets.items():
            for name, port in ports.items():
                pace = measure_pace(port, CALLERS, bodies, asks[name])
                taken.setdefault(f"{name}: {what}", []).append(pace.rate * each)
    return {name: max(rates) for name, rates in taken.items()}


def make_ask(model: str) -> Ask:
    """Sends a list of inputs: pictures if they are data URIs."""

    def ask(connection: http.client.HTTPConnection, inputs: str) -> None:
        modality = "image" if inputs.startswith('["data:') else "text"
        asked = json.dumps({"model": model, "modality": modality, "encoding_format": "base64"})
        request(connection, "POST", "/embeddings", f'{asked[:-1]}, "input": {inputs}}}')

    return ask


def compare(ports: dict[str, int], names: dict[str, str], inputs: Sequence[str], modality: str) -> float:
    """The least cosine between the vectors of both servers."""
    rows: list[Embeddings] = []
    for name, port in ports.items():
        body = {"model": names[name], "input": inputs, "modality": modality}
        answer = json.loads(request(http.client.HTTPConnection(HOST, port), "POST", "/embeddings", json.dumps(body)))
        rows.append(np.array([one["embedding"] for one in answer["data"]], np.float32))
    return least_cosine(*rows)


def model_of(port: int) -> str:
    answer = json.loads(request(http.client.HTTPConnection(HOST, port), "GET", "/v1/models"))
    return str(answer["data"][0]["id"])


def data_uri(path: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


if __name__ == "__main__":
    main()
