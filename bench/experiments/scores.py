"""Print the distribution of the starter model's cosines on the demo gallery, for docs/explanation/score.md.

`python -m bench.experiments.scores [N]` takes N pictures evenly from the gallery; without N, every picture with a
distinct caption.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from app.core.settings import Settings
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.encoder.loader import load_encoder
from app.encoder.protocol import Embeddings, Encoder

GALLERY = Path(__file__).parents[2] / "demo/gallery.zip"
BATCH = 64
QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


def main() -> None:
    """Print quantiles of the cosine, for pairs that belong together and for pairs that do not."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else None
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        encoder = load_encoder("starter", Settings().models)
        paths, captions = choose_pictures(Path(scratch), wanted)
        pictures = encode_pictures(encoder, paths)
    texts = np.concatenate([encoder.encode_texts(captions[n : n + BATCH]) for n in range(0, len(captions), BATCH)])
    table = Table("cosine of", "pairs", *(f"{q:.0%}" for q in QUANTILES))
    across = texts @ pictures.T
    apart = ~np.eye(len(pictures), dtype=bool)
    above = np.triu(apart)
    rows = {
        "a picture and its own caption": np.diag(across),
        "a picture and another's caption": across[apart],
        "two pictures": (pictures @ pictures.T)[above],
        "two captions": (texts @ texts.T)[above],
    }
    for name, cosines in rows.items():
        table.add_row(name, f"{cosines.size:,}", *(f"{q:.2f}" for q in np.quantile(cosines, QUANTILES)))
    console.print(table)
    gap = float(np.linalg.norm(pictures.mean(axis=0) - texts.mean(axis=0)))
    first = float((across.argmax(axis=1) == np.arange(len(texts))).mean())
    console.print(f"distance between the mean picture and the mean caption: {gap:.2f}")
    console.print(f"own picture first for {first:.0%} of {len(texts)} captions; temperature {encoder.temperature:.1f}")


def choose_pictures(folder: Path, wanted: int | None) -> tuple[list[Path], list[str]]:
    """Pictures of the gallery with distinct captions, and these captions."""
    with zipfile.ZipFile(GALLERY) as archive:
        said = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        distinct = list({line["caption"]: line["file"] for line in said}.items())
        picked = distinct[:: max(1, len(distinct) // wanted)][:wanted] if wanted else distinct
        return [Path(archive.extract(file, folder)) for _, file in picked], [caption for caption, _ in picked]


def encode_pictures(encoder: Encoder, paths: list[Path]) -> Embeddings:
    """float32 [n, d]; the pictures are decoded as the service does."""
    with DecodePool(2) as pool:
        decoding = [pool.submit(decode_picture, path, encoder.preprocessing, pool.picture_limits) for path in paths]
        pixels = np.stack([one.result().pixels for one in decoding])
    return np.concatenate([encoder.encode_images(pixels[n : n + BATCH]) for n in range(0, len(pixels), BATCH)])


if __name__ == "__main__":
    main()
