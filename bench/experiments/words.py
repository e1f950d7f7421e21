"""Print how well words, vectors and both find the pictures of the demo gallery, and what the words cost.

`python -m bench.experiments.words [N]`: each picture has a short file name and nothing else, and is asked for by its
caption; with the starter model, and with an encoder that knows colours alone. Then, among N pictures (100,000), the
time of a search by vectors and of one by both, in turns. For docs/explanation/words.md.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from app.core.settings import Settings
from app.core.types import DEFAULT_COLLECTION, Mode, NewImage
from app.decode.pool import DecodePool
from app.encoder.batcher import Batcher
from app.encoder.loader import load_encoder
from app.encoder.protocol import Embeddings, Encoder
from app.search.query import SearchQuery
from app.search.query_encoder import QueryPart
from app.search.searcher import Searcher
from app.storage.address import open_database
from app.storage.sql import Connection
from app.storage.tables import embeddings, images, work_queue
from bench.experiments.scores import GALLERY, encode_pictures
from index.flat import FlatIndex

MODES: tuple[Mode, ...] = ("vector", "keyword", "hybrid")
ROUNDS, QUERIES = 5, 200


class NamedPictures:
    """Pictures that have a vector and a file name, in a data directory of their own, and a searcher over them."""

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        names: list[str],
        vectors: Embeddings,
        pool: DecodePool,
        captions: Sequence[str | None] | None = None,
        tags: Sequence[tuple[str, ...]] | None = None,
    ) -> None:
        self.database = open_database(folder / "sightline.db")
        self.index = FlatIndex(encoder.space.d)
        self._batcher = Batcher(encoder)
        self.searcher = Searcher(self.database, encoder, self._batcher, pool, lambda *_: nullcontext(self.index))
        space = encoder.space
        self.database.write(lambda c: embeddings.save_space(c, space))
        keys: list[int] = []
        for start in range(0, len(names), 1_000):
            end = start + 1_000
            said = (captions or [None] * len(names))[start:end]
            tagged = (tags or [()] * len(names))[start:end]
            part = list(zip(names[start:end], vectors[start:end], said, tagged, strict=True))
            keys += self.database.write(lambda c, p=part, n=start: add_pictures(c, space.fingerprint, n, p))  # type: ignore[misc]
        self.index.add(np.array(keys, np.int64), vectors)
        self.searcher.profiles.start()
        self.searcher.profiles.get(DEFAULT_COLLECTION, len(names))
        while not self.searcher.profiles.is_measured(DEFAULT_COLLECTION):
            time.sleep(0.1)

    def find(self, words: str, mode: Mode) -> list[str]:
        """The names of ten hits."""
        query = SearchQuery([QueryPart(text=words)], mode=mode)
        return [hit.image.source or "" for hit in self.searcher.search(query).hits if hit.image]

    def close(self) -> None:
        self._batcher.close()
        self.searcher.profiles.close()
        self.database.close()


def add_pictures(
    c: Connection, space: str, first: int, pictures: list[tuple[str, Embeddings, str | None, tuple[str, ...]]]
) -> list[int]:
    """Ready rows with these names, vectors, captions and tags, numbered from `first`; returns their keys."""
    keys = []
    for n, (name, vector, caption, tags) in enumerate(pictures, first):
        new = NewImage(f"{n:064x}", "png", 1, 1, 1, source=name, caption=caption, tags=tags)
        keys.append(images.add(c, DEFAULT_COLLECTION, new, None, False).image.key)
        (lease,) = work_queue.claim_images(c, "bench", 1e12, 1)
        work_queue.finish_image(c, lease, space, vector.astype("<f4").tobytes(), 1, 1, False)
    return keys


def main() -> None:
    """Print both tables."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    console = Console()
    with tempfile.TemporaryDirectory() as scratch, DecodePool(2) as pool:
        names, captions, paths = read_gallery(Path(scratch))
        table = Table("encoder", "trust", *MODES, title="right picture first / among ten")
        for model in ("starter", "colours"):
            encoder = load_encoder(model, Settings().models)
            vectors = encode_pictures(encoder, paths)
            pictures = NamedPictures(make_folder(scratch, model), encoder, names, vectors, pool)
            trust = pictures.searcher.profiles.get(DEFAULT_COLLECTION, len(names)).trust
            table.add_row(model, f"{trust:.2f}", *(rate(pictures, names, captions, mode) for mode in MODES))
            pictures.close()
        console.print(table)
        print_times(console, make_folder(scratch, "many"), names, captions, many, pool)


def make_folder(scratch: str, name: str) -> Path:
    folder = Path(scratch) / f"data-{name}"
    folder.mkdir()
    return folder


def read_gallery(folder: Path) -> tuple[list[str], list[str], list[Path]]:
    """A short name for each picture of the gallery, its caption, and its file."""
    with zipfile.ZipFile(GALLERY) as archive:
        said = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        paths = [Path(archive.extract(line["file"], folder)) for line in said]
    counts: Counter[str] = Counter()
    names = []
    for line in said:
        slug = re.sub("[^a-z0-9]+", "-", line["tags"][0].lower()).strip("-")
        counts[slug] += 1
        names.append(f"{slug}-{counts[slug]}.webp")
    return names, [line["caption"] for line in said], paths


def rate(pictures: NamedPictures, names: list[str], captions: list[str], mode: Mode) -> str:
    """How many captions have their picture first, and among ten."""
    found = [pictures.find(caption, mode) for caption in captions]
    first = sum(hits[:1] == [name] for hits, name in zip(found, names, strict=True))
    among = sum(name in hits for hits, name in zip(found, names, strict=True))
    return f"{first / len(names):.3f} / {among / len(names):.3f}"


def print_times(
    console: Console, folder: Path, names: list[str], captions: list[str], many: int, pool: DecodePool
) -> None:
    """Print how long a search takes among many pictures with names of the gallery, in milliseconds."""
    encoder = load_encoder("colours", Settings().models)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((many, encoder.space.d)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pictures = NamedPictures(folder, encoder, [f"{n}/{names[n % len(names)]}" for n in range(many)], vectors, pool)
    times: dict[Mode, list[float]] = {"vector": [], "hybrid": []}
    for _ in range(ROUNDS):
        for mode, spent in times.items():
            for words in captions[:QUERIES]:
                start = time.perf_counter()
                pictures.find(words, mode)
                spent.append((time.perf_counter() - start) * 1_000)
    pictures.close()
    table = Table("mode", "p50", "p95", title=f"milliseconds, {many:,} pictures")
    for mode, spent in times.items():
        table.add_row(mode, f"{statistics.median(spent):.2f}", f"{np.quantile(spent, 0.95):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
