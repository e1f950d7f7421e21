"""Print what a head brings on drawings of other hands than those that trained the starter model, and how long it takes.

`python -m bench.experiments.teach FOLDER` reads two Debian packages unpacked into FOLDER (`apt-get download
ruby-gemojione openclipart-png`, `dpkg -x` each): EmojiOne's drawings with their names, and with names and keywords;
clip art of many people, with the names of its files. Each is taught as the service does it, then with the captions
mixed. For docs/benchmarks.md.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from app.core.errors import HeadRefused, SightlineError
from app.core.settings import Settings
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.encoder.loader import load_encoder
from app.encoder.protocol import Embeddings, Encoder, normalise
from app.search.head_training import require_gain, select_pairs, split_pairs, teach

GEMOJIONE = "usr/share/rubygems-integration/all/gems/gemojione-3.3.0"
OPENCLIPART = "usr/share/openclipart/png"
MAX_BYTES = 200_000  # of a picture: some clip art has hundreds of megapixels
BATCH = 64
TIMED = 10_000  # pairs
NUMBER = re.compile(r"\b\d+\b|\b[a-z]\.?$")
Set = list[tuple[Path, str]]


def main() -> None:
    """Print the table, and the time of 10,000 pairs."""
    folder, console = Path(sys.argv[1]), Console()
    encoder = load_encoder("starter", Settings().models)
    table = Table("set", "texts", "held out", "R@1", "R@10", "confidence", "pictures: R@10", "captions mixed", "s")
    for name, pairs in read_sets(folder).items():
        vectors, captions = encode_pictures(encoder, pairs)
        texts = encode(encoder, captions)
        row = measure(encoder, captions, texts, vectors)
        mixed = measure(encoder, captions, texts, vectors[np.random.default_rng(1).permutation(len(vectors))])
        table.add_row(name, *row[:-2], mixed[-2], row[-1])
    console.print(table)
    console.print(f"{TIMED:,} pairs: {time_many(encoder)}")


def read_sets(folder: Path) -> Mapping[str, Set]:
    gem = folder / GEMOJIONE
    listed = json.loads((gem / "config/index.json").read_text("utf-8")).values()
    emoji = [
        (gem / f"assets/png/{one['unicode'].upper()}.png", one) for one in listed if "tone" not in one["shortname"]
    ]
    emoji = [(path, one) for path, one in emoji if path.exists()]
    art = [(path, NUMBER.sub("", re.sub(r"[_-]+", " ", path.stem))) for path in (folder / OPENCLIPART).rglob("*.png")]
    return {
        "EmojiOne, names": [(path, one["name"]) for path, one in emoji],
        "EmojiOne, names and keywords": [(path, ", ".join([one["name"], *one["keywords"][:5]])) for path, one in emoji],
        "Open Clip Art, file names": sorted((path, name) for path, name in art if path.stat().st_size < MAX_BYTES),
    }


def encode_pictures(encoder: Encoder, pairs: Set) -> tuple[Embeddings, list[str]]:
    """The vectors of those that can be read, decoded as the service does it, and their captions."""
    vectors, captions = [], []
    with DecodePool(2) as pool:
        for start in range(0, len(pairs), BATCH):
            some = pairs[start : start + BATCH]
            limits, preprocessing = pool.picture_limits, encoder.preprocessing
            waiting = [pool.submit(decode_picture, path, preprocessing, limits) for path, _ in some]
            pixels = []
            for task, (_, caption) in zip(waiting, some, strict=True):
                try:
                    pixels.append(task.result().pixels)
                except SightlineError:
                    continue
                captions.append(caption)
            vectors.append(encoder.encode_images(np.stack(pixels)))
    return np.concatenate(vectors), captions


def encode(encoder: Encoder, texts: list[str]) -> Embeddings:
    parts: Iterator[Embeddings] = (
        encoder.encode_texts(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)
    )
    return np.concatenate(list(parts))


def measure(encoder: Encoder, captions: list[str], texts: Embeddings, vectors: Embeddings) -> list[str]:
    """The cells of a line: counts, recalls before and after, whether it is kept, and the seconds of learning."""
    ids = [f"p{n:06}" for n in range(len(captions))]
    began = time.perf_counter()
    pairs = select_pairs(captions, range(len(captions)), ids)
    numbers = {caption: n for n, caption in reversed(list(enumerate(captions)))}
    split = split_pairs(pairs, ids)
    rows = texts[[numbers[text] for text in pairs.texts]]
    taught = teach(rows, vectors, pairs, split, encoder.temperature, lambda share: None)
    spent = time.perf_counter() - began
    words, pictures = taught.figures["text_to_image"], taught.figures["image_to_text"]
    recalls = [
        f"{both['before'][k]:.3f} → {both['after'][k]:.3f}"
        for both, k in ((words, "R@1"), (words, "R@10"), (pictures, "R@10"))
    ]
    try:
        require_gain(taught)
        verdict = "kept"
    except HeadRefused:
        verdict = "refused"
    low, high = taught.confidence
    counts = [str(len(pairs.texts)), str(words["before"]["n"])]
    return [*counts, *recalls[:2], f"{low:+.3f} to {high:+.3f}", recalls[2], verdict, f"{spent:.0f}"]


def time_many(encoder: Encoder) -> str:
    """Seconds for texts that are encoded, and pictures that are a random rotation of them with noise."""
    rng = np.random.default_rng(0)
    captions = [f"a {n % 100} of {n // 100} in the {n % 7} corner" for n in range(TIMED)]
    began = time.perf_counter()
    texts = encode(encoder, captions)
    middle = time.perf_counter()
    turn = np.linalg.qr(rng.standard_normal((texts.shape[1], texts.shape[1])))[0]
    pictures = normalise(texts @ turn + 0.05 * rng.standard_normal(texts.shape))
    measure(encoder, captions, texts, pictures)
    return f"{middle - began:.0f} s for the texts, {time.perf_counter() - middle:.0f} s to learn and measure"


if __name__ == "__main__":
    main()
