"""Measure how fast a GPU encodes pixels and JPEG files, the limits of the machine, and whether the vectors are right.

`python -m bench.gpu` prints the table "On a GPU" of docs/benchmarks.md. Weights are random and seeded, and pictures are
rendered: speed depends on neither, and nothing is downloaded. The exit code is 1 if the vectors differ from those of
fp32.
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
from app.encoder.loader import EncoderOptions, load_located
from app.encoder.open_clip import PRECISIONS, OpenClipEncoder, choose_device, choose_precision
from app.encoder.protocol import Embeddings, Pixels
from app.encoder.weights import LocatedModel
from bench.jpeg import Source, encode_from_children, encode_from_gpu, write_jpegs

ALIKE = 0.999
AIMS = {("ViT-B-32", "pixels"): 20_000, ("ViT-L-14", "pixels"): 2_000, ("ViT-B-32", "JPEG"): 4_000}  # an H200
DISTINCT = 64  # pictures; larger numbers repeat them. Their vectors are compared with those of fp32
WIDTH = 150  # columns
RUNS = 3  # timed runs of each figure, at least


@dataclass(frozen=True, slots=True)
class Scale:
    """Amounts to measure: pictures in a call, seconds for each figure, JPEGs, and the side of the matrix product."""

    at_once: tuple[int, ...]
    seconds: float
    pictures: int
    side: int


FULL = Scale((1, 16, 128, 256, 1024), 3.0, 8_192, 8_192)
SMALL = Scale((1, 4), 0.1, 8, 512)


@dataclass(frozen=True, slots=True)
class Machine:
    """Measured upper limits of the device and of the path to it: operations a second, bytes a second."""

    operations: float
    bytes: float


@click.command()
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N, or cpu for a small trial run.")
@click.option("--model", "models", multiple=True, default=("ViT-B-32", "ViT-L-14"), show_default=True)
@click.option("--pictures", type=int, help="JPEGs to read for each figure.")
@click.option("--decoders", type=int, help="Decode children; by default as many as a worker has.")
def main(device: str, models: tuple[str, ...], pictures: int | None, decoders: int | None) -> None:
    try:
        device = choose_device(device)
    except StartupError as error:
        raise SystemExit(f"bench.gpu: {error.detail}") from None
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that the weights are random, which is intended
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
    """Fill the rows of one model. Returns whether its vectors match those of fp32."""
    precision = choose_precision("auto", device)
    with tempfile.TemporaryDirectory() as scratch:
        file = write_random_weights(model, Path(scratch) / "weights.safetensors")
        whole = open_encoder(model, file, device, "fp32")
        pixels = draw_pictures(max(scale.at_once), whole.preprocessing.size)
        expected, work = encode_in_one_pass(whole, pixels[:DISTINCT]), count_operations(whole, pixels[:1])
        del whole  # frees its weights on the device
        gc.collect()
        encoder = open_encoder(model, file, device, precision)
    found = encoder.encode_images(pixels[:-1])  # in many parts, the last of them padded
    cosine = float((found * expected[np.arange(len(found)) % DISTINCT]).sum(axis=1).min())
    alike = float((expected @ expected.T - 2 * np.eye(len(expected))).max())
    table.add_row(
        model, f"{precision}: least cosine to fp32", f"{cosine:.5f}", f"{ALIKE}", f"two pictures: at most {alike:.3f}"
    )
    machine = measure_machine(device, precision, scale.side, pixels[0].nbytes)
    limits = {"matrix product": machine.operations / work, "copies": machine.bytes / pixels[0].nbytes}
    speed = measure_pixels(model, encoder, pixels, scale, limits, table)
    measure_jpegs(model, encoder, source, speed, table)
    return cosine >= ALIKE


def measure_pixels(
    model: str, encoder: OpenClipEncoder, pixels: Pixels, scale: Scale, limits: dict[str, float], table: Table
) -> float:
    """Time encoding of uint8 arrays. Returns the rate at the worker's batch size, or at the largest size below it."""
    speed, batch = 0.0, Settings().batch_size_for(encoder.device)
    for n in scale.at_once:
        rate = n / time_median(lambda n=n: encoder.encode_images(pixels[:n]), scale.seconds)  # type: ignore[misc]
        speed = rate if n <= batch else speed
        aim = AIMS.get((model, "pixels")) if n == batch else None
        add_row(table, model, f"from pixels, {n} at once", rate, aim, limits)
    return speed


def measure_jpegs(model: str, encoder: OpenClipEncoder, source: Source, speed: float, table: Table) -> None:
    """Time encoding of JPEG files, decoded by children (with and without thumbnails) and by the GPU."""
    batch = Settings().batch_size_for(encoder.device)

    def rate(of: Iterator[Embeddings | Pixels]) -> float:
        began = time.perf_counter()
        done = sum(map(len, of))
        return done / (time.perf_counter() - began)

    for thumbnails in (True, False):
        kind = "with thumbnails" if thumbnails else "without thumbnails"
        alone = rate(encode_from_children(source, None, encoder.preprocessing, batch, thumbnails))
        both = rate(encode_from_children(source, encoder, encoder.preprocessing, batch, thumbnails))
        limits = {"decode children": alone, "encoder": speed}
        add_row(table, model, f"from JPEG, {kind}", both, AIMS.get((model, "JPEG")) if thumbnails else None, limits)
    if encoder.preprocessing.resize != "shortest":
        return
    kind = "nvJPEG" if encoder.device.startswith("cuda") else "torchvision"
    fallen, gpu = encode_from_gpu(source, encoder, batch)
    add_row(table, model, f"from JPEG, read by {kind}, {fallen} fell back", rate(gpu), None, {"encoder": speed})


def add_row(table: Table, model: str, work: str, rate: float, aim: int | None, limits: dict[str, float]) -> None:
    """Add one figure, its aim, and the lowest limit that applies to it."""
    limit = min(limits, key=lambda name: limits[name])
    reached = f"{limit} {format_rate(limits[limit])}: {rate / limits[limit]:.0%}"
    table.add_row(model, work, format_rate(rate), format_rate(aim) if aim else "", reached)


def format_rate(rate: float) -> str:
    """Whole pictures a second; one decimal below a hundred."""
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.1f}/s"


def time_median(work: Callable[[], object], seconds: float) -> float:
    """Median seconds of `work`. The first two runs, which may prepare things, do not count."""
    taken = []
    for n in range(1_000_000):
        began = time.perf_counter()
        work()
        if n > 1:
            taken.append(time.perf_counter() - began)
        if len(taken) >= RUNS and sum(taken) > seconds:
            break
    return statistics.median(taken)


def write_random_weights(architecture: str, path: Path) -> Path:
    """Write seeded random weights of an architecture to a file."""
    torch.manual_seed(7)
    state = open_clip.create_model(architecture).state_dict()
    save_file({name: value.contiguous().clone() for name, value in state.items()}, path)
    return path


def open_encoder(architecture: str, weights: Path, device: str, precision: str) -> OpenClipEncoder:
    """Open the encoder as the service does."""
    located = LocatedModel(f"{architecture}:{weights}", architecture, weights)
    encoder = load_located(located, weights.parent, EncoderOptions(device, precision, "torch"))
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


def draw_pictures(n: int, size: int) -> Pixels:
    """uint8 [n, size, size, 3]: soft shapes. At most DISTINCT pictures differ; then they repeat."""
    dice = np.random.default_rng(7)
    cells = dice.integers(0, 256, (min(n, DISTINCT), 6, 6, 3)).astype(np.uint8)
    made = [np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in cells]
    return np.stack([made[k % len(made)] for k in range(n)])


@torch.inference_mode()
def encode_in_one_pass(encoder: OpenClipEncoder, pixels: Pixels) -> Embeddings:
    """Unit vectors by one plain forward pass, without fixed batch sizes or CUDA graphs."""
    features = encoder.forward(torch.from_numpy(pixels).to(encoder.device))
    return np.asarray(torch.nn.functional.normalize(features, dim=-1).cpu().numpy())


@torch.inference_mode()
def count_operations(encoder: OpenClipEncoder, pixels: Pixels) -> float:
    """Floating-point operations of one picture. Torch's fused attention is off, because the counter does not see it."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            encode_in_one_pass(encoder, pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return float(counter.get_total_flops()) / len(pixels)


def measure_machine(device: str, precision: str, side: int, row_bytes: int) -> Machine:
    """Measure a square matrix product, and the copy of pictures into pinned memory and from there to the device."""
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

    slower = max(time_median(stage, 0.1), time_median(send, 0.1))  # they overlap
    return Machine(2 * side**3 / time_median(product, 0.5), rows.nbytes / slower)


if __name__ == "__main__":
    main()
