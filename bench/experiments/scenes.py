"""Embed rendered scenes with the starter model. Texts and pictures lie apart, as in any CLIP space.

`python -m bench.experiments.scenes [COUNT]` writes them below bench/work/index, shard by shard, in two processes
(about 250 pictures a second on two idle cores). After an interruption, start it again: it continues with the next
missing shard.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.encoder.protocol import Embeddings, Encoder
from app.search.collection_profile import read_generic_captions
from bench.weights import WORK
from training.captions import Captioner
from training.render import Renderer
from training.scenes import sample_scene
from training.sprites import LANGUAGES, Atlas, load_atlas

FOLDER = WORK / "index"
FIRST_SEED, QUERY_SEED = 2_000_000_000, 2_100_000_000
SHARD, BATCH = 4_000, 32
COUNT, QUERIES = 240_000, 10_000
PROCESSES = 2


def main() -> None:
    """Make the missing shards."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    open_tools(FOLDER)  # makes the atlas and the compiled towers, before two processes need them at once
    load_texts(FOLDER)
    missing = [n for n in range(-(-count // SHARD)) if not shard_path(FOLDER, n).exists()]
    spawn = multiprocessing.get_context("spawn")  # a fork of a process that has loaded a model hangs
    with ProcessPoolExecutor(PROCESSES, spawn, initializer=os.nice, initargs=(19,)) as pool:
        for n in pool.map(make_shard, [FOLDER] * len(missing), missing):
            print(f"{(n + 1) * SHARD:,} pictures", flush=True)


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"pictures-{number:04}.npy"


@cache
def open_tools(folder: Path) -> tuple[Atlas, Renderer, Encoder]:
    """The glyphs, the renderer and the encoder of a process, on one thread."""
    from app.encoder.loader import EncoderOptions, load_encoder

    folder.mkdir(parents=True, exist_ok=True)
    atlas = load_atlas(folder)
    return atlas, Renderer(atlas), load_encoder("starter", folder, EncoderOptions(threads=1))


def make_shard(folder: Path, number: int) -> int:
    """Draw and encode the scenes of one shard; returns its number."""
    atlas, renderer, encoder = open_tools(folder)
    vectors = []
    for start in range(FIRST_SEED + number * SHARD, FIRST_SEED + (number + 1) * SHARD, BATCH):
        scenes = (sample_scene(seed, atlas.glyphs) for seed in range(start, start + BATCH))
        vectors.append(encoder.encode_images(np.stack([renderer.draw(scene) for scene in scenes])))
    save_array(shard_path(folder, number), np.concatenate(vectors))
    return number


def load_texts(folder: Path) -> Embeddings:
    """Captions and short queries for scenes that are not among the pictures: [QUERIES, d]."""
    path = folder / "texts.npy"
    if not path.exists():
        atlas, _, encoder = open_tools(folder)
        captioner = Captioner(atlas.glyphs)
        captions: dict[str, None] = {}
        seed = QUERY_SEED
        while len(captions) < QUERIES:
            language = LANGUAGES[seed % len(LANGUAGES)]
            captions[captioner.sample(sample_scene(seed, atlas.glyphs), language, np.random.default_rng(seed)).text] = (
                None
            )
            seed += 1
        words = list(captions)
        save_array(
            path, np.concatenate([encoder.encode_texts(words[i : i + BATCH]) for i in range(0, len(words), BATCH)])
        )
    return np.load(path)  # type: ignore[no-any-return]


def load_generic(folder: Path) -> Embeddings:
    """The captions that come with the service, by which it calibrates: [n, d]."""
    path = folder / "generic.npy"
    if not path.exists():
        _, _, encoder = open_tools(folder)
        words = read_generic_captions(LANGUAGES)
        save_array(
            path, np.concatenate([encoder.encode_texts(words[i : i + BATCH]) for i in range(0, len(words), BATCH)])
        )
    return np.load(path)  # type: ignore[no-any-return]


def load_pictures(folder: Path) -> Embeddings:
    """All vectors so far, without repeats: [n, d]."""
    shards = sorted(folder.glob("pictures-*.npy"))
    if not shards:
        raise SystemExit("there are no pictures yet; run python -m bench.experiments.scenes")
    vectors = np.concatenate([np.load(path) for path in shards])
    _, first = np.unique(vectors, axis=0, return_index=True)
    return vectors[np.sort(first)]


def save_array(path: Path, vectors: npt.NDArray[Any]) -> None:
    """Write the file in whole or not at all."""
    draft = path.with_suffix(".draft")
    with open(draft, "wb") as file:
        np.save(file, vectors)
    draft.rename(path)


if __name__ == "__main__":
    main()
