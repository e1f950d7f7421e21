"""Print how well the verdict tells queries that have a picture from queries that have none.

`python -m bench.experiments.verdict [N]`: N pictures (1,000), N queries that have their picture there and N that have
none. Once every second picture has its caption (the others are asked for), once no picture has any. For
docs/explanation/verdict.md. It needs the packages of training/README.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from app.core.settings import Settings
from app.core.types import DEFAULT_COLLECTION
from app.decode.pool import DecodePool
from app.encoder.dummy import PALETTE, DummyEncoder
from app.encoder.loader import load_encoder
from app.encoder.protocol import Embeddings, Encoder, Pixels
from app.search.verdict import UNCERTAIN, judge, measure_auroc
from bench.experiments.words import NamedPictures, make_folder
from training.captions import Captioner
from training.evaluate import shrink
from training.render import Renderer
from training.scenes import sample_scene
from training.sprites import Atlas, load_atlas

BATCH = 64
SEED = 6_000_000


class RandomEncoder:
    """Texts and pictures in two narrow cones, and nothing in common: a model of random weights."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self._rng = encoder, np.random.default_rng(0)
        self._middles = self._rng.standard_normal((2, encoder.space.d)).astype(np.float32) * 2

    def __getattr__(self, name: str) -> object:
        return getattr(self._encoder, name)

    def encode_images(self, pixels: Pixels) -> Embeddings:
        return self._draw(len(pixels), 0)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return self._draw(len(texts), 1)

    def _draw(self, count: int, tower: int) -> Embeddings:
        rows = self._middles[tower] + self._rng.standard_normal((count, self._encoder.space.d)).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    console, atlas = Console(), load_atlas()
    starter = load_encoder("starter", Settings().models)
    scenes, chinese = draw_scenes(atlas, count, "none"), draw_scenes(atlas, count, "none", "zh")
    kinds: list[tuple[str, Encoder, tuple[Pixels, list[str], list[str]]]] = [
        ("drawings, starter", starter, scenes),
        ("drawings, in Chinese", starter, chinese),
        ("outlines, starter", starter, draw_scenes(atlas, count, "outline")),
        ("mosaics, starter", starter, draw_scenes(atlas, count, "mosaic")),
        ("pencil, starter", starter, draw_scenes(atlas, count, "pencil")),
        ("stripes, colours", DummyEncoder(), draw_colours(count)),
        ("drawings, random", RandomEncoder(starter), scenes),  # type: ignore[list-item]
    ]
    table = Table(
        "collection", "captions", "AUROC", "none of absent", "none of present", "good of present", "uncertain"
    )
    with tempfile.TemporaryDirectory() as scratch, DecodePool(1) as pool:
        for n, (name, encoder, (pixels, present, absent)) in enumerate(kinds):
            vectors = np.concatenate([encoder.encode_images(pixels[m : m + BATCH]) for m in range(0, count, BATCH)])
            for has_captions in (True, False):
                folder = make_folder(scratch, f"{n}-{has_captions}")
                row = measure(folder, encoder, vectors, present, absent, has_captions, pool)
                table.add_row(name, "half" if has_captions else "none", *row)
    console.print(table)


def measure(
    folder: Path,
    encoder: Encoder,
    vectors: Embeddings,
    present: list[str],
    absent: list[str],
    has_captions: bool,
    pool: DecodePool,
) -> Iterator[str]:
    """AUROC, and the shares of verdicts."""
    names = [f"IMG_{n}.jpg" for n in range(len(vectors))]
    captions = [text if has_captions and n % 2 == 0 else None for n, text in enumerate(present)]
    pictures = NamedPictures(folder, encoder, names, vectors, pool, captions)
    profile = pictures.searcher.profiles.get(DEFAULT_COLLECTION, len(names))
    pictures.close()
    assert profile.spread is not None
    found, logits = [], []
    for texts in (present[1::2] if has_captions else present, absent):
        queries = np.concatenate([encoder.encode_texts(texts[m : m + BATCH]) for m in range(0, len(texts), BATCH)])
        best = (queries @ vectors.T).max(axis=1)
        pairs = zip(queries, best.tolist(), strict=True)
        found.append([judge(profile.calibration, profile.spread, query, one, 0.0) for query, one in pairs])
        deviations = profile.spread.measure_deviations(best, queries)
        known = profile.calibration
        logits.append(np.asarray(best, np.float64) if known is None else known.probability(best, deviations))
    yield f"{measure_auroc(logits[0], logits[1]):.3f}"
    for verdicts, match in ((found[1], "none"), (found[0], "none"), (found[0], "good")):
        yield f"{np.mean([one.match == match for one in verdicts]):.3f}"
    yield f"{np.mean([one == UNCERTAIN for verdicts in found for one in verdicts]):.2f}"


def draw_scenes(atlas: Atlas, count: int, style: str, language: str = "en") -> tuple[Pixels, list[str], list[str]]:
    """Scenes of one half of the glyphs, their captions, and captions of scenes of the other half."""
    order = np.random.default_rng(11).permutation(len(atlas)).tolist()
    half = len(order) // 2
    captioner, renderer = Captioner(atlas.glyphs), Renderer(atlas)
    scenes = [sample_scene(SEED + n, atlas.glyphs, styled=0, choices=sorted(order[:half])) for n in range(count)]
    others = [sample_scene(SEED + n, atlas.glyphs, styled=0, choices=sorted(order[half:])) for n in range(count)]
    drawn = [type(scene)(scene.seed, scene.objects, scene.background, scene.colour, style) for scene in scenes]
    pixels = np.stack([shrink(renderer.draw(scene, 224)) for scene in drawn])
    said = [
        [captioner.full(scene, language, np.random.default_rng((scene.seed, 4)), plain=True).text for scene in some]
        for some in (drawn, others)
    ]
    return pixels, said[0], said[1]


def draw_colours(count: int) -> tuple[Pixels, list[str], list[str]]:
    """Stripes of five colours of one half of the palette, what they are called, and names of the other half."""
    rng, names = np.random.default_rng(5), [names[0] for names in PALETTE]
    rgb = np.array(list(PALETTE.values()), np.float32)
    chosen = rng.integers(0, 6, (count, 5))
    stripes = np.repeat(rgb[chosen], 8, axis=1)[:, None, 4:36].repeat(32, axis=1)
    pixels = (stripes + rng.normal(0, 12, stripes.shape)).clip(0, 255).astype(np.uint8)
    present = [", ".join(names[n] for n in row) for row in chosen.tolist()]
    absent = [", ".join(names[n + 6] for n in row) for row in rng.integers(0, 6, (count, 5)).tolist()]
    return pixels, present, absent


if __name__ == "__main__":
    main()
