"""The labels of collections: set, shown and taken away; and the task that applies them to the pictures that are there.

Pictures that become ready later are tagged by `app.service.arrivals`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from app.core.errors import InProgress, Overloaded
from app.core.types import Job, Label, LabelSet
from app.encoder.protocol import Embeddings
from app.search.auto_tags import Tagger, open_tagger
from app.search.collection_profile import UNKNOWN
from app.search.searcher import Searcher
from app.service.search_service import SearchService
from app.service.tasks import TaskContext
from app.storage.database import Database
from app.storage.jobs import JobService
from app.storage.sql import Connection
from app.storage.tables import collections, embeddings, label_sets

KIND = "auto_tags"  # of the job
PICTURES_AT_ONCE = 500  # tagged in one commit
PATIENCE_SECONDS = 600.0  # for the collection to be measured
POLL_SECONDS = 0.2
GROWTH = 16  # of a collection, after which it is measured again while its pictures come, or are tagged
MAX_TAGGERS = 16  # collections whose labels are kept as vectors

# How all pictures of a collection are tagged: space, head, basis.
Way = tuple[str | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class LabelState:
    """The labels of a collection, how many pictures have each tag, and the way in which new pictures are tagged now.

    `way` is None while the model is loading or the collection is not measured yet.
    """

    set: LabelSet | None
    tagged: Mapping[str, int]
    way: Way | None
    job_id: str | None = None


class LabelService:
    def __init__(self, database: Database, search: SearchService, jobs: JobService) -> None:
        self._database = database
        self._search = search
        self._jobs = jobs
        self._lock = threading.Lock()
        self._taggers: dict[str, tuple[int, Tagger]] = {}  # by label: the revision of the labels, and these

    def get(self, collection: str) -> LabelState:
        """Raises NotFound."""

        def work(c: Connection) -> LabelState:
            label = collections.require(c, collection).label
            held = label_sets.get_of_label(c, label)
            return LabelState(held, label_sets.count_tagged(c, label), None)

        state = self._database.read(work)
        with self._lock:
            cached = self._taggers.get(state.set.label) if state.set else None
        if cached is None or state.set is None or cached[0] != state.set.revision:
            return state
        return replace(state, way=way_of(cached[1]))

    def set(self, collection: str, labels: Sequence[Label]) -> LabelState:
        """Replace the labels, and begin the job that brings what is there up to date. Raises NotFound."""

        def work(c: Connection) -> None:
            label_sets.save(c, collections.require(c, collection).label, labels)

        self._database.write(work)
        try:
            job = self.apply(collection).id
        except InProgress:  # that job begins anew when it sees the new labels
            job = None
        return replace(self.get(collection), job_id=job)

    def apply(self, collection: str) -> Job:
        """Begin the job that tags what is there. Raises NotFound, InProgress."""
        return self._jobs.add_task(collection, KIND, {})

    def open(self, collection: str, held: LabelSet, searcher: Searcher, growth: int = 1) -> Tagger | None:
        """The labels as vectors; None while the collection is not measured yet. Raises NotFound, Busy.

        `growth` is that of `ZeroShot.open_judge`.
        """
        judge = searcher.zero_shot.open_judge(collection, growth)
        head = searcher.heads.get(collection)
        same = (held.revision, searcher.space.fingerprint, head.id if head else None)
        with self._lock:
            cached = self._taggers.get(held.label)
        if cached is not None and (cached[0], cached[1].space, cached[1].head) == same:
            tagger = cached[1]
            if judge.profile is UNKNOWN:
                return None
            if judge.profile is tagger.judge.profile:
                return tagger
            if judge.profile.templates == tagger.judge.profile.templates:
                return self._keep(held, replace(tagger, judge=judge))
        opened = open_tagger(searcher, collection, held.labels, judge)
        return None if opened is None else self._keep(held, opened)

    def is_open(self, held: LabelSet) -> bool:
        """Whether these labels were compared with pictures since the start."""
        with self._lock:
            cached = self._taggers.get(held.label)
        return cached is not None and cached[0] == held.revision

    def _keep(self, held: LabelSet, tagger: Tagger) -> Tagger:
        with self._lock:
            self._taggers.pop(held.label, None)
            self._taggers[held.label] = held.revision, tagger  # the newest comes last
            while len(self._taggers) > MAX_TAGGERS:
                del self._taggers[next(iter(self._taggers))]
        return tagger

    def run(self, context: TaskContext) -> Mapping[str, Any]:
        """Do a task: give every picture of a collection the tags of its labels, and no others.

        It begins anew when the labels, the model or the head are changed meanwhile. Raises NotFound, Overloaded.
        """
        while True:
            held = self._database.read(partial(read_set, context.collection))
            if held is None:
                return {"pictures": 0, "changed": 0, "tagged": 0}
            tagger = self._wait_for_tagger(context, held)
            found = self._tag_all(context, held, tagger)
            way = way_of(tagger) if tagger is not None else (None, None, None)
            if found is not None and context.write(partial(finish, held=held, way=way)):
                return {**found, "labels": len(held.labels), "basis": way[2]}

    def _wait_for_tagger(self, context: TaskContext, held: LabelSet) -> Tagger | None:
        """None where there is nothing to compare: no label, or no picture."""
        until = time.monotonic() + PATIENCE_SECONDS
        while held.labels and self._count(held) > 0:
            tagger = self.open(context.collection, held, self._search.model.searcher)
            if tagger is not None:
                return tagger
            context.check()
            if time.monotonic() > until:
                raise Overloaded("the model is not measured on this collection yet; apply the labels again later")
            time.sleep(POLL_SECONDS)
        return None

    def _count(self, held: LabelSet) -> int:
        """How many pictures there are to tag."""
        return self._database.read(lambda c: label_sets.count_ready(c, held.label))

    def _tag_all(self, context: TaskContext, held: LabelSet, tagger: Tagger | None) -> dict[str, int] | None:
        """Counts of what was done; None if something was changed meanwhile."""
        total, space = self._count(held), None if tagger is None else tagger.space
        done = changed = tagged = seq = 0
        context.report(0, total)
        while page := self._database.read(partial(read_page, label=held.label, seq=seq, space=space)):
            if tagger is not None:
                now = self.open(context.collection, held, self._search.model.searcher, GROWTH)
                if now is None or way_of(now) != way_of(tagger):
                    return None
                tagger = now
            found = tag_page(page, tagger)
            written = context.write(partial(write_tags, held=held, found=found))
            if written is None:
                return None
            done, seq = done + len(page), page[-1][0]
            changed, tagged = changed + written, tagged + sum(map(bool, found.values()))
            context.report(min(done, total), total)
        return {"pictures": done, "changed": changed, "tagged": tagged}


Page = list[tuple[int, int, Embeddings | None]]
"""Log entry, key and vector of pictures, in the order of the log."""


def read_set(collection: str, c: Connection) -> LabelSet | None:
    """Raises NotFound."""
    return label_sets.get_of_label(c, collections.require(c, collection).label)


def read_page(c: Connection, label: str, seq: int, space: str | None, limit: int = PICTURES_AT_ONCE) -> Page:
    """The next pictures that became ready past a log entry; without vectors where no space is given."""
    ready = label_sets.list_ready_after(c, label, seq, limit)
    vectors = embeddings.get_vectors(c, "images", [key for _, key in ready], space) if space is not None else {}
    return [(seq, key, np.frombuffer(vectors[key], "<f4") if key in vectors else None) for seq, key in ready]


def tag_page(page: Page, tagger: Tagger | None) -> dict[int, dict[str, float]]:
    """The tags of the pictures of a page; without a tagger they get none."""
    if tagger is None:
        return {key: {} for _, key, _ in page}
    there = [(key, vector) for _, key, vector in page if vector is not None]
    tags = tagger.tag(np.stack([vector for _, vector in there])) if there else []
    return {key: found for (key, _), found in zip(there, tags, strict=True)}


def write_tags(c: Connection, held: LabelSet, found: Mapping[int, Mapping[str, float]]) -> int | None:
    """How many pictures it changed; None, and none, if the labels were changed meanwhile."""
    now = label_sets.get_of_label(c, held.label)
    return None if now is None or now.revision != held.revision else label_sets.set_tags(c, found)


def finish(c: Connection, held: LabelSet, way: Way) -> bool:
    """Write down how all pictures are tagged now; False if the labels were changed meanwhile."""
    space, head, basis = way
    return label_sets.mark_applied(c, held.label, held.revision, {"space": space, "head": head, "basis": basis})


def way_of(tagger: Tagger) -> Way:
    return tagger.space, tagger.head, tagger.basis
