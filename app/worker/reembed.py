"""`python -m app.worker.reembed ORDER PARENT`: fills the space of another model beside the one that serves.

A server starts it for a job. It decodes and encodes what has a vector in the present space and none in the next one,
again and again, until the server ends it. Everything is in the database: killed, the next one goes on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from app.core.backoff import Backoff
from app.core.connection_string import find_secrets
from app.core.errors import BlobMissing, SightlineError, StartupError, describe_error
from app.core.logging import configure
from app.core.process import die_with_parent
from app.core.settings import Settings
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.pool import DecodePool
from app.encoder.loader import EncoderOptions, load_encoder
from app.encoder.memory_check import ModelProcesses
from app.encoder.protocol import Encoder, Pixels, check_vectors
from app.encoder.reading import TextReader
from app.service.data_dir import open_library
from app.service.factory import open_pool
from app.service.reembed import FillOrder
from app.storage.library import Library
from app.storage.tables import embeddings, images, next_space, texts
from app.storage.tables.next_space import LogPart, PresentEntry, Superseded

log = logging.getLogger(__name__)

NICENESS = 15  # above that of workers, so below their priority: new pictures come first
BATCHES_AHEAD = 2
POLL_SECONDS = 0.1
FIRST_PAUSE, LAST_PAUSE = 1.0, 8.0  # seconds to wait while the disk or the database is at fault
ATTEMPTS = 3  # at a picture that a fault of the machine keeps from being decoded
MEASURED = 64  # pictures whose encoding is timed


class SpaceFiller:
    """Encodes what the space of `encoder` lacks, for one job."""

    def __init__(self, library: Library, encoder: Encoder, pool: DecodePool, job_id: str, batch_size: int) -> None:
        self._library = library
        self._database = library.database
        self._encoder = encoder
        self._reader = TextReader(encoder)
        self._pool = pool
        self._job_id = job_id
        self._batch_size = batch_size
        self._looked: dict[LogPart, int] = {}  # through each log of the present space, up to this entry
        self._finished = -1
        self._backoff = Backoff(FIRST_PAUSE, LAST_PAUSE)

    def run(self) -> None:
        """Fill the space and follow the present one, for ever. Raises Superseded when the job has ended."""
        count_commits = self._database.watch_commits()
        while True:
            commits = count_commits()
            try:
                self.fill()
                self._backoff.reset()
            except SightlineError as error:
                if not error.retryable:
                    raise
                log.warning("waiting: %s", error.detail)
                time.sleep(self._backoff.next())
            while count_commits() == commits:
                time.sleep(POLL_SECONDS)

    def fill(self) -> None:
        """Encode all that the present space has and the next one lacks."""
        parts, last = self._database.read(lambda c: (next_space.list_parts(c), embeddings.get_last_seq_of_all(c)))
        for part in parts:
            for entries, vectors in self._encode_part(part):
                made = [(entry, vector) for entry, vector in zip(entries, vectors, strict=True) if vector is not None]
                failed = len(entries) - len(made)
                self._database.write(
                    partial(next_space.add_vectors, job_id=self._job_id, part=part, made=made, failed=failed)
                )
                self._looked[part] = entries[-1].seq
            self._looked[part] = max(last, self._looked.get(part, 0))
        if last != self._finished:
            self._database.write(lambda c: next_space.finish_round(c, self._job_id, last))
            self._finished = last

    def measure(self) -> float | None:
        """Pictures a second, decoded and encoded as `fill` does; None where there are none."""
        parts = [part for part in self._database.read(next_space.list_parts) if part.target == "images"]
        done, began = 0, time.perf_counter()
        for part in parts:
            for entries, _ in islice(self._encode_part(part), -(-MEASURED // self._batch_size)):
                done += len(entries)
            if done >= MEASURED:
                break
        return done / (time.perf_counter() - began) if done else None

    def _encode_part(self, part: LogPart) -> Iterator[tuple[list[PresentEntry], list[bytes | None]]]:
        """Batches of entries with their vectors, None for a picture of which none can be made."""
        batches = self._list_batches(part)
        if part.target == "texts":
            for entries in batches:
                yield entries, self._encode_texts(entries)
            return
        ahead: deque[tuple[list[PresentEntry], list[Future[DecodedPicture] | None]]] = deque()
        for entries in batches:
            ahead.append((entries, self._start_decoding(entries)))
            if len(ahead) >= BATCHES_AHEAD:
                yield self._encode_pictures(*ahead.popleft())
        for one in ahead:
            yield self._encode_pictures(*one)

    def _list_batches(self, part: LogPart) -> Iterator[list[PresentEntry]]:
        space, size = self._encoder.space.fingerprint, self._batch_size
        after = self._looked.get(part, 0)
        while entries := self._database.read(
            partial(next_space.list_lacking, part=part, space=space, after=after, limit=size)
        ):
            yield entries
            after = entries[-1].seq

    def _encode_texts(self, entries: Sequence[PresentEntry]) -> list[bytes | None]:
        rows = self._database.read(lambda c: texts.get_by_keys(c, [entry.key for entry in entries]))
        there = [entry.key for entry in entries if entry.key in rows]
        vectors = dict(zip(there, self._reader.encode([rows[key].text for key in there]), strict=True))
        return [vectors.get(entry.key) for entry in entries]

    def _start_decoding(self, entries: Sequence[PresentEntry]) -> list[Future[DecodedPicture] | None]:
        rows = self._database.read(lambda c: images.get_by_keys(c, [entry.key for entry in entries]))
        return [self._decode(rows[entry.key].sha256) if entry.key in rows else None for entry in entries]

    def _decode(self, sha256: str) -> Future[DecodedPicture] | None:
        try:
            file = self._library.blobs.fetch(sha256)
        except BlobMissing:
            return None
        decoding = self._pool.submit(decode_picture, file.path, self._encoder.preprocessing, self._pool.picture_limits)
        decoding.add_done_callback(lambda _: file.close())
        return decoding

    def _encode_pictures(
        self, entries: list[PresentEntry], decoding: list[Future[DecodedPicture] | None]
    ) -> tuple[list[PresentEntry], list[bytes | None]]:
        pixels = [self._finish_decoding(entry, future) for entry, future in zip(entries, decoding, strict=True)]
        vectors = iter(self._encode([one.pixels for one in pixels if one is not None]))
        return entries, [None if one is None else next(vectors) for one in pixels]

    def _finish_decoding(self, entry: PresentEntry, decoding: Future[DecodedPicture] | None) -> DecodedPicture | None:
        """The pixels; None if the picture is gone or cannot be decoded. A fault of the machine is waited out."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self._backoff.next())
                (decoding,) = self._start_decoding([entry])
            if decoding is None:
                return None
            try:
                return decoding.result()
            except Exception as error:
                log.warning("a picture cannot be decoded: %s", describe_error(error))
                if not (isinstance(error, SightlineError) and error.retryable):
                    return None
        return None

    def _encode(self, pixels: Sequence[Pixels]) -> list[bytes | None]:
        """The vectors, of one forward pass; if that fails, one by one, so that a bad picture fails alone."""
        if not pixels:
            return []
        try:
            found = check_vectors(self._encoder.encode_images(np.stack(pixels)))
        except Exception as error:
            if len(pixels) == 1:
                log.warning("a picture cannot be encoded: %s", describe_error(error))
                return [None]
            return [vector for one in pixels for vector in self._encode([one])]
        return [vector.astype("<f4").tobytes() for vector in found]


def run_order(order: FillOrder, settings: Settings, say: Callable[[dict[str, Any]], None]) -> None:
    """Load the model, `say` what it is, and fill its space; a dry run measures it instead.

    Raises StartupError where it cannot be loaded, Superseded when the job has ended.
    """
    processes = ModelProcesses(servers=1, workers=1)  # this one, and the server, which loads it before the change
    options = EncoderOptions.of(settings, processes, bulk=True)
    options = replace(options, precision=order.precision or options.precision)
    with closing(open_library(settings)) as library:
        encoder = load_encoder(order.model, settings.models, options)
        space = encoder.space
        if space.fingerprint in {part.space for part in library.database.read(next_space.list_parts)}:
            raise StartupError(f"the data directory belongs to the model {space.model} already")
        with open_pool(settings, encoder.device) as pool:
            batch_size = settings.batch_size_for(encoder.device)
            filler = SpaceFiller(library, encoder, pool, order.job_id, batch_size)
            rate = filler.measure() if order.dry_run else None
            if not order.dry_run:
                library.database.write(lambda c: next_space.begin(c, order.job_id, space, order.precision))
            say({"model": space.model, "space": space.fingerprint, "d": space.d, "rate": rate})
            if not order.dry_run:
                filler.run()


def main(argument: str, parent: int) -> int:
    """Do what `argument` orders; the exit code. What the server is to know are lines of JSON on stdout."""
    die_with_parent(parent)
    os.nice(NICENESS)
    settings = Settings()
    configure(settings.log_level, json=settings.log_format != "text", secrets=find_secrets(settings.database))

    def say(fields: dict[str, Any]) -> None:
        print(json.dumps(fields), flush=True)

    try:
        run_order(FillOrder(**json.loads(argument)), settings, say)
    except Superseded:
        return 0
    except Exception as error:
        log.warning("the space cannot be filled", exc_info=not isinstance(error, SightlineError))
        say({"error": describe_error(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
