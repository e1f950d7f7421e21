"""Print how many altered copies of pictures are found as duplicates, and how many pairs are none. For ADR 55.

`python -m bench.experiments.duplicates [N]`: N pictures (1,000: drawings of the demo gallery, noise like photographs,
gradients), and of each one copy encoded again, resized, cropped by 5 %, and recoloured; with the starter model. Then
what a hash costs, and what a search among 100,000 pictures takes and holds in memory.
"""

from __future__ import annotations

import io
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance
from rich.console import Console
from rich.table import Table

from app.core.settings import Settings
from app.decode.limits import PictureLimits
from app.decode.perceptual_hash import compute_perceptual_hash
from app.decode.picture import decode_picture
from app.encoder.loader import load_encoder
from app.encoder.protocol import Embeddings, Encoder
from app.search.duplicates import (
    DEFAULT_THRESHOLDS,
    MAX_THRESHOLDS,
    NEIGHBOURS,
    Hashes,
    find_candidates,
    judge_pairs,
    unpack_hashes,
)
from bench.experiments.scores import GALLERY
from bench.pictures import draw_pictures
from index.flat import FlatIndex

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]

COPIES = ("encoded again", "resized", "cropped", "recoloured")
BLOCK = 64
BATCH = 64
MANY, WIDTH = 100_000, 512  # vectors of the large search, and numbers of each


def main() -> None:
    """Print the tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as scratch:
        paths = list(write_pictures(Path(scratch), count))
        encoder = load_encoder("starter", Settings().models)
        hashes, vectors = describe_pictures(encoder, paths)
    pairs = find_pairs(hashes, vectors)
    console.print(rate_pairs(pairs, count))
    for kind, thresholds in (("exact", (4, 6, 8, 10, 12, 16)), ("near", (0.05, 0.1, 0.15, 0.2, 0.25, 0.3))):
        console.print(rate_thresholds(pairs, count, kind, thresholds))
    print_cost(console)
    print_large_search(console)


def write_pictures(folder: Path, count: int) -> Iterator[Path]:
    """The files of the pictures, then those of each kind of copy, in the same order."""
    originals = list(make_pictures(count))
    rng = np.random.default_rng(3)
    for n, picture in enumerate(originals):
        yield save(picture, folder / f"original-{n}.png")
    for name in COPIES:
        for n, picture in enumerate(originals):
            quality = 60 if name == "encoded again" else 92
            yield save(copy_picture(picture, name, rng), folder / f"{name}-{n}.jpg", quality=quality)


def save(picture: Image.Image, path: Path, quality: int = 92) -> Path:
    picture.save(path, quality=quality)
    return path


def make_pictures(count: int) -> Iterator[Image.Image]:
    """A half are drawings, a quarter noise with the spectrum of photographs, a quarter gradients."""
    drawn, noisy = count // 2, count // 4
    with zipfile.ZipFile(GALLERY) as archive:
        names = [name for name in archive.namelist() if name.endswith(".webp")]
        for name in names[:: max(1, len(names) // drawn)][:drawn]:
            yield Image.open(io.BytesIO(archive.read(name))).convert("RGB")
    yield from draw_pictures(list(range(noisy)), (640, 480))
    for n in range(count - drawn - noisy):
        yield draw_gradient(np.random.default_rng((7, n)))


def draw_gradient(rng: np.random.Generator, width: int = 480, height: int = 360) -> Image.Image:
    """Four waves of brightness and colour, and some grain."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    levels = np.zeros((height, width, 3), np.float32) + rng.uniform(40, 215, 3)
    for _ in range(4):
        turn, waves, phase = rng.uniform(0, 6.28), rng.uniform(0.3, 2.5), rng.uniform(0, 6.28)
        wave = np.sin((x / width * np.cos(turn) + y / height * np.sin(turn)) * waves * 6.28 + phase)
        levels += wave[..., None] * rng.uniform(-40, 40, 3)
    return Image.fromarray(np.clip(levels + rng.normal(0, 3, (height, width, 1)), 0, 255).astype(np.uint8))


def copy_picture(picture: Image.Image, name: str, rng: np.random.Generator) -> Image.Image:
    """An altered copy. Recolouring changes saturation by 30 %, brightness by up to 12 %, each channel by up to 6 %."""
    width, height = picture.size
    if name == "resized":
        return picture.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    if name == "cropped":
        across, down = round(width * 0.05), round(height * 0.05)
        left, top = int(rng.integers(0, across + 1)), int(rng.integers(0, down + 1))
        return picture.crop((left, top, left + width - across, top + height - down))
    if name == "recoloured":
        picture = ImageEnhance.Color(picture).enhance(float(rng.choice((0.7, 1.3))))
        picture = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.88, 1.12)))
        levels = np.asarray(picture, np.float32) * rng.uniform(0.94, 1.06, 3)
        return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    return picture


def describe_pictures(encoder: Encoder, paths: list[Path]) -> tuple[Hashes, Embeddings]:
    """Their hashes and vectors, decoded as the service does."""
    hashes: list[bytes | None] = []
    vectors = []
    limits = PictureLimits()
    for start in range(0, len(paths), BATCH):
        decoded = [
            decode_picture(path, encoder.preprocessing, limits, path.with_suffix(".thumbnail.webp"))
            for path in paths[start : start + BATCH]
        ]
        hashes += [one.perceptual_hash for one in decoded]
        vectors.append(encoder.encode_images(np.stack([one.pixels for one in decoded])))
    return unpack_hashes(hashes), np.concatenate(vectors)


def find_pairs(hashes: Hashes, vectors: Embeddings) -> Pairs:
    """The pairs that a search for duplicates stores: rows, bits (-1: not `exact`), distance (inf: not `near`)."""
    index = FlatIndex(vectors.shape[1])
    index.add(np.arange(len(vectors), dtype=np.int64), vectors)
    found: dict[tuple[int, int], tuple[int, float]] = {}
    for start in range(0, len(vectors), BLOCK):
        own = np.arange(start, min(start + BLOCK, len(vectors)), dtype=np.int64)
        scores, neighbours = index.search(vectors[own], NEIGHBOURS + 1)
        rows, others = find_candidates(hashes, start, int(own[-1]) + 1, own, scores, neighbours)
        bits, near = judge_pairs(hashes, rows, others)
        distances = np.where(near, 1 - (vectors[rows] * vectors[others]).sum(axis=1), np.inf)
        for row, other, differing, distance in zip(rows, others, bits, distances, strict=True):
            if differing >= 0 or distance <= MAX_THRESHOLDS["near"]:
                found[int(row), int(other)] = (int(differing), float(distance))
    pairs = np.array(list(found), np.int64).reshape(-1, 2)
    told = list(found.values())
    return pairs[:, 0], pairs[:, 1], np.array([one for one, _ in told]), np.array([one for _, one in told])


def select(pairs: Pairs, kind: str, threshold: float) -> npt.NDArray[np.bool_]:
    bits, distances = pairs[2:]
    return (bits >= 0) & (bits <= threshold) if kind == "exact" else distances <= threshold


def measure(pairs: Pairs, count: int, kind: str, threshold: float) -> tuple[list[float], int, int]:
    """The share of each kind of copy that is paired with its original; pairs; and those of two different pictures."""
    chosen = select(pairs, kind, threshold)
    later, earlier = pairs[0][chosen], pairs[1][chosen]
    with_original = earlier == later % count
    shares = [float(np.unique(later[with_original & (later // count == n)]).size) / count for n in range(1, 5)]
    return shares, len(later), int((later % count != earlier % count).sum())


def rate_pairs(pairs: Pairs, count: int) -> Table:
    table = Table("kind", "threshold", *COPIES, "mean", "false of the found", "false of all pairs")
    table.title = f"{count:,} pictures and four copies of each"
    for kind, threshold in DEFAULT_THRESHOLDS.items():
        add_row(table, pairs, count, kind, threshold)
    return table


def rate_thresholds(pairs: Pairs, count: int, kind: str, thresholds: tuple[float, ...]) -> Table:
    table = Table("kind", "threshold", *COPIES, "mean", "false of the found", "false of all pairs")
    for threshold in thresholds:
        add_row(table, pairs, count, kind, threshold)
    return table


def add_row(table: Table, pairs: Pairs, count: int, kind: str, threshold: float) -> None:
    shares, found, false = measure(pairs, count, kind, threshold)
    possible = (5 * count) * (5 * count - 1) / 2 - count * 10
    wrong = f"{false / max(found, 1):.2%} ({false})"
    row = (*(f"{share:.3f}" for share in shares), f"{sum(shares) / 4:.4f}", wrong, f"{false / possible:.1e}")
    table.add_row(kind, f"{threshold:g}", *row)


def print_cost(console: Console, rounds: int = 200) -> None:
    """What a hash takes of a thumbnail that is decoded already."""
    thumbnail = next(draw_pictures([0], (640, 480))).resize((320, 240))
    start = time.perf_counter()
    for _ in range(rounds):
        compute_perceptual_hash(thumbnail)
    console.print(f"a hash: {(time.perf_counter() - start) / rounds * 1_000:.2f} ms of a thumbnail of 320 x 240")


def print_large_search(console: Console) -> None:
    """The time and memory of a search among random vectors and hashes, without database and decoder."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((MANY, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hashes = unpack_hashes([rng.bytes(56) for _ in range(MANY)])
    index = FlatIndex(WIDTH)
    index.add(np.arange(MANY, dtype=np.int64), vectors)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    blocks = range(0, MANY, BLOCK)
    chosen = list(blocks)[:: max(1, len(blocks) // 40)]
    parts = {"vectors": 0.0, "hashes": 0.0}
    for first in chosen:
        own = np.arange(first, min(first + BLOCK, MANY), dtype=np.int64)
        start = time.perf_counter()
        scores, neighbours = index.search(vectors[own], NEIGHBOURS + 1)
        parts["vectors"] += time.perf_counter() - start
        start = time.perf_counter()
        rows, others = find_candidates(hashes, first, int(own[-1]) + 1, own, scores, neighbours)
        judge_pairs(hashes, rows, others)
        parts["hashes"] += time.perf_counter() - start
    whole = {name: spent / len(chosen) * len(blocks) for name, spent in parts.items()}
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    console.print(
        f"{MANY:,} pictures: {len(blocks):,} blocks, {sum(parts.values()) / len(chosen):.2f} s each;"
        f" {whole['vectors']:.0f} s for their vectors and {whole['hashes']:.0f} s for"
        f" their hashes; {grown:.0f} MiB more memory"
    )


if __name__ == "__main__":
    main()
