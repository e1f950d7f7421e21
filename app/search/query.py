"""What a search asks for, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from app.core.types import DEFAULT_COLLECTION, AnswerWarning, Effort, Hit, Mode, Target
from app.encoder.protocol import Embeddings
from app.search.arrange import AS_RANKED, Arrangement, describe, feedback_shares
from app.search.facets import Counts
from app.search.fusion import EQUAL_WEIGHTS, Weights
from app.search.query_encoder import QueryPart
from app.search.time_words.finder import TimeWords, find_time
from app.search.verdict import Verdict
from app.storage.filters.model import Filter
from app.storage.keywords import Words
from index.protocol import Effort as IndexEffort
from index.protocol import SearchParams


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search: its parts, what it searches, which rows `filter` allows, and how.

    `exact` compares with every vector, and with nothing else; `effort` says how far an approximate index is searched,
    `nprobe` and `refine_k` replace what it was calibrated to.
    Without `mode`, a search for pictures by words alone is hybrid. `templates` None leaves the choice to the searcher.
    Hits below `score_threshold` are left out. With `calibrate` the answer says whether anything fits.
    `like` and `unlike` are ids of pictures; the latter are no hits.
    With `time_words` words of time are a condition on `taken_at`; None: where the collection has such pictures. `today`
    is the day of the caller, else that of the server. `is_list`: there are no other words, so the hits are a list.
    """

    parts: Sequence[QueryPart]
    target: Target = "images"
    k: int = 10
    collection: str = DEFAULT_COLLECTION
    filter: Filter | None = None
    exact: bool = False
    nprobe: int | None = None
    refine_k: int | None = None
    mode: Mode | None = None
    weights: Weights = EQUAL_WEIGHTS
    templates: Sequence[str] | None = None
    score_threshold: float | None = None
    calibrate: bool = True
    arrangement: Arrangement = AS_RANKED
    like: Sequence[str] = ()
    unlike: Sequence[str] = ()
    time_words: bool | None = False
    today: date | None = None
    is_list: bool = False
    effort: Effort = "normal"

    @property
    def index_params(self) -> SearchParams:
        """How the index is searched, without the filter."""
        effort: IndexEffort = "fast" if self.effort == "fast" else "normal"
        return SearchParams(self.compares_all, nprobe=self.nprobe, refine_k=self.refine_k, effort=effort)

    @property
    def compares_all(self) -> bool:
        """Whether it compares with every vector."""
        return self.exact or self.effort == "exact"

    def without_time(self) -> tuple[SearchQuery, TimeWords | None]:
        """The query without its words of time, and these; they are looked for in the only text that it has."""
        texts = [part for part in self.parts if part.text is not None and part.weight > 0]
        if self.time_words is False or self.exact or self.target != "images" or len(texts) != 1:
            return self, None
        found = find_time(texts[0].text or "", self.today or date.today())
        if found is None:
            return self, None
        parts = [replace(part, text=found.rest) if part is texts[0] else part for part in self.parts]
        if found.rest:
            return replace(self, parts=parts), found
        others = [part for part in self.parts if part is not texts[0]]
        if others:
            return replace(self, parts=others, mode="vector"), found
        return replace(self, mode="vector", is_list=not (self.like or self.unlike)), found

    @property
    def end(self) -> int:
        """How many places it has, with those that it skips."""
        return self.arrangement.offset + self.k

    @property
    def arranged(self) -> dict[str, str | float]:
        """How its hits are arranged, as an answer says it."""
        like, unlike = feedback_shares(has_words=bool(self.words))
        return describe(self.arrangement, (like if self.like else 0.0, unlike if self.unlike else 0.0))

    @property
    def applied_mode(self) -> Mode:
        """The mode; without one, that which fits the query."""
        return self.mode or ("hybrid" if self.is_calibrated else "vector")

    @property
    def is_calibrated(self) -> bool:
        """Whether it asks for pictures by words alone: what is known of the collection holds for such searches."""
        is_words = bool(self.words) and all(part.text is not None for part in self.parts)
        return is_words and self.target == "images" and not (self.exact or self.is_list)

    @property
    def words(self) -> str:
        """What a keyword search looks for: the texts that are not turned away from."""
        return " ".join(part.text for part in self.parts if part.text is not None and part.weight > 0)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedQuery:
    """A query with what pictures are compared with: its vector [d], and its words where these count.

    `unknown` is the share of the words that the model does not know.
    """

    query: SearchQuery
    vector: Embeddings = field(repr=False)
    terms: Sequence[Words]
    unknown: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer: hits, best first; milliseconds by stage; how many vectors were compared; what is odd in the query.

    `arranged` says how the hits are arranged, `time` which words of time were a condition.
    `trust` is that of the model if words were ranked beside the vectors; `head` is that which the query went through,
    `model` the one that answered.
    """

    hits: list[Hit]
    took_ms: dict[str, float]
    searched: int
    mode: Mode
    trust: float | None = None
    templates: Sequence[str] = ()
    is_normalised: bool = False
    verdict: Verdict | None = None
    facets: Mapping[str, Counts] = field(default_factory=dict)
    warnings: list[AnswerWarning] = field(default_factory=list)
    head: str | None = None
    model: str = ""
    arranged: Mapping[str, str | float] = field(default_factory=dict)
    time: TimeWords | None = None
