"""What is done with pictures that have just become ready: they get the tags of their collection's labels, and are
compared with its saved searches.

A thread of the server follows the log: labels and saved searches each keep the number of the last entry whose picture
they were compared with, and what came of it is written in the same transaction as that number. So a kill repeats
nothing and leaves nothing out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from app.core.background import BackgroundLoop
from app.core.backoff import Backoff
from app.core.errors import InProgress, NotFound, SightlineError, Timeout
from app.core.types import LabelSet, NewMatch, SavedSearch
from app.encoder.protocol import Embeddings
from app.search.auto_tags import Tagger
from app.search.collection_profile import UNKNOWN, Profile
from app.search.query import PreparedQuery
from app.search.saved_query import GOOD, find_matches, read_query
from app.search.searcher import Searcher
from app.service.labels import GROWTH, LabelService, Way, read_page, tag_page, way_of, write_tags
from app.service.search_service import SearchService
from app.storage.database import Database
from app.storage.membership import SINGLE_SERVER, Duty, Membership
from app.storage.sql import Connection
from app.storage.tables import images, label_sets, saved_searches

log = logging.getLogger(__name__)

POLL_SECONDS = 0.3
LOOK_SECONDS = 3.0  # between two looks without a commit: the collection may have been measured meanwhile
QUIET_SECONDS = 5.0  # without a new picture, after which a collection that has doubled is measured again
PICTURES_AT_ONCE = 500  # of one collection, compared in one step
MAX_PREPARED = 1_000  # queries that are kept with their vectors

Prepared = tuple[tuple[object, ...], PreparedQuery]


@dataclass(frozen=True, slots=True)
class _Arrivals:
    """New pictures of a collection: log entry, key and SHA-256 of each, and the rows of `vectors`.

    Those up to log entry `last` were read; some may have no vector.
    """

    last: int
    is_cut: bool
    rows: Sequence[tuple[int, int, str]]
    vectors: Embeddings


class ArrivalLoop(BackgroundLoop):
    """Calls `on_match` when a saved search has found something new."""

    def __init__(
        self,
        database: Database,
        search: SearchService,
        labels: LabelService,
        on_match: Callable[[], None],
        membership: Membership = SINGLE_SERVER,
    ) -> None:
        failing = "new pictures get no auto-tags, and are not compared with saved searches"
        step = membership.only_leader(Duty.ARRIVALS, self._look, self._forget)
        super().__init__("arrivals", step, failing, Backoff(0.5, 60.0))
        self._database = database
        self._search = search
        self._labels = labels
        self._on_match = on_match
        self._count_commits = database.watch_commits()
        self._seen, self._looked_at = -1, 0.0
        self._prepared: dict[str, Prepared] = {}
        self._arrived_at: dict[str, float] = {}  # by label: when new pictures were last seen
        self._begun: set[tuple[str, int, Way]] = set()  # jobs that were begun since a model or a head was changed

    def _forget(self) -> None:
        """Look at everything again when this server leads again: another one has gone on meanwhile."""
        self._seen = -1

    def _look(self) -> float:
        commit, now = self._count_commits(), time.monotonic()
        if self._search.loaded is None or (commit == self._seen and now < self._looked_at + LOOK_SECONDS):
            return POLL_SECONDS
        self._looked_at = now
        searcher = self._search.loaded.searcher
        try:
            is_done = self._tag(searcher)
        finally:  # what fails for labels is no reason to find nothing
            is_compared = self._compare(searcher)
        is_done &= is_compared
        self._seen = commit if is_done else -1
        return POLL_SECONDS if is_done else 0.0

    def _tag(self, searcher: Searcher) -> bool:
        """Tag some new pictures of each collection that has labels; whether nothing is left."""
        is_done = True
        for name, held in self._database.read(partial(label_sets.list_in_space, space=searcher.space.fingerprint)):
            with suppress(NotFound):  # the collection was deleted meanwhile
                is_done &= self._tag_collection(searcher, name, held)
            if self.is_closing():
                break
        return is_done

    def _tag_collection(self, searcher: Searcher, name: str, held: LabelSet) -> bool:
        page = self._database.read(partial(read_page, label=held.label, seq=held.seq, space=None))
        if not page and not self._may_differ(searcher, name, held):
            return True
        now = time.monotonic()
        if page:
            self._arrived_at[held.label] = now
        is_quiet = now - self._arrived_at.get(held.label, -QUIET_SECONDS) >= QUIET_SECONDS
        tagger = self._labels.open(name, held, searcher, 1 if is_quiet else GROWTH)
        if tagger is None:  # until the collection is measured
            self.pause(POLL_SECONDS if page else 0.0)
            return not page
        self._apply_again(name, held, tagger)
        page = self._database.read(partial(read_page, label=held.label, seq=held.seq, space=tagger.space))
        if not page:
            return True
        tags = tag_page(page, tagger)

        def write(c: Connection) -> None:
            if write_tags(c, held, tags) is not None:
                label_sets.advance(c, held.label, held.revision, page[-1][0])

        self._database.write(write)
        return len(page) < PICTURES_AT_ONCE

    def _may_differ(self, searcher: Searcher, name: str, held: LabelSet) -> bool:
        """Whether new pictures may be tagged in another way than those that are there. Opens no index."""
        said = held.applied
        if said is None or said["revision"] != held.revision or said["basis"] is None:
            return False
        head = searcher.heads.get(name)
        is_same = (said["space"], said["head"]) == (searcher.space.fingerprint, head.id if head else None)
        return not is_same or self._labels.is_open(held)

    def _apply_again(self, name: str, held: LabelSet, tagger: Tagger) -> None:
        """Begin a job, once, where what is there was tagged by another model, head or basis of probabilities."""
        way = way_of(tagger)
        said = held.applied
        if said is None or (said["space"], said["head"], said["basis"]) == way or said["revision"] != held.revision:
            return
        if said["basis"] is None:  # there was nothing to tag: all was tagged as it came
            applied = {"space": way[0], "head": way[1], "basis": way[2]}
            self._database.write(lambda c: label_sets.mark_applied(c, held.label, held.revision, applied))
        elif (held.label, held.revision, way) not in self._begun:
            self._begun.add((held.label, held.revision, way))
            with suppress(InProgress):
                self._labels.apply(name)
                log.info("the labels are applied again: model, head or calibration changed", extra={"collection": name})

    def _compare(self, searcher: Searcher) -> bool:
        """Compare some new pictures of each collection with its saved searches; whether nothing is left."""
        behind = self._database.read(partial(saved_searches.list_behind, space=searcher.space.fingerprint))
        groups: dict[tuple[str, int], list[SavedSearch]] = {}
        for search in behind:
            groups.setdefault((search.label, search.seq), []).append(search)
        is_done = True
        for (label, seq), searches in groups.items():
            if self.is_closing():
                return False
            found = self._database.read(partial(read_arrivals, label=label, seq=seq, space=searcher.space.fingerprint))
            if found is not None:
                is_done &= self._compare_some(searcher, searches, found) and not found.is_cut
        return is_done

    def _compare_some(self, searcher: Searcher, searches: Sequence[SavedSearch], arrivals: _Arrivals) -> bool:
        """Compare these pictures with the searches of a collection; False if one of them has to wait."""
        profile = Profile()
        if any(search.match == GOOD for search in searches):
            profile = searcher.zero_shot.open_judge(searches[0].collection, GROWTH).profile
        results: list[tuple[SavedSearch, list[NewMatch], str | None]] = []
        for search in searches:
            if search.match == GOOD and profile is UNKNOWN:
                continue  # until the collection is measured
            results.append(self._find(searcher, search, profile, arrivals))

        def write(c: Connection) -> int:
            news = 0
            for search, found, error in results:
                if saved_searches.advance(c, search, arrivals.last, error):
                    news += saved_searches.add_matches(c, search, found)
                    if found:
                        saved_searches.forget_old_matches(c, search.id)
            return news

        if self._database.write(write):
            self._on_match()
        if len(results) < len(searches):
            self.pause(POLL_SECONDS)
        return len(results) == len(searches)

    def _find(
        self, searcher: Searcher, search: SavedSearch, profile: Profile, arrivals: _Arrivals
    ) -> tuple[SavedSearch, list[NewMatch], str | None]:
        """The matches of a search, or the sentence that says why there cannot be any."""
        try:
            prepared = self._prepare(searcher, search)
            if not arrivals.rows:
                return search, [], None
            pictures = [(key, digest, seq > search.since) for seq, key, digest in arrivals.rows]
            compare = partial(
                find_matches,
                prepared=prepared,
                match=search.match,
                profile=profile,
                pictures=pictures,
                vectors=arrivals.vectors,
            )
            return search, self._database.read(compare), None
        except SightlineError as error:
            if error.retryable and not isinstance(error, Timeout):
                raise
            log.warning("a saved search cannot be compared: %s", error.detail, extra={"saved_search": search.id})
            return search, [], error.detail

    def _prepare(self, searcher: Searcher, search: SavedSearch) -> PreparedQuery:
        """The query with its vector, kept while neither it nor the model or the head is changed.

        One that refers to stored pictures or texts is made anew: they may be replaced or deleted.
        """
        query = read_query(search)
        if query.like or query.unlike or any(part.image_id or part.text_id for part in query.parts):
            return searcher.prepare(query)
        head = searcher.heads.get(search.collection)
        name = (search.revision, searcher.space.fingerprint, head.id if head else None)
        kept = self._prepared.pop(search.id, None)
        if kept is None or kept[0] != name:
            kept = name, searcher.prepare(query)
        self._prepared[search.id] = kept  # the newest comes last
        while len(self._prepared) > MAX_PREPARED:
            del self._prepared[next(iter(self._prepared))]
        return kept[1]


def read_arrivals(c: Connection, label: str, seq: int, space: str) -> _Arrivals | None:
    """The next pictures past a log entry; None if there are none."""
    page = read_page(c, label, seq, space, PICTURES_AT_ONCE)
    if not page:
        return None
    digests = images.get_digests(c, [key for _, key, _ in page])
    there = [(seq, key, vector) for seq, key, vector in page if vector is not None and key in digests]
    vectors = np.stack([vector for _, _, vector in there]) if there else np.empty((0, 0), np.float32)
    rows = [(seq, key, digests[key]) for seq, key, _ in there]
    return _Arrivals(page[-1][0], len(page) == PICTURES_AT_ONCE, rows, vectors)
