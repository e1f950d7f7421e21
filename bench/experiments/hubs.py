"""Print what nearest-neighbour normalisation gains, and compare the two ways to search with it.

`python -m bench.experiments.hubs [N]`: N pictures (1,000) of each kind with the starter model; half of their captions
are known, the others are asked for. For docs/explanation/score.md. It needs the packages of training/README.md.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from app.core.settings import Settings
from app.encoder.loader import load_encoder
from app.encoder.protocol import Embeddings, Encoder
from app.search.collection_profile import GENERIC
from app.search.hubs import DEPTH, STRENGTH, HubBiases, do_biases_help, is_first, measure_biases
from index.flat import FlatIndex
from training.evaluate import Trial, make_trial, style_trial
from training.scenes import HELD_OUT_STYLES
from training.sprites import load_atlas

BATCH = 64
MANY, K, ROUNDS = 100_000, 10, 200


def main() -> None:
    """Print both tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    console, atlas = Console(), load_atlas()
    encoder = load_encoder("starter", Settings().models)
    bank = encode_texts(encoder, GENERIC.read_text("utf-8").splitlines())
    trials = {"unseen scenes": make_trial(atlas, count)}
    trials |= {f"{style} (held out)": style_trial(atlas, style, count) for style in HELD_OUT_STYLES}
    table = Table("pictures", "language", "R@1", "chosen", "points as chosen", "points if on", "NNN k 8, 0.5")
    for name, trial in trials.items():
        for row in rate(encoder, trial, bank):
            table.add_row(name, *row)
    console.print(table)
    print_ways(console, encoder.space.d)


def encode_texts(encoder: Encoder, texts: list[str]) -> Embeddings:
    return np.concatenate([encoder.encode_texts(texts[n : n + BATCH]) for n in range(0, len(texts), BATCH)])


def rate(encoder: Encoder, trial: Trial, bank: Embeddings) -> list[list[str]]:
    """For each language: R@1 as it is, what the gate chose, and the gains in points, mean of both halves."""
    pixels = trial.images
    pictures = np.concatenate([encoder.encode_images(pixels[n : n + BATCH]) for n in range(0, len(pixels), BATCH)])
    rows = []
    for language, texts in trial.texts.items():
        queries = encode_texts(encoder, texts)
        order = np.random.default_rng(7).permutation(len(texts))
        plain, gains, chosen = [], [], []
        for known, asked in ((order[::2], order[1::2]), (order[1::2], order[::2])):
            scores = queries[asked] @ pictures.T
            before = is_first(scores, asked)
            whole = np.concatenate([queries[known], bank])
            soft = measure_biases(pictures, whole, encoder.temperature)
            hard = 0.5 * np.sort(pictures @ whole.T, axis=1)[:, -8:].mean(axis=1)
            is_on = do_biases_help(queries[known], known.tolist(), pictures, bank, encoder.temperature)
            ways = (is_on * STRENGTH * soft, STRENGTH * soft, hard)
            gains.append([(is_first(scores - bias, asked).mean() - before.mean()) * 100 for bias in ways])
            plain.append(before.mean())
            chosen.append("on" if is_on else "off")
        means = [f"{gain:+.1f}" for gain in np.mean(gains, axis=0)]
        rows.append([language, f"{np.mean(plain):.3f}", " / ".join(chosen), *means])
    return rows


def print_ways(console: Console, d: int) -> None:
    """Compare a further dimension of the index with ranking the nearest again."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((MANY, d)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    biases = rng.uniform(0, 0.1, MANY).astype(np.float32)
    keys = np.arange(MANY)
    plain, wide = FlatIndex(d), FlatIndex(d + 1)
    plain.add(keys, vectors)
    wide.add(keys, np.column_stack([vectors, -biases]))
    hubs = HubBiases(keys, biases, 0.05)
    times: dict[str, list[float]] = {"plain": [], "a further dimension": [], "ranked again": []}
    same = 0
    for query in vectors[:ROUNDS] + 0.5 * rng.standard_normal((ROUNDS, d)).astype(np.float32):
        asked = (query / np.linalg.norm(query))[None]
        start = time.perf_counter()
        plain.search(asked, K + 16)
        middle = time.perf_counter()
        _, right = wide.search(np.column_stack([asked, [[1.0]]]).astype(np.float32), K)
        later = time.perf_counter()
        scores, found = plain.search(asked, DEPTH + 16)
        again = hubs.rerank(scores[0], found[0])[:K]
        end = time.perf_counter()
        same += len(set(right[0].tolist()) & set(again.tolist()))
        for spent, seconds in zip(times.values(), (middle - start, later - middle, end - later), strict=True):
            spent.append(seconds * 1_000)
    table = Table("way", "p50 ms", title=f"{MANY:,} vectors, flat; the same ten: {same / ROUNDS / K:.4f}")
    for name, spent in times.items():
        table.add_row(name, f"{statistics.median(spent):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
