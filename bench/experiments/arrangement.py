"""Print what feedback and the threshold of near-duplicates do to searches of the demo gallery, for decision 54.

`python -m bench.experiments.arrangement [N]`: with the starter model. Feedback: a search for each English tag that 8 to
80 pictures have. It likes its first hit with the tag, and turns from the first without; how many of the others with the
tag are among ten? And it likes each such hit in turn: how many pictures of the same thing (a pizza, of all food)?
Near-duplicates: N pictures (400) are encoded again, resized, cropped and made darker.
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

SHARES = (
    (0.0, 0.0),
    (0.0, 0.1),
    (0.1, 0.05),
    (0.2, 0.0),
    (0.2, 0.1),
    (0.3, 0.15),
    (0.75, 0.0),
    (0.75, 0.25),
    (2.0, 0.0),
)
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
    """How many of what is wanted are among ten hits, by how much a liked and an unliked picture count."""
    counts = Counter(tag for some in tags for tag in set(some) if tag.isascii())
    names = [tag for tag, count in counts.items() if 8 <= count <= 80]
    queries = encoder.encode_texts(names)
    fits = np.array([[tag in some for some in tags] for tag in names])
    things = np.array([some[0] for some in tags])
    table = Table(
        "liked", "unliked", "has the tag", "is the same thing", title=f"found among ten; {len(names)} queries"
    )
    for liked, unliked in SHARES:
        found = [rate(pictures, query, fit, things, liked, unliked) for query, fit in zip(queries, fits, strict=True)]
        means = (np.mean([one for some in column for one in some]) for column in zip(*found, strict=True))
        table.add_row(str(liked), str(unliked), *(f"{one:.3f}" for one in means))
    return table


def rate(
    pictures: Embeddings,
    query: Embeddings,
    fit: npt.NDArray[np.bool_],
    things: npt.NDArray[np.str_],
    liked: float,
    unliked: float,
) -> tuple[list[float], list[float]]:
    """Shares found among ten: of what has the tag, and of what is the same thing as a liked hit."""
    best = np.argsort(-(pictures @ query))[:LOOKED_AT]
    if not fit[best].any() or fit[best].all():
        return [], []

    def search(good: int, bad: int, wanted: npt.NDArray[np.bool_]) -> float:
        moved = query + liked * pictures[good] - unliked * pictures[bad]
        found = [wanted[n] for n in np.argsort(-(pictures @ moved)) if n not in (good, bad)]
        return int(sum(found[:10])) / min(10, max(1, int(sum(found))))

    of_tag = [search(best[fit[best]][0], best[~fit[best]][0], fit)]
    of_thing = []
    for good in best[fit[best]]:
        same = things == things[good]
        if 2 <= same.sum() < fit.sum():
            of_thing.append(search(good, best[~same[best]][0], same))
    return of_tag, of_thing


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
