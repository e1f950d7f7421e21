"""The second passes (`app.worker.enrich`): which are on, whether they are at work, and requests to do them again."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from app.core.errors import SightlineError, StartupError, Validation
from app.core.locks import ENRICHER_PREFIX, has_live_owner
from app.core.settings import Settings
from app.core.types import Job
from app.encoder.loader import CAPTIONER, check_model_name, find_captioner_name
from app.service.health import HealthCheck
from app.service.tasks import TaskContext
from app.sources.fetch.chat_server import parse_chat_url
from app.storage.filters.model import Filter
from app.storage.filters.parser import parse_filter_json
from app.storage.filters.sql import select_keys
from app.storage.jobs import JobService
from app.storage.library import Library, require_image
from app.storage.membership import SINGLE_SERVER, Membership
from app.storage.sql import Connection
from app.storage.tables import collections, enrichments, images
from app.storage.tables.enrichments import EnrichmentCounts, EnrichmentState

KIND = "enrich"  # of the job
AT_ONCE = 500  # pictures that one transaction queues
SWITCHES = {  # how each kind is switched on
    "ocr": "start the server with --ocr (SIGHTLINE_OCR=1)",
    "caption": "start the server with --captioner (SIGHTLINE_CAPTIONER)",
}
OCR_MISSING = "--ocr needs the package rapidocr: pip install 'sightline-search[ocr]'"


def list_kinds(settings: Settings) -> list[str]:
    """The second passes that the settings switch on."""
    return ["ocr"] * settings.ocr + ["caption"] * bool(settings.captioner)


def check_enrichment_settings(settings: Settings) -> None:
    """Raise StartupError where a package is missing that a second pass needs."""
    if settings.ocr and importlib.util.find_spec("rapidocr") is None:
        raise StartupError(OCR_MISSING)
    if settings.captioner.startswith(CAPTIONER):
        check_model_name(find_captioner_name(settings.captioner), settings.models)
    elif settings.captioner:
        parse_chat_url(settings.captioner)


def lock_prefix(kind: str) -> str:
    """How the names of the lock files of its process begin; those of workers do not."""
    return f"{ENRICHER_PREFIX}{kind}-"


class EnrichmentService:
    """The second passes of one data directory."""

    def __init__(
        self, library: Library, jobs: JobService, settings: Settings, membership: Membership = SINGLE_SERVER
    ) -> None:
        self._membership = membership
        self._library = library
        self._jobs = jobs
        self._folder = settings.process_folder / "workers"
        self.kinds = list_kinds(settings)

    def start(self) -> None:
        """Let the kinds of the settings be on, and release what killed processes held."""

        def work(c: Connection) -> None:
            if not self._membership.is_cluster:  # where other servers may be at work, their leases end by themselves
                enrichments.release_all(c)
            enrichments.switch(c, self.kinds)

        self._library.database.write(work)

    def check(self) -> Iterator[HealthCheck]:
        """Whether the process of each kind is alive; nothing where none is on."""
        if not self.kinds:
            return
        try:
            faults = self._library.database.read(enrichments.list_faults)
        except SightlineError:  # the check of the database says it
            faults = {}
        dead = {kind: "has no process: the log says why" for kind in self.kinds if not self.is_alive(kind)}
        waits = {kind: f"waits: {fault}" for kind, fault in faults.items()}
        states = [f"{kind} {dead.get(kind) or waits.get(kind, 'works')}" for kind in self.kinds]
        yield HealthCheck("enrichment", not (dead or waits), "; ".join(states))

    def is_alive(self, kind: str) -> bool:
        """Whether a process of this kind is alive."""
        if self._membership.is_cluster:
            return self._membership.count_alive(kind) > 0
        return has_live_owner(self._folder, lock_prefix(kind))

    def count(self, collection: str) -> dict[str, dict[str, int]]:
        """By kind that is on: how many pictures wait, are done, and were given up. Raises NotFound."""

        def work(c: Connection) -> dict[str, EnrichmentCounts]:
            label = collections.require(c, collection).label
            return enrichments.count(c, label, images.count_by_status(c, collection)["ready"])

        return {kind: asdict(one) for kind, one in self._library.database.read(work).items()}

    def count_all(self) -> dict[str, EnrichmentCounts]:
        """By kind that is on, of all collections."""
        return self._library.database.read(enrichments.count_all) if self.kinds else {}

    def get(self, collection: str, id: str) -> dict[str, EnrichmentState]:
        """How far each kind is with a picture, of those that it waits for or once did. Raises NotFound."""
        return self._library.database.read(lambda c: enrichments.get_states(c, require_image(c, collection, id).key))

    def request(self, collection: str, kind: str, filter: Filter | None, *, failed_only: bool) -> Job:
        """Make a job that lets the pictures that `filter` matches wait again. Raises NotFound, Validation."""
        if kind not in self.kinds:
            raise Validation(f"kind: {kind!r} is off here; {SWITCHES[kind]}")
        asked = {"kind": kind, "filter": None if filter is None else filter.text, "failed_only": failed_only}
        return self._jobs.add_task(collection, KIND, asked)

    def queue(self, context: TaskContext) -> dict[str, Any]:
        """Queue the pictures of a request; the handler of the task. The second pass does the work itself."""
        asked, collection = context.parameters, context.collection
        keys = self._library.database.read(partial(list_keys, collection=collection, asked=asked))
        queued = 0
        for start in range(0, len(keys), AT_ONCE):
            context.report(start, len(keys))
            some = keys[start : start + AT_ONCE]
            queued += context.write(partial(enrichments.request, kind=asked["kind"], keys=some))
        context.report(len(keys), len(keys))
        return {"kind": asked["kind"], "queued": queued}


def list_keys(c: Connection, collection: str, asked: Mapping[str, Any]) -> list[int]:
    """The keys of the pictures of a request."""
    text = asked["filter"]
    if text is None:
        keys = images.list_ready_keys(c, collection)
    else:
        keys = select_keys(c, collection, parse_filter_json(text, "images"))
    if asked["failed_only"]:
        failed = enrichments.list_failed(c, collections.require(c, collection).label, asked["kind"])
        keys = [key for key in keys if key in failed]
    return keys
