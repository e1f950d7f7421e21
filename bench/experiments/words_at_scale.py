"""Print how often the words of a caption, a tag or a file name find their picture, among many.

`python -m bench.experiments.words_at_scale [N]...` (1,000, 10,000 and 100,000 pictures). Each picture has a caption of
six words, a tag and a file name of two each, and a vector that tells nothing: the model is as weak as can be. The words
are drawn from the starter's vocabulary by Zipf's law. 300 pictures are asked for by each.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from app.core.settings import Settings
from app.decode.pool import DecodePool
from app.encoder.loader import load_encoder
from app.encoder.protocol import Encoder
from bench.experiments.words import NamedPictures, make_folder

ASKED = 300
VOCABULARY = Path("app/encoder/starter/words.txt")
FIELDS = ("caption", "tag that one picture has", "file name", "with its suffix")


def main() -> None:
    """Print the table."""
    encoder = load_encoder("colours", Settings().models)
    table = Table("pictures", *FIELDS, title="the right picture among ten")
    with tempfile.TemporaryDirectory() as scratch, DecodePool(1) as pool:
        for n in [int(one.replace(",", "")) for one in sys.argv[1:]] or [1_000, 10_000, 100_000]:
            shares = measure(encoder, make_folder(scratch, str(n)), n, pool)
            table.add_row(f"{n:,}", *(f"{share:.3f}" for share in shares))
    Console().print(table)


def measure(encoder: Encoder, folder: Path, n: int, pool: DecodePool) -> list[float]:
    """The share of queries of each field that have their picture among ten hits."""
    rng = np.random.default_rng(n)
    words = [word for word in VOCABULARY.read_text("utf-8").split() if word.isascii() and len(word) > 2]
    odds = 1 / np.arange(1, len(words) + 1)
    drawn = np.array(rng.permutation(words))[rng.choice(len(words), (n, 10), p=odds / odds.sum())]
    captions = [f"{a} and {b} with {c} {d} in the {e} of {f}" for a, b, c, d, e, f in drawn[:, :6].tolist()]
    tags = [(f"{one} {other}",) for one, other in drawn[:, 6:8].tolist()]
    names = [f"{one}_{other}_{number}.jpg" for number, (one, other) in enumerate(drawn[:, 8:].tolist())]
    vectors = rng.standard_normal((n, encoder.space.d)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pictures = NamedPictures(folder, encoder, names, vectors, pool, captions, tags)
    asked = rng.choice(n, ASKED, replace=False).tolist()
    alike = Counter(tags)
    queries = (
        [(captions[one], one) for one in asked],
        [(tags[one][0], one) for one in range(n) if alike[tags[one]] == 1][:ASKED],
        [(names[one].removesuffix(".jpg"), one) for one in asked],
        [(names[one], one) for one in asked],
    )
    shares = [np.mean([names[one] in pictures.find(query, "hybrid") for query, one in some]) for some in queries]
    pictures.close()
    return [float(share) for share in shares]


if __name__ == "__main__":
    main()
