"""Folders as clip-retrieval and img2dataset leave them, of pictures in the colours that an encoder here sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

from app.encoder.dummy import DummyEncoder

COLOURS = ("red", "green", "blue", "yellow", "black", "white")


def paint(folder: Path, count: int) -> list[Path]:
    """`count` pictures of different bytes."""
    paths = []
    for n in range(count):
        path = folder / f"{n // 4:05}" / f"{n:09}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (32, 32), COLOURS[n % len(COLOURS)])
        image.putpixel((n % 32, n // 32), (n, n, n))
        image.save(path)
        paths.append(path)
    return paths


def vectors(paths: Sequence[Path]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the encoder of colours makes of them."""
    encoder = DummyEncoder()
    size = encoder.preprocessing.size
    pixels = [np.asarray(Image.open(path).convert("RGB").resize((size, size))) for path in paths]
    return encoder.encode_images(np.stack(pixels))


def clip_retrieval(
    folder: Path,
    names: Sequence[str],
    embeddings: np.ndarray[Any, Any] | None,
    *,
    parts: int = 1,
    **columns: Sequence[Any],
) -> Path:
    """An output of `clip-retrieval inference`; `embeddings` None leaves the vectors out."""
    (folder / "metadata").mkdir(parents=True)
    (folder / "img_emb").mkdir()
    for part, rows in enumerate(np.array_split(np.arange(len(names)), parts)):
        table = {"image_path": [names[n] for n in rows]} | {
            name: [values[n] for n in rows] for name, values in columns.items()
        }
        parquet.write_table(pyarrow.table(table), folder / "metadata" / f"metadata_{part}.parquet")
        if embeddings is not None:
            np.save(folder / "img_emb" / f"img_emb_{part}.npy", embeddings[rows].astype(np.float16))
    return folder


def write_sidecars(picture: Path, caption: str, **facts: Any) -> None:
    """The caption and the facts beside a picture, as img2dataset writes them."""
    picture.with_suffix(".txt").write_text(caption, "utf-8")
    picture.with_suffix(".json").write_text(json.dumps({"caption": caption, **facts}), "utf-8")
