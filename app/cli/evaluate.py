"""`sightline evaluate`: measures a running server, and models of this machine, on a set of pairs."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from app.cli import ServerError
from app.cli.client import Client
from app.cli.evaluation_report import FindThumbnail, Result, render_report, show_results
from app.core.errors import SightlineError
from app.core.files import atomic_write
from app.core.settings import Settings
from app.core.types import Preprocessing
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from app.encoder.loader import EncoderOptions, load_encoder
from app.encoder.memory_check import ModelProcesses
from app.service.evaluation import PairEncoder, measure, prepare_files, validate_ks
from app.service.factory import open_pool
from app.sources.local_files import AllowedFolders
from app.sources.pairs import PAIRS_PREFIX, LeftOutNames, PairSet, find_files, read_pairs

POLL_SECONDS = 0.3
STORED_PICTURES = 1_000  # that are downloaded, to measure another model on them
THUMBNAIL = Preprocessing(8)  # of a picture that only its thumbnail is wanted of
THUMBNAIL_SIZE = 240


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What is measured: a set (a file of this machine, or `pairs:` and one of the server's; None for the stored
    captions), the folder of its pictures, and the models of this machine."""

    set: str | None = None
    pictures: str | None = None
    split: str = "test"
    ks: Sequence[int] = ()
    models: Sequence[str] = ()

    def to_request(self) -> dict[str, Any]:
        """The fields of the server's call."""
        pictures = {} if self.pictures is None else {"pictures": self.pictures}
        return {"split": self.split, "k": validate_ks(self.ks), **pictures}


@dataclass(slots=True)
class _LocalSet:
    """A set on this machine: its pairs, and the file of each picture by its number."""

    pairs: PairSet
    files: Mapping[int, Path]
    unknown: LeftOutNames = field(default_factory=LeftOutNames)


def evaluate(
    settings: Settings,
    open_client: Callable[[], Client],
    options: EvaluationOptions,
    console: Console,
    report: Path | None,
    *,
    as_json: bool,
) -> None:
    """Measure, print the figures, and write the report. Raises SightlineError, ServerError."""
    progress = Console(stderr=True)
    with open_pool(settings) as pool, tempfile.TemporaryDirectory(prefix="sightline-evaluate-") as folder:
        thumbnails = _Thumbnails(pool, Path(folder))
        results: list[Result] = []
        if not (options.models and options.pictures):
            with open_client() as client:
                local = None
                if options.models:
                    if options.set is not None:
                        raise click.UsageError("--model needs the pictures of SET: give their folder with --pictures")
                    local = download_set(client, Path(folder), progress)
                results.append(evaluate_on_server(client, options, local, Path(folder), progress))
                show_warnings(results[0])
                if report is not None:
                    thumbnails.load_stored(client, results[0])
        if options.models:
            chosen = local if not options.pictures else read_local_set(pool, options)
            assert chosen is not None
            thumbnails.files = {chosen.pairs.pictures[n]: path for n, path in chosen.files.items()}
            for name in options.models:
                results.append(evaluate_model(settings, pool, name, chosen, options.ks, progress))
                show_warnings(results[-1])
        if as_json:
            click.echo(json.dumps(results if len(results) > 1 else results[0], ensure_ascii=False, indent=2))
        else:
            show_results(results, console)
        if report is not None:
            write_report(report, results, options, thumbnails.find)


def evaluate_on_server(
    client: Client, options: EvaluationOptions, local: _LocalSet | None, folder: Path, console: Console
) -> Result:
    """The result of the server's own evaluation, of this set or of `local`, whose pictures are named by their ids."""
    request = options.to_request()
    path: Path | None = None
    if local is not None:
        path = folder / "set.jsonl"
        rows = zip(local.pairs.pictures, local.pairs.texts, strict=True)
        path.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in rows), "utf-8")
    elif options.set is None:
        request |= {"source": "captions"}
    elif options.set.startswith(PAIRS_PREFIX):
        request |= {"source": options.set}
    else:
        path = Path(options.set)
    job = follow_task(client, client.begin_task("/v1/evaluations", request, path), "measuring the server", console)
    if job.get("error"):
        raise ServerError(job["error"]["detail"])
    result: Result = job["result"]
    return result


def follow_task(client: Client, job: dict[str, Any], what: str, console: Console) -> dict[str, Any]:
    """The job at its end, succeeded or failed. Raises ServerError for one that was cancelled."""
    with show_steps(console, what) as (progress, task):
        while job["state"] in ("queued", "running", "paused"):
            progress.update(task, total=job["total"] or None, completed=job["done"])
            time.sleep(POLL_SECONDS)
            job = client.job(job["id"])
    if job["state"] == "cancelled":
        raise ServerError(f"the job {job['id']} was cancelled")
    return job


def download_set(client: Client, folder: Path, console: Console) -> _LocalSet:
    """The newest stored pictures with captions, and their files. Raises ServerError if there are none."""
    captions = dict(client.list_captions(STORED_PICTURES))
    if not captions:
        raise ServerError("no picture of the collection has a caption: give a SET and --pictures")
    pairs = PairSet.of((id, [" ".join(text.split())]) for id, text in captions.items())
    files = {}
    with show_steps(console, "fetching the pictures", len(captions)) as (progress, task):
        for n, id in enumerate(pairs.pictures):
            files[n] = folder / f"picture-{n}"
            client.download(id, files[n])
            progress.advance(task)
    return _LocalSet(pairs, files)


def read_local_set(pool: DecodePool, options: EvaluationOptions) -> _LocalSet:
    """A set of this machine, and the pictures of a folder here."""
    if options.set is None or options.set.startswith(PAIRS_PREFIX):
        raise click.UsageError("--model with --pictures needs a SET on this machine")
    path, root = Path(options.set), Path(options.pictures or "").absolute()
    if not path.is_file():
        raise ServerError(f"{path} cannot be read: there is no such file")
    pairs = read_pairs(pool, path, path.suffix, options.split)
    files, unknown = find_files(AllowedFolders((root,)), str(root), pairs)
    return _LocalSet(pairs, files, unknown)


def evaluate_model(
    settings: Settings, pool: DecodePool, name: str, local: _LocalSet, ks: Sequence[int], console: Console
) -> Result:
    """Load a model, embed the set with it, and measure it; nothing is stored."""
    encoder = load_encoder(name, settings.models, EncoderOptions.of(settings, ModelProcesses(servers=1)))
    pair_encoder = PairEncoder(encoder, pool, encoder.encode_texts, encoder.encode_images)
    with show_steps(console, f"measuring {name}", len(local.files) + len(local.pairs.texts)) as (progress, task):

        def advance(count: int) -> None:
            progress.advance(task, count)

        prepared = prepare_files(local.pairs, local.files, local.unknown, pair_encoder, advance)
        return measure(prepared, pair_encoder, validate_ks(ks), advance)


@contextmanager
def show_steps(console: Console, what: str, total: int | None = None) -> Iterator[tuple[Progress, Any]]:
    with Progress(console=console, transient=True) as progress:
        yield progress, progress.add_task(what, total=total)


def show_warnings(result: Result) -> None:
    for one in result.get("warnings", ()):
        click.echo(f"warning: {one['detail']}", err=True)


def write_report(path: Path, results: Sequence[Result], options: EvaluationOptions, find: FindThumbnail) -> None:
    """Raises ServerError for a file that cannot be written."""
    title = f"How good is the search? {options.set or 'the stored captions'}"
    try:
        with atomic_write(path) as file:
            file.write(render_report(results, title, find))
    except OSError as error:
        raise ServerError(f"{path} cannot be written: {error.strerror}") from None


class _Thumbnails:
    """The thumbnails of pictures: the server's of stored ones, by id, and those of local `files`, by name."""

    def __init__(self, pool: DecodePool, folder: Path) -> None:
        self.files: Mapping[str, Path] = {}
        self._pool = pool
        self._folder = folder
        self._stored: dict[str, bytes] = {}

    def load_stored(self, client: Client, result: Result) -> None:
        for miss in (*result["misses"]["text_to_image"], *result["misses"]["image_to_text"]):
            for picture in (miss["image"], miss["first"]):
                if isinstance(picture, dict) and (id := picture.get("id")) and id not in self._stored:
                    self._stored[id] = client.thumbnail(id)

    def find(self, picture: Mapping[str, str]) -> bytes | None:
        if (stored := self._stored.get(picture.get("id", ""))) is not None:
            return stored
        path = self.files.get(picture.get("name", ""))
        if path is None:
            return None
        thumbnail = self._folder / "thumbnail.jpg"
        try:
            limits = self._pool.picture_limits
            self._pool.submit(decode_picture, path, THUMBNAIL, limits, OutputFile(thumbnail), THUMBNAIL_SIZE).result()
        except SightlineError:
            return None
        return thumbnail.read_bytes()
