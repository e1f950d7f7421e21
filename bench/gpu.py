"""How fast a GPU encodes, from pixels and from JPEG files, what the machine would allow, and whether it is right.

`python -m bench.gpu` prints the table "On a GPU" of docs/benchmarks.md. Weights are random and seeded and pictures are
rendered, for speed depends on neither and nothing is downloaded. It ends with 1 when the vectors are not those of fp32.
"""

from __future__ import annotations

import gc
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import open_clip
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from app.core.errors import StartupError
from app.core.settings import Settings
from app.decode.pool import DecodePool
from app.encoder.loader import EncoderOptions, LocatedModel, load_located
from app.encoder.open_clip import PRECISIONS, OpenClipEncoder, choose_device, choose_precision
from app.encoder.protocol import Embeddings, Pixels
from bench.jpeg import Source, from_children, from_gpu, write_jpegs

ALIKE = 0.999
AIMS = {("ViT-B-32", "pixels"): 20_000, ("ViT-L-14", "pixels"): 2_000, ("ViT-B-32", "JPEG"): 4_000}  # an H200
DISTINCT = 64  # pictures, which larger numbers repeat; their vectors are held to those of fp32
WIDTH = 150  # columns
RUNS = 3  # at least, of what is timed


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: pictures at once, seconds for each figure, JPEGs, and the side of the matrix product."""

    at_once: tuple[int, ...]
    seconds: float
    pictures: int
    side: int


FULL = Scale((1, 16, 128, 256, 1024), 3.0, 8_192, 8_192)
SMALL = Scale((1, 4), 0.1, 8, 512)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the device and the way there could do at most: operations and bytes a second, measured."""

    operations: float
    bytes: float


@click.command()
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N, or cpu for a small trial run.")
@click.option("--model", "models", multiple=True, default=("ViT-B-32", "ViT-L-14"), show_default=True)
@click.option("--pictures", type=int, help="JPEGs read for each figure.")
@click.option("--decoders", type=int, help="Decode children; as many as a worker takes unless given.")
def main(device: str, models: tuple[str, ...], pictures: int | None, decoders: int | None) -> None:
    """Measure each model; random weights, rendered pictures."""
    try:
        device = choose_device(device)
    except StartupError as error:
        raise SystemExit(f"bench.gpu: {error.detail}") from None
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that the weights are random: they are
    scale = FULL if device.startswith("cuda") else SMALL
    scale = replace(scale, pictures=pictures or scale.pictures)
    children = decoders or Settings().decoders_for(device)
    table = Table("model", "work", "figure", "aim (H200)", "nearest limit: how much of it is reached")
    console = Console(width=WIDTH)
    right = True
    with tempfile.TemporaryDirectory() as scratch, DecodePool(children) as pool:
        pool.prewarm()
        files = write_jpegs(Path(scratch), min(scale.pictures, 256))
        for model in models:
            right &= measure(model, device, scale, Source(files, scale.pictures, pool, Path(scratch)), table)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "a trial run without a GPU"
    console.print(f"{name}; torch {torch.__version__}; {os.cpu_count()} cores, {children} decode children")
    console.print(table)
    if not right:
        sys.exit(f"bench.gpu: vectors are not those of fp32 (cosine below {ALIKE})")


def measure(model: str, device: str, scale: Scale, source: Source, table: Table) -> bool:
    """Fill the rows of one model; whether its vectors are those of fp32."""
    precision = choose_precision("auto", device)
    with tempfile.TemporaryDirectory() as scratch:
        file = random_weights(model, Path(scratch) / "weights.safetensors")
        whole = opened(model, file, device, "fp32")
        pixels = seeded(max(scale.at_once), whole.preprocessing.size)
        expected, work = in_one(whole, pixels[:DISTINCT]), operations(whole, pixels[:1])
        del whole  # its weights lie on the device
        gc.collect()
        encoder = opened(model, file, device, precision)
    found = encoder.encode_images(pixels[:-1])  # in many parts, the last of them padded
    cosine = float((found * expected[np.arange(len(found)) % DISTINCT]).sum(axis=1).min())
    alike = float((expected @ expected.T - 2 * np.eye(len(expected))).max())
    table.add_row(
        model, f"{precision}: least cosine to fp32", f"{cosine:.5f}", f"{ALIKE}", f"two pictures: at most {alike:.3f}"
    )
    machine = measured(device, precision, scale.side, pixels[0].nbytes)
    limits = {"matrix product": machine.operations / work, "copies": machine.bytes / pixels[0].nbytes}
    speed = by_pixels(model, encoder, pixels, scale, limits, table)
    by_jpegs(model, encoder, source, speed, table)
    return cosine >= ALIKE


def by_pixels(
    model: str, encoder: OpenClipEncoder, pixels: Pixels, scale: Scale, limits: dict[str, float], table: Table
) -> float:
    """Pictures a second from uint8 arrays; the rate of a worker's batch, or of the largest below it."""
    speed, batch = 0.0, Settings().batch_size_for(encoder.device)
    for n in scale.at_once:
        rate = n / median(lambda n=n: encoder.encode_images(pixels[:n]), scale.seconds)  # type: ignore[misc]
        speed = rate if n <= batch else speed
        aim = AIMS.get((model, "pixels")) if n == batch else None
        row(table, model, f"from pixels, {n} at once", rate, aim, limits)
    return speed


def by_jpegs(model: str, encoder: OpenClipEncoder, source: Source, speed: float, table: Table) -> None:
    """Pictures a second from JPEG files: read by the decode children, with and without thumbnails, and by the GPU."""
    batch = Settings().batch_size_for(encoder.device)

    def rate(of: Iterator[Embeddings | Pixels]) -> float:
        began = time.perf_counter()
        done = sum(map(len, of))
        return done / (time.perf_counter() - began)

    for thumbnails in (True, False):
        told = "with thumbnails" if thumbnails else "without thumbnails"
        alone = rate(from_children(source, None, encoder.preprocessing, batch, thumbnails))
        both = rate(from_children(source, encoder, encoder.preprocessing, batch, thumbnails))
        limits = {"decode children": alone, "encoder": speed}
        row(table, model, f"from JPEG, {told}", both, AIMS.get((model, "JPEG")) if thumbnails else None, limits)
    if encoder.preprocessing.resize != "shortest":
        return
    kind = "nvJPEG" if encoder.device.startswith("cuda") else "torchvision"
    fallen, gpu = from_gpu(source, encoder, batch)
    row(table, model, f"from JPEG, read by {kind}, {fallen} fell back", rate(gpu), None, {"encoder": speed})


def row(table: Table, model: str, work: str, rate: float, aim: int | None, limits: dict[str, float]) -> None:
    """One figure, its aim, and the lowest of what could bound it."""
    limit = min(limits, key=lambda name: limits[name])
    reached = f"{limit} {per_second(limits[limit])}: {rate / limits[limit]:.0%}"
    table.add_row(model, work, per_second(rate), per_second(aim) if aim else "", reached)


def per_second(rate: float) -> str:
    """For people: whole pictures, below a hundred with one decimal."""
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.1f}/s"


def median(work: Callable[[], object], seconds: float) -> float:
    """Seconds that `work` takes; the first two runs, which may prepare things, are not counted."""
    taken = []
    for n in range(1_000_000):
        began = time.perf_counter()
        work()
        if n > 1:
            taken.append(time.perf_counter() - began)
        if len(taken) >= RUNS and sum(taken) > seconds:
            break
    return statistics.median(taken)


def random_weights(architecture: str, path: Path) -> Path:
    """Seeded weights of an architecture, as a file."""
    torch.manual_seed(7)
    state = open_clip.create_model(architecture).state_dict()
    save_file({name: value.contiguous().clone() for name, value in state.items()}, path)
    return path


def opened(architecture: str, weights: Path, device: str, precision: str) -> OpenClipEncoder:
    """The encoder as the service would open it."""
    located = LocatedModel(f"{architecture}:{weights}", architecture, weights)
    encoder = load_located(located, weights.parent, EncoderOptions(device, precision, "torch"))
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


def seeded(n: int, size: int) -> Pixels:
    """uint8 [n, size, size, 3]: soft shapes, each picture with its own."""
    dice = np.random.default_rng(7)
    cells = dice.integers(0, 256, (min(n, DISTINCT), 6, 6, 3)).astype(np.uint8)
    made = [np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in cells]
    return np.stack([made[k % len(made)] for k in range(n)])


@torch.inference_mode()
def in_one(encoder: OpenClipEncoder, pixels: Pixels) -> Embeddings:
    """Unit vectors by one plain pass: no fixed sizes, no graph."""
    features = encoder.forward(torch.from_numpy(pixels).to(encoder.device))
    return np.asarray(torch.nn.functional.normalize(features, dim=-1).cpu().numpy())


@torch.inference_mode()
def operations(encoder: OpenClipEncoder, pixels: Pixels) -> float:
    """Floating-point operations of one picture, counted; torch's fused attention would hide its own."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            in_one(encoder, pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return float(counter.get_total_flops()) / len(pixels)


def measured(device: str, precision: str, side: int, row_bytes: int) -> Machine:
    """The rate of a square matrix product, and of pictures copied into (pinned) memory and from there to the device."""
    system = torch.get_device_module(device)
    left = torch.randn((side, side), device=device, dtype=PRECISIONS[precision])

    def product() -> None:
        left @ left
        system.synchronize()

    rows = np.zeros((256, row_bytes), dtype=np.uint8)
    staged = torch.zeros(rows.shape, dtype=torch.uint8, pin_memory=device.startswith("cuda"))
    there = torch.zeros(rows.shape, dtype=torch.uint8, device=device)

    def stage() -> None:
        np.copyto(staged.numpy(), rows)

    def send() -> None:
        there.copy_(staged, non_blocking=True)
        system.synchronize()

    slower = max(median(stage, 0.1), median(send, 0.1))  # they overlap
    return Machine(2 * side**3 / median(product, 0.5), rows.nbytes / slower)


if __name__ == "__main__":
    main()
