"""Compare int8 with bf16: NNCF quantises both towers after training; both precisions run in turns.

`.venv/bin/uv run --no-project --with nncf==3.4.0 python -m bench.experiments.int8` (nothing else needs NNCF). Recall
is that of the starter model on the demo gallery, where each caption must find its picture; speed is also that of
ViT-B/32. The calibration uses pictures and captions of the gallery itself, which favours int8. Decision 17 has the
figures.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nncf
import numpy as np
from rich.console import Console
from rich.table import Table

from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.encoder.loader import EncoderOptions, load_encoder
from app.encoder.openvino import IMAGE_FILE, INFO_FILE, TEXT_FILE, CompiledModelInfo, OpenVinoEncoder, load_openvino
from app.encoder.protocol import Pixels
from bench.experiments.scores import choose_pictures
from bench.weights import WORK, model_name

CALIBRATED_ON = 128
BATCH = 32
ROUNDS = 12
TOWERS = ("bf16", "int8", "int8, pictures only", "int8, texts only")


def main() -> None:
    """Print a table for each model."""
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as scratch:
        paths, captions = choose_pictures(Path(scratch), None)
        for name in ("starter", model_name()):
            first = load_encoder(name, WORK, EncoderOptions(precision="bf16"))
            pixels = decode_pictures(paths, first)
            folder = next(
                one.parent
                for one in (WORK / "compiled").glob(f"*/{INFO_FILE}")
                if CompiledModelInfo.read(one.parent).space == first.space
            )
            encoders = {"bf16": first, **quantise(folder, WORK / "int8" / first.space.weights[:16], pixels, captions)}
            console.print(measure(name.partition(":")[0], encoders, pixels, captions))


def decode_pictures(paths: Sequence[Path], encoder: Any) -> Pixels:
    """uint8 [n, size, size, 3], decoded as the service does."""
    with DecodePool(2) as pool:
        return np.stack(
            [
                one.result().pixels
                for one in [
                    pool.submit(decode_picture, path, encoder.preprocessing, pool.picture_limits) for path in paths
                ]
            ]
        )


def quantise(folder: Path, target: Path, pixels: Pixels, captions: Sequence[str]) -> dict[str, OpenVinoEncoder]:
    """Encoders with both towers in int8, and with one of them."""
    core, card = load_openvino().Core(), CompiledModelInfo.read(folder)
    tokenize = card.tokenization.tokenizer()
    every = max(1, len(pixels) // CALIBRATED_ON)
    samples: dict[str, list[Any]] = {
        IMAGE_FILE: [one[None] for one in pixels[::every]],
        TEXT_FILE: [tokenize([caption]) for caption in captions[::every]],
    }
    small = target / "towers"
    small.mkdir(parents=True, exist_ok=True)
    for tower, given in samples.items():
        if (small / tower).exists():
            continue
        done = nncf.quantize(
            core.read_model(folder / tower),
            nncf.Dataset(given),
            model_type=nncf.ModelType.TRANSFORMER,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(given),
        )
        load_openvino().save_model(done, small / tower)
    made = {}
    for name, taken in zip(TOWERS[1:], ((IMAGE_FILE, TEXT_FILE), (IMAGE_FILE,), (TEXT_FILE,)), strict=True):
        place = target / name
        shutil.copytree(folder, place, dirs_exist_ok=True)
        for tower in taken:
            for file in (tower, str(Path(tower).with_suffix(".bin"))):
                shutil.copy(small / file, place / file)
        made[name] = OpenVinoEncoder(place, "bf16")
    return made


def measure(name: str, encoders: dict[str, Any], pixels: Pixels, captions: Sequence[str]) -> Table:
    """Recall of each, and its processor time relative to bf16, in turns, so that other load counts little."""
    table = Table(
        name, "recall@1", "recall@10", f"pictures, batch {BATCH}", "one picture", f"texts, batch {BATCH}", "one text"
    )
    work: tuple[Callable[[Any], object], ...] = (
        lambda encoder: encoder.encode_images(pixels[:BATCH]),
        lambda encoder: encoder.encode_images(pixels[:1]),
        lambda encoder: encoder.encode_texts(captions[:BATCH]),
        lambda encoder: encoder.encode_texts(captions[:1]),
    )
    taken = [time_in_turns(encoders, one) for one in work]
    for which, encoder in encoders.items():
        speeds = [f"{seconds[which] * 1000:.1f} ms, {seconds['bf16'] / seconds[which]:.2f}x" for seconds in taken]
        found = [f"{recall(encoder, pixels, captions, k):.4f}" if name == "starter" else "" for k in (1, 10)]
        table.add_row(which, *found, *speeds)
    return table


def time_in_turns(encoders: dict[str, Any], work: Callable[[Any], object]) -> dict[str, float]:
    """Median processor seconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(ROUNDS + 2):
        for name, encoder in encoders.items():
            began = time.process_time()
            work(encoder)
            if turn >= 2:
                taken[name].append(time.process_time() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def recall(encoder: Any, pixels: Pixels, captions: Sequence[str], k: int) -> float:
    """The share of captions whose own picture is among the first k."""
    pictures = np.concatenate([encoder.encode_images(pixels[n : n + BATCH]) for n in range(0, len(pixels), BATCH)])
    texts = np.concatenate([encoder.encode_texts(captions[n : n + BATCH]) for n in range(0, len(captions), BATCH)])
    scores = texts @ pictures.T
    return float(((scores > np.diagonal(scores)[:, None]).sum(axis=1) < k).mean())


if __name__ == "__main__":
    main()
