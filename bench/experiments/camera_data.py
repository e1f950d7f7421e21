"""What reading camera data costs: the decode of photographs of 12 megapixels with EXIF, XMP and IPTC, with and without.

    .venv/bin/python -m bench.experiments.camera_data [ROUNDS]

Each round decodes the same pictures both ways, in turns, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from app.core.types import CameraData, Preprocessing
from app.decode import picture
from app.decode.exif import read_camera_data
from app.decode.limits import PictureLimits

SIZE = (4000, 3000)
PICTURES = 4
PREPROCESSING = Preprocessing(224)
DC = "http://purl.org/dc/elements/1.1/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMP = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description xmlns:dc="{DC}">'
    + "<dc:subject><rdf:Bag>"
    + "".join(f"<rdf:li>word {n}</rdf:li>" for n in range(20))
    + "</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"
).encode()


def make_photograph(seed: int) -> bytes:
    """A JPEG with the data of a phone: 50 entries of EXIF, a maker note of 20 KiB, place, 20 keywords."""
    noise = np.random.default_rng(seed)
    levels = noise.integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Apple", "iPhone 12", 1
    exif.get_ifd(0x8769).update({0x9003: "2019:07:04 12:00:00", 0x9011: "+02:00", 0x829A: 0.004, 0x8827: 400})
    exif.get_ifd(0x8769).update({0x927C: noise.bytes(20_000), 0xA434: "back camera"})
    exif.get_ifd(0x8769).update({0xA000 + n: n for n in range(0x10, 0x40)})
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 30.0), 3: "E", 4: (8.0, 30.0, 0.0)})
    out = io.BytesIO()
    Image.fromarray(levels).resize(SIZE, Image.Resampling.BICUBIC).save(out, "JPEG", quality=90, exif=exif, xmp=XMP)
    return out.getvalue()


def decode_all(paths: list[Path], *, reads: bool) -> float:
    """Seconds of the processor to decode each picture once with its thumbnail."""
    picture.read_camera_data = read_camera_data if reads else lambda image: CameraData()  # type: ignore[attr-defined]
    began = time.process_time()
    for path in paths:
        picture.decode_picture(path, PREPROCESSING, PictureLimits(), path.with_suffix(".thumbnail.jpg"))
    return time.process_time() - began


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{n}.jpg") for n in range(PICTURES)]
        for n, path in enumerate(paths):
            path.write_bytes(make_photograph(n))
        decode_all(paths, reads=True)
        ratios, seconds = [], []
        for n in range(rounds):
            order = (True, False) if n % 2 else (False, True)
            took = {reads: decode_all(paths, reads=reads) for reads in order}
            ratios.append(took[True] / took[False])
            seconds.append(took[False] / PICTURES)
        began = time.process_time()
        for path in paths * 10:
            with Image.open(path) as image:
                read_camera_data(image)
        alone = (time.process_time() - began) / (10 * PICTURES)
        began = time.process_time()
        for path in paths * 10:
            with Image.open(path) as image:
                image.getexif()
        opened = (time.process_time() - began) / (10 * PICTURES)
    print(f"decode of 12 megapixels: {1e3 * statistics.median(seconds):.1f} ms")
    print(f"reading camera data: {1e3 * (alone - opened):.2f} ms")
    print(f"decode with / without, median of {rounds}: {statistics.median(ratios):.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
