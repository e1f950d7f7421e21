"""Re-embedding while serving: a job that moves all collections of a data directory to another model.

A child process (`app.worker.reembed`) fills the space of the new model beside the one that serves. When nothing is
left to do, the server loads the model beside the present one, lets no worker begin a picture, and one transaction lets
the spaces change places. Killed before that transaction, the server goes on with the job when it starts again; killed
after it, it starts with the new model. A job that is cancelled or fails leaves the old space as it was.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Any

from app.core.errors import ModelUnavailable, Overloaded, SightlineError, StartupError, StorageFull, Validation
from app.core.locks import StopRequested
from app.core.picture_formats import FORMATS, SETTING
from app.core.process import spawn
from app.core.settings import Settings
from app.encoder.catalogue import CATALOGUE, resolve_alias
from app.encoder.golden import encode_golden
from app.encoder.hub import LoadProgress
from app.encoder.loader import EncoderOptions, check_model_name, estimate_memory, is_on_hub, locate_model, read_width
from app.encoder.memory_check import ModelProcesses, available_memory
from app.encoder.weights import LocatedModel, count_parameters
from app.service.health import MIN_FREE_BYTES
from app.service.search_service import LoadedModel, SearchService
from app.service.tasks import TaskContext, TaskStopped
from app.storage.database import Database
from app.storage.sql import Connection
from app.storage.tables import images, next_space, tasks, texts

log = logging.getLogger(__name__)

KIND = tasks.REEMBED

POLL_SECONDS = 0.2
CATCH_UP_SECONDS = 5.0  # for the indexes of the new space to take in the last vectors
TEXTS_AT_ONCE = 500  # that are looked at, and changed by one commit
LATE_TEXTS = 32  # texts that the change itself may encode: nothing else is written meanwhile
PAGE_BYTES, PAGE_ROOM = 4096, 4061  # of SQLite: a row that fits into a page is not split
ROW_BYTES, ENTRY_BYTES = 40, 76  # of a vector's row besides the vector, and of its entries in two indexes of SQLite
INDEX_SHARE = 1.0  # of the bytes of the vectors, for the snapshots of their indexes
MAX_DEATHS = 3  # of the child
MAX_SAID = 1 << 20  # bytes that a child may say


@dataclass(frozen=True, slots=True)
class FillOrder:
    """For which job the child fills the space of which model; `dry_run` only loads it and measures how fast it is."""

    job_id: str
    model: str
    precision: str | None = None
    dry_run: bool = False

    def to_json(self) -> str:
        """The argument of the process."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class ReembedPlan:
    """What a change to a model costs, as far as that is known before the model is loaded.

    `vector_bytes` are for vectors and snapshots of indexes, `model_bytes` for files to be downloaded and converted;
    `precomputed` is how many waiting pictures brought a vector of the present space, which is of no use afterwards.
    """

    model: str
    present_model: str
    pictures: int
    texts: int
    precomputed: int
    d: int
    vector_bytes: int
    model_bytes: int
    free_bytes: int
    memory_bytes: int | None
    free_memory_bytes: int | None

    def check(self, settings: Settings) -> None:
        """Raise StorageFull or Overloaded where disk or memory does not suffice."""
        self.check_disk()
        self.check_memory(settings)

    def check_disk(self, share: float = 1.0) -> None:
        """Raise StorageFull where the disk has no room for this share of the vectors, and the model."""
        need = int(self.vector_bytes * share) + self.model_bytes
        if need + MIN_FREE_BYTES > self.free_bytes:
            raise StorageFull(
                f"the vectors and files of {self.model} need about {format_size(need)} beside those of"
                f" {self.present_model}, and {format_size(self.free_bytes)} of the disk are free"
            )

    def check_memory(self, settings: Settings) -> None:
        need, have = self.memory_bytes or 0, self.free_memory_bytes
        if have is not None and need > have and not settings.ignore_memory:
            raise Overloaded(
                f"{self.model} needs at least {format_size(need)} of memory beside {self.present_model}, and"
                f" {format_size(have)} are available; end other programs, choose a smaller model, or set"
                " SIGHTLINE_IGNORE_MEMORY=true to try it"
            )


class ModelChanger:
    """Plans and does the change of the model of a data directory. `clean` removes what a job has left behind."""

    def __init__(
        self, settings: Settings, database: Database, search: SearchService, clean: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._database = database
        self._search = search
        self._clean = clean

    def plan(self, model: str, precision: str | None = None) -> ReembedPlan:
        """What a change to `model` costs.

        Raises Validation for a name of no model and for the present model, ModelUnavailable while that is loading.
        """
        present, settings = self._search.model.encoder.space, self._settings
        name = resolve_alias(model)
        try:
            check_model_name(name, settings.models)
            located = find_files(name, settings)
            memory = self._estimate_memory(located, precision) if located else None
        except StartupError as error:
            raise Validation(error.detail) from None
        if name == present.model and (is_on_hub(name) or ":" not in name):  # a file may have other weights now
            raise Validation(f"the data directory belongs to the model {name} already")
        check_stored_formats(self._database, settings)
        counted, precomputed = self._database.read(lambda c: (next_space.count_work(c), next_space.count_given(c)))
        entry = next((one for one in CATALOGUE if one.name == name), None)
        d = (read_width(located) if located else None) or (entry.d if entry else present.d)
        return ReembedPlan(
            model=name,
            present_model=present.model,
            pictures=counted["images"],
            texts=counted["texts"],
            precomputed=precomputed,
            d=d,
            vector_bytes=estimate_vector_bytes(counted["images"] + counted["texts"], d),
            model_bytes=converted_bytes(located) if located else (entry.download * 1_500_000 if entry else 0),
            free_bytes=shutil.disk_usage(settings.data_dir).free,
            memory_bytes=memory,
            free_memory_bytes=available_memory(),
        )

    def _estimate_memory(self, located: LocatedModel, precision: str | None) -> int:
        processes = ModelProcesses(servers=1, workers=1)
        options = EncoderOptions(
            self._settings.device, precision or self._settings.precision, self._settings.runtime, 0, processes
        )
        return estimate_memory(located, self._settings.models, options)

    def run(self, context: TaskContext) -> Mapping[str, Any]:
        """The work of a job."""
        asked = context.parameters
        self._database.write(lambda c: next_space.hold_workers(c, context.job_id, held=False))
        order = FillOrder(context.job_id, asked["model"], asked.get("precision"), asked.get("dry_run", False))
        plan = self.plan(order.model, order.precision)
        context.result.update(asdict(plan))
        context.tell()
        if not order.dry_run:
            plan.check_disk(self._share_left(context))
            plan.check_memory(self._settings)
        elif find_files(order.model, self._settings) is None:  # a dry run downloads nothing
            return {"pictures_per_second": None, "minutes": None}
        try:
            with run_child(order, self._settings) as child:
                ready = child.wait_ready(context.check)
                width = ready["d"]
                plan = replace(plan, d=width, vector_bytes=estimate_vector_bytes(plan.pictures + plan.texts, width))
                context.result.update(asdict(plan), space=ready["space"], pictures_per_second=ready["rate"])
                if order.dry_run:
                    context.result["minutes"] = estimate_minutes(plan, ready["rate"])
                    return context.result
                context.tell()
                plan.check_disk(self._share_left(context))
                self._wait_until_filled(context, child)
                self._finish(context, order, child)
            return context.result
        except next_space.Superseded:
            raise TaskStopped from None
        finally:
            self._clean()

    def _share_left(self, context: TaskContext) -> float:
        """The share of the vectors that the job has still to make: less than 1 after a restart."""
        row = self._database.read(next_space.get)
        return 1 - row.done / row.total if row and row.job_id == context.job_id and row.total else 1.0

    def _wait_until_filled(self, context: TaskContext, child: FillingChild) -> None:
        """Wait until everything was tried once."""
        while (row := self._require_row(context)).seq < 0:
            context.report(row.done + row.failed, row.total)
            child.require_alive()
            context.check()
            time.sleep(POLL_SECONDS)

    def _require_row(self, context: TaskContext) -> next_space.NextSpace:
        row = self._database.read(next_space.get)
        if row is None or row.job_id != context.job_id:
            context.check()  # the job was cancelled
            raise ModelUnavailable("the space of the new model is gone; begin again")
        return row

    def _finish(self, context: TaskContext, order: FillOrder, child: FillingChild) -> None:
        """Load the model, and let the spaces change places."""
        try:
            model = self._search.load_beside(order.model, order.precision)
        except StartupError as error:
            raise ModelUnavailable(error.detail) from None
        except (Overloaded, StopRequested):
            if self._search.is_stopping:
                raise TaskStopped from None
            raise
        try:
            self._database.write(lambda c: next_space.hold_workers(c, context.job_id, held=True))
            self._search.is_changing = True
            self._change_places(context, child, model)
        except BaseException:
            self._search.is_changing = False
            self._search.discard_model(model)
            self._database.write(lambda c: next_space.hold_workers(c, context.job_id, held=False))
            raise
        child.kill()
        with suppress(SightlineError):
            model.indexes.catch_up(CATCH_UP_SECONDS)
        self._search.change_model(model)
        self._mark_truncated(model)

    def _mark_truncated(self, model: LoadedModel) -> None:
        """Say of each text whether the new model reads only its beginning."""
        last = 0
        while not self._search.is_stopping:
            found = self._database.read(partial(texts.list_after, key=last, limit=TEXTS_AT_ONCE))
            if not found:
                return
            last = found[-1].key
            cuts = {text.key: model.searcher.reader.is_truncated(text.text) for text in found}
            changed = {text.key: cuts[text.key] for text in found if text.truncated != cuts[text.key]}
            if changed:
                self._database.write(partial(set_truncated, cuts=changed))

    def _change_places(self, context: TaskContext, child: FillingChild, model: LoadedModel) -> None:
        """Change places as soon as nothing is left to do; the job has succeeded then, whatever happens afterwards."""
        golden = encode_golden(model.encoder).astype("<f4").tobytes()
        present, named = self._search.model.encoder.space.model, self._settings.model
        names = {named.lower(), resolve_alias(named), present}

        def work(c: Connection) -> bool:
            def encode(keys: Sequence[int]) -> list[bytes]:
                found = texts.get_by_keys(c, keys)
                return model.searcher.reader.encode([found[key].text for key in keys])

            queued = next_space.change_places(c, context.job_id, golden, names, encode, LATE_TEXTS)
            if queued is not None:
                context.result["queued_again"] = queued
                tasks.finish(c, context.job_id, context.runner, context.result, None)
            return queued is not None

        while True:
            row = self._require_row(context)
            context.report(row.done + row.failed, row.total)
            model.indexes.catch_up(CATCH_UP_SECONDS)
            if context.write(work):
                return
            child.require_alive()
            context.check()
            time.sleep(POLL_SECONDS)


def check_stored_formats(database: Database, settings: Settings) -> None:
    """Raise Validation where pictures have formats that are switched off: they could not be embedded, and be lost to
    searches."""
    stored = database.read(images.count_by_format)
    off = {format: count for format, count in stored.items() if format not in settings.accepted_formats}
    if off:
        listed = ", ".join(f"{count:,} {FORMATS[format].label}" for format, count in sorted(off.items()))
        raise Validation(
            f"pictures of formats that are switched off cannot be embedded again: {listed}; allow these formats"
            f" ({SETTING}) while the model changes, or delete the pictures"
        )


def set_truncated(c: Connection, cuts: Mapping[int, bool]) -> None:
    for key, cut in cuts.items():
        texts.set_truncated(c, key, cut)


class FillingChild:
    """The process that fills the space, started again when something kills it."""

    def __init__(self, order: FillOrder, settings: Settings, output: IO[bytes]) -> None:
        self._order = order
        self._settings = settings
        self._output = output
        self._deaths = 0
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        words = (self._order.to_json(), str(os.getpid()))
        return spawn("app.worker.reembed", *words, env=self._settings.environment(), stdout=self._output)

    def wait_ready(self, check: Callable[[], None]) -> dict[str, Any]:
        """What it says of its model once that is loaded. Raises ModelUnavailable, and what `check` raises."""
        while not (lines := self._read_lines()):
            self.require_alive()
            check()
            time.sleep(POLL_SECONDS)
        self._require_no_error(lines)
        return lines[0]

    def require_alive(self) -> None:
        """Raise ModelUnavailable if it has ended for good."""
        if (code := self._process.poll()) is None:
            return
        self._require_no_error(self._read_lines())
        if code == 0:  # a dry run, or its job has ended
            return
        self._deaths += 1
        if self._deaths > MAX_DEATHS:
            raise ModelUnavailable(f"what encodes with the new model ended with code {code}; memory may have run out")
        log.warning("what encodes with the new model ended with code %d; it is started again", code)
        self._process = self._start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _require_no_error(self, lines: Sequence[Mapping[str, Any]]) -> None:
        for line in lines:
            if "error" in line:
                raise ModelUnavailable(line["error"])

    def _read_lines(self) -> list[dict[str, Any]]:
        said = os.pread(self._output.fileno(), MAX_SAID, 0)  # does not move where the child writes
        return [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith(b"\n")]


@contextmanager
def run_child(order: FillOrder, settings: Settings) -> Iterator[FillingChild]:
    """The child, which is dead when the `with` ends."""
    with TemporaryFile() as output:
        child = FillingChild(order, settings, output)
        try:
            yield child
        finally:
            child.kill()


def find_files(name: str, settings: Settings) -> LocatedModel | None:
    """The files of a model; None if they would have to be downloaded. Raises StartupError."""

    class DownloadNeeded(Exception):
        pass

    def refuse() -> None:
        raise DownloadNeeded

    try:
        return locate_model(name, settings.models, LoadProgress(before_fetch=refuse))
    except DownloadNeeded:
        return None


def converted_bytes(located: LocatedModel) -> int:
    """About the size of the copy of a model that is made for this processor, whether it is there or not."""
    return 0 if located.name == "colours" else 4 * count_parameters(located.name, located.weights).whole


def estimate_vector_bytes(count: int, d: int) -> int:
    """About what so many vectors take in the log and in the snapshots of their indexes."""
    row = 4 * d + ROW_BYTES
    stored = row if row > PAGE_ROOM else PAGE_BYTES / (PAGE_ROOM // row)
    return int(count * (stored + ENTRY_BYTES + INDEX_SHARE * 4 * d))


def estimate_minutes(plan: ReembedPlan, rate: float | None) -> float | None:
    """Minutes for all pictures at a measured rate; None where nothing could be measured."""
    return round(plan.pictures / rate / 60, 1) if rate else None


def format_size(count: int) -> str:
    return f"{count >> 20} MiB" if count < 10 << 30 else f"{count / (1 << 30):.1f} GiB"
