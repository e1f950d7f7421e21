"""Print whether every format of pictures is decoded right, how fast, and what hostile files do. For ADR 59.

`python -m bench.experiments.formats [set] [rates] [large] [hostile]`: the small files of `bench.picture_files` and
their colour errors (ΔE, CIE 1976); pictures of 12 megapixels a second of one decode child; JPEGs of 50 to 200
megapixels; and 200 mutations of each of the newer formats. Everything runs in decode children, as in the service.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.core.errors import SightlineError
from app.core.picture_formats import FORMATS
from app.core.types import Preprocessing
from app.decode.limits import PictureLimits
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from bench.picture_files import (
    NEW_FORMATS,
    PictureFile,
    draw_chart,
    encode,
    encode_heic,
    make_dng,
    make_large_jpegs,
    make_set,
    measure_colour_error,
    mutate,
)

SIDE = 224
LIMITS = PictureLimits(formats=frozenset(FORMATS))
MAX_ERROR = 3.0
MUTATIONS = 200
LONGEST = 15.0
RATE_SIZE = (4000, 3000)
ROUNDS = 5


class Decoder:
    """One decode child that gets files one by one, and counts how often it died."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = DecodePool(1, picture_limits=LIMITS)
        self._pool.prewarm()

    def decode(self, content: bytes) -> DecodedPicture:
        """Decode as the service does, with a thumbnail. Raises SightlineError."""
        path = self._folder / "picture"
        path.write_bytes(content)
        preprocessing = Preprocessing(SIDE, resize="squash")
        thumbnail = OutputFile(self._folder / "thumbnail.webp")
        return self._pool.submit(decode_picture, path, preprocessing, LIMITS, thumbnail).result()

    def close(self) -> None:
        self._pool.close()


def is_right(file: PictureFile, found: DecodedPicture) -> bool:
    """Whether format, upright size and colours are those of the file."""
    height, width = file.truth.shape[:2]
    shape = (found.format, found.width, found.height, found.animated)
    return shape == (file.format, width, height, False) and measure_errors(file, found) < MAX_ERROR


def measure_errors(file: PictureFile, found: DecodedPicture) -> float:
    return float(measure_colour_error(found.pixels, file.truth).max())


def print_set(console: Console, decoder: Decoder) -> None:
    """Each format with its files, those that are wrong, and its colour errors."""
    wrong: list[str] = []
    errors: dict[str, list[float]] = {}
    for file in make_set():
        try:
            found = decoder.decode(file.content)
        except SightlineError as error:
            wrong.append(f"{file.name}: {error.detail}")
            continue
        errors.setdefault(file.format, []).extend(measure_colour_error(found.pixels, file.truth))
        if not is_right(file, found):
            wrong.append(file.name)
    table = Table("format", "fields of colour", "mean ΔE", "largest ΔE", title="the set")
    for name, values in sorted(errors.items()):
        table.add_row(name, str(len(values)), f"{np.mean(values):.2f}", f"{max(values):.2f}")
    every = [one for values in errors.values() for one in values]
    table.add_row("all", str(len(every)), f"{np.mean(every):.2f}", f"{max(every):.2f}")
    console.print(table, f"{len(every) // 12} files decoded; wrong: {', '.join(wrong) or 'none'}")


def print_rates(console: Console, decoder: Decoder) -> None:
    """Pictures a second, with the texture of noise, in turns."""
    noise = np.random.default_rng(0).integers(-8, 8, (RATE_SIZE[1], RATE_SIZE[0], 1))
    image = Image.fromarray(np.clip(np.asarray(draw_chart(RATE_SIZE)) + noise, 0, 255).astype(np.uint8))
    makers: dict[str, Callable[[], bytes]] = {
        "jpeg": lambda: encode(image, "JPEG", quality=85),
        "png": lambda: encode(image, "PNG", compress_level=1),
        "webp": lambda: encode(image, "WEBP", quality=85, method=0),
        "avif": lambda: encode(image, "AVIF", speed=10),
        "heic": lambda: encode_heic(image, 60),
        "tiff (LZW)": lambda: encode(image, "TIFF", compression="tiff_lzw"),
        "bmp": lambda: encode(image, "BMP"),
        "jxl": lambda: encode(image, "JXL", effort=3),
        "jpeg2000": lambda: encode(image, "JPEG2000", quality_mode="rates", quality_layers=[20]),
        "raw (DNG)": lambda: make_dng(encode(image, "JPEG", quality=85), 1, RATE_SIZE),
    }
    files = {name: make() for name, make in makers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, content in files.items():
            began = time.monotonic()
            decoder.decode(content)
            seconds[name].append(time.monotonic() - began)
    table = Table("format", "MB", "pictures/s", "of a JPEG's", title="12 megapixels, one decode child")
    fastest = min(seconds["jpeg"])
    for name, taken in seconds.items():
        size = f"{len(files[name]) / 1e6:.1f}"
        table.add_row(name, size, f"{1 / min(taken):.1f}", f"{fastest / min(taken):.2f}")
    console.print(table)


def print_large(console: Console, decoder: Decoder) -> None:
    """JPEGs of phones, at the default limits."""
    table = Table("file", "MB", "outcome", "seconds", "largest ΔE", title="sizes of phones")
    for progressive in (False, True):
        for file in make_large_jpegs(progressive=progressive):
            began = time.monotonic()
            try:
                found = decoder.decode(file.content)
                said, error = f"{found.width} × {found.height}", f"{measure_errors(file, found):.2f}"
            except SightlineError as refusal:
                said, error = refusal.detail, ""
            name = file.name + (", progressive" if progressive else "")
            table.add_row(name, f"{len(file.content) / 1e6:.1f}", said, f"{time.monotonic() - began:.1f}", error)
    console.print(table)


def print_hostile(console: Console, decoder: Decoder) -> None:
    """What becomes of each mutation; an error that is none of ours would end the program."""
    table = Table("format", "files", "outcomes", "slowest", title="mutations")
    for kind in NEW_FORMATS:
        outcomes: Counter[str] = Counter()
        slowest = 0.0
        for _, content in mutate(kind, MUTATIONS):
            began = time.monotonic()
            try:
                decoder.decode(content)
                outcomes["decoded"] += 1
            except SightlineError as error:
                outcomes[error.code if "crashed" not in error.detail else "child crashed"] += 1
            slowest = max(slowest, time.monotonic() - began)
        listed = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
        table.add_row(
            kind, str(outcomes.total()), listed, f"{slowest:.1f} s{'' if slowest <= LONGEST else ' TOO SLOW'}"
        )
    console.print(table)


PARTS = {"set": print_set, "rates": print_rates, "large": print_large, "hostile": print_hostile}


def main() -> None:
    """Print the parts that are named, or all."""
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        decoder = Decoder(Path(folder))
        for name in sys.argv[1:] or PARTS:
            PARTS[name](console, decoder)
        decoder.close()


if __name__ == "__main__":
    main()
