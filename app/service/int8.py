"""`sightline convert --precision int8`: a model whose image tower is in int8, calibrated and judged by the pictures of
a collection, or by the demo gallery where that has too few."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from app.core.errors import SightlineError, StartupError
from app.core.settings import Settings
from app.core.types import Preprocessing
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.encoder.hub import LoadProgress
from app.encoder.int8 import Int8Report, Samples, add_int8, require_nncf
from app.encoder.openvino import CompiledModelInfo
from app.encoder.portable import export_model
from app.encoder.protocol import Pixels
from app.service.data_dir import DATABASE_NAME, open_library
from app.service.demo_gallery import ARCHIVE, find_gallery
from app.service.factory import open_pool
from app.storage.blobs import LocalFile
from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import collections, images

ENOUGH = 300  # pictures of a collection; with fewer, the gallery takes their part
CALIBRATION = 300  # pictures at most
JUDGED = 1_000  # captions at most
REPORT_FILE = "int8.json"
GALLERY = "the demo gallery"
Opener = Callable[[], LocalFile]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where pictures come from, how each is opened, and their captions; no captions where they have too few."""

    name: str
    openers: Sequence[Opener]
    captions: Sequence[str] = ()


def convert_to_int8(
    settings: Settings, name: str, folder: Path, progress: LoadProgress | None = None, *, force: bool = False
) -> Int8Report:
    """Write the model `name` in int8 into a new folder, with the report beside it.

    Raises StartupError: without NNCF, where the report refuses it unless `force`, and as `export_model`.
    """
    require_nncf()
    reports: list[Int8Report] = []

    def improve(towers: Path) -> None:
        preprocessing = CompiledModelInfo.read(towers).preprocessing
        with open_pictures(settings) as sources, open_pool(settings) as pool:
            samples = take_samples(sources, pool, preprocessing)
        reports.append(add_int8(towers, samples, force=force))
        (towers.parent / REPORT_FILE).write_text(json.dumps(asdict(reports[0]), indent=1) + "\n", "utf-8")

    export_model(name, settings.models, folder, progress, improve)
    return reports[0]


@contextmanager
def open_pictures(settings: Settings) -> Iterator[list[Pictures]]:
    """The pictures of the collection, those of them that have captions, and the gallery: each if there are enough."""
    with tempfile.TemporaryDirectory() as scratch:
        gallery = _open_gallery(Path(scratch))
        if not settings.is_cluster and not (settings.data_dir / DATABASE_NAME).is_file():
            yield [gallery]
            return
        with closing(open_library(settings)) as library:
            yield [*_open_collection(library, settings.collection), gallery]


def _open_gallery(scratch: Path) -> Pictures:
    with zipfile.ZipFile(find_gallery() / ARCHIVE) as archive:
        said = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        files = {line["caption"]: line["file"] for line in said}  # each caption once
        archive.extractall(scratch)
    return Pictures(GALLERY, [partial(LocalFile, scratch / file) for file in files.values()], list(files))


def _open_collection(library: Library, name: str) -> list[Pictures]:
    """The captioned pictures, if there are enough, and all, if there are enough of these. Raises NotFound."""

    def work(c: Connection) -> list[tuple[str, str | None]]:
        collections.require(c, name)
        keys = images.list_ready_keys(c, name)
        captioned = images.list_captioned_keys(c, name)
        wanted = spread(keys, CALIBRATION + JUDGED) + spread(captioned, CALIBRATION + JUDGED)
        found = images.get_by_keys(c, list(dict.fromkeys(wanted)))
        return [(found[key].sha256, found[key].caption) for key in sorted(found)]

    rows = library.database.read(work)
    said = list({caption: sha256 for sha256, caption in rows if caption}.items())
    described = f"collection {name}"
    sources = []
    for pairs in (said, [("", sha256) for sha256, _ in rows]):
        if len(pairs) >= ENOUGH:
            openers = [partial(library.blobs.fetch, sha256) for _, sha256 in pairs]
            sources.append(Pictures(described, openers, [caption for caption, _ in pairs if caption]))
    return sources


def take_samples(sources: Sequence[Pictures], pool: DecodePool, preprocessing: Preprocessing) -> Samples:
    """Calibrate by the first source, and judge by the first with captions; by no picture both."""
    first, judge = sources[0], next(one for one in sources if one.captions)
    half = min(CALIBRATION, len(first.openers) // 2)
    chosen = spread(range(len(first.openers)), half)
    left: Sequence[int] = range(len(judge.openers))
    if judge is first:
        left = sorted(set(left) - set(chosen))
    left = spread(left, JUDGED)
    calibration = decode_all([first.openers[n] for n in chosen], pool, preprocessing)
    pictures = decode_all([judge.openers[n] for n in left], pool, preprocessing)
    readable = [one for one in calibration if one is not None]
    judged = [(one, judge.captions[n]) for n, one in zip(left, pictures, strict=True) if one is not None]
    if not readable or not judged:
        raise StartupError(f"no picture of {first.name} can be read; run `sightline verify`")
    return Samples(
        np.stack(readable),
        np.stack([one for one, _ in judged]),
        [caption for _, caption in judged],
        f"{first.name} ({len(readable):,} pictures)",
        judge.name,
    )


def decode_all(openers: Sequence[Opener], pool: DecodePool, preprocessing: Preprocessing) -> list[Pixels | None]:
    """The pixels of each picture; None for one that is gone or cannot be read."""

    def decode(open_picture: Opener) -> Pixels | None:
        try:
            with open_picture() as file:
                return pool.submit(decode_picture, file.path, preprocessing, pool.picture_limits).result().pixels
        except SightlineError as error:
            if error.retryable:
                raise
            return None

    with ThreadPoolExecutor(2 * pool.workers) as threads:
        return list(threads.map(decode, openers))


def spread(values: Sequence[int], count: int) -> list[int]:
    """`count` of the values, evenly chosen; all if there are no more."""
    step = max(1.0, len(values) / count) if count else 1.0
    return [values[int(n * step)] for n in range(min(count, len(values)))]
