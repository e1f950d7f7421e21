"""Print what feedback and the threshold of near-duplicates do to searches of the demo gallery, for decision 54.

`python -m bench.experiments.arrangement [N]`: with the starter model. Feedback: a search for each English tag that 8 to
80 pictures have likes its first hit that has the tag, and turns from the first that has not; the rest of the ranking is
rated. Near-duplicates: N pictures (400) are encoded again, resized, cropped and made darker.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance
from rich.console import Console
from rich.table import Table

from app.core.settings import Settings
from app.encoder.loader import load_encoder
from app.encoder.protocol import Embeddings, Encoder
from bench.experiments.scores import GALLERY, encode_pictures

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0)
THRESHOLDS = (0.90, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
COPIES = ("encoded again", "resized", "cropped by 5 %", "darker")
LOOKED_AT = 20  # hits in which a person finds what to like and what not


def main() -> None:
    """Print both tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    console = Console()
    encoder = load_encoder("starter", Settings().models)
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(GALLERY) as archive:
        said = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        pictures = encode_pictures(encoder, [Path(archive.extract(line["file"], scratch)) for line in said])
        copied = range(0, len(said), max(1, len(said) // count))
        copies = encode_pictures(
            encoder, [path for n in copied for path in write_copies(Path(scratch), said[n]["file"])]
        )
    console.print(rate_feedback(encoder, pictures, [line["tags"] for line in said]))
    console.print(rate_thresholds(pictures, copies, list(copied)))


def rate_feedback(encoder: Encoder, pictures: Embeddings, tags: list[list[str]]) -> Table:
    """How many of the next ten hits have the tag, by how much a liked and an unliked picture count."""
    counts = Counter(tag for some in tags for tag in set(some) if tag.isascii())
    names = [tag for tag, count in counts.items() if 8 <= count <= 80]
    queries = encoder.encode_texts(names)
    fits = np.array([[tag in some for some in tags] for tag in names])
    table = Table("liked \\ unliked", *map(str, SHARES[:5]), title=f"of ten hits, {len(names)} tags; MRR in brackets")
    for liked in SHARES:
        cells = [rate(pictures, queries, fits, liked, unliked) for unliked in SHARES[:5]]
        table.add_row(str(liked), *(f"{ten:.3f} ({first:.3f})" for ten, first in cells))
    return table


def rate(
    pictures: Embeddings, queries: Embeddings, fits: npt.NDArray[np.bool_], liked: float, unliked: float
) -> tuple[float, float]:
    """The share of the tag among ten hits, and the mean of 1 / the place of the first that has it."""
    shares, firsts = [], []
    for query, fit in zip(queries, fits, strict=True):
        best = np.argsort(-(pictures @ query))[:LOOKED_AT]
        if not fit[best].any() or fit[best].all():
            continue
        good, bad = best[fit[best]][0], best[~fit[best]][0]
        moved = query + liked * pictures[good] - unliked * pictures[bad]
        order = [n for n in np.argsort(-(pictures @ moved)) if n not in (good, bad)]
        shares.append(fit[order[:10]].mean())
        firsts.append(1 / (1 + int(np.flatnonzero(fit[order])[0])))
    return float(np.mean(shares)), float(np.mean(firsts))


def write_copies(folder: Path, name: str) -> Iterator[Path]:
    """Write an altered copy of each kind of COPIES."""
    picture = Image.open(folder / name).convert("RGB")
    width, height = picture.size
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=60)
    resized = picture.resize((width * 2 // 3, height * 2 // 3))
    cropped = picture.crop((width // 40, height // 40, width - width // 40, height - height // 40))
    darker = ImageEnhance.Brightness(picture).enhance(0.8)
    for n, copy in enumerate((Image.open(encoded), resized, cropped, darker)):
        path = folder / f"{name}-{n}.png"
        copy.save(path)
        yield path


def rate_thresholds(pictures: Embeddings, copies: Embeddings, copied: list[int]) -> Table:
    """Which share of the copies, and of the nearest other pictures, each threshold takes for the same picture."""
    table = Table("cosine of at least", *COPIES, "the nearest other picture", "all pairs of others")
    own = np.einsum("nd,nkd->nk", pictures[copied], copies.reshape(len(copied), len(COPIES), -1))
    others = pictures @ pictures.T
    np.fill_diagonal(others, -1)
    pairs = others[np.triu_indices(len(others), 1)]
    for threshold in THRESHOLDS:
        shares = [*(own >= threshold).mean(axis=0), (others.max(axis=1) >= threshold).mean()]
        table.add_row(str(threshold), *(f"{one:.3f}" for one in shares), f"{(pairs >= threshold).mean():.5f}")
    return table


if __name__ == "__main__":
    main()
