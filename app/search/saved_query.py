"""Compares pictures with the query of a saved search, one by one: no ranking, only whether each of them matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.core.types import NewMatch, SavedSearch
from app.encoder.protocol import Embeddings
from app.search.arrange import AS_RANKED
from app.search.collection_profile import Profile
from app.search.query import PreparedQuery, SearchQuery
from app.search.query_encoder import QueryPart
from app.search.templates import PLAIN
from app.search.verdict import MOSTLY_UNKNOWN, Floats
from app.storage import keywords
from app.storage.filters import sql
from app.storage.filters.parser import parse_filter
from app.storage.sql import Connection

GOOD = "good"
Picture = tuple[int, str, bool]
"""Key, SHA-256, and whether it came after the search was saved."""


def read_query(search: SavedSearch) -> SearchQuery:
    """The query of a saved search, whose body was checked when it was saved."""
    body = search.query
    parts = [read_part(part) for part in body["query"]]
    filter = body.get("filter")
    return SearchQuery(
        parts,
        k=1,
        collection=search.collection,
        filter=None if filter is None else parse_filter(filter, "images"),
        exact=body.get("exact", False),
        mode=body.get("mode"),
        templates=read_templates(body.get("templates", "auto")),
        score_threshold=body.get("score_threshold"),
        arrangement=AS_RANKED,
        like=tuple(body.get("like", ())),
        unlike=tuple(body.get("unlike", ())),
    )


def read_part(part: Mapping[str, Any]) -> QueryPart:
    vector = part.get("vector")
    weight = part.get("weight", 1.0)
    return QueryPart(part.get("text"), part.get("image_id"), part.get("text_id"), vector=vector, weight=weight)


def read_templates(sent: str | Sequence[str]) -> Sequence[str] | None:
    if sent in ("auto", ["auto"]):
        return None
    return PLAIN if sent in ("none", ["none"]) else tuple(sent)


def find_matches(
    c: Connection,
    prepared: PreparedQuery,
    match: str | None,
    profile: Profile,
    pictures: Sequence[Picture],
    vectors: Embeddings,
) -> list[NewMatch]:
    """Those of the pictures, with their `vectors` [n, d], that the query means: near enough, or with all its words.

    The filter must let them through as they are now. Raises Timeout.
    """
    query, keys = prepared.query, [key for key, _, _ in pictures]
    scores = np.full(len(keys), np.nan) if query.applied_mode == "keyword" else vectors @ prepared.vector
    near = judge_nearness(prepared, match, profile, scores)
    said = keywords.select_having(c, prepared.terms, keys)
    found = [n for n, key in enumerate(keys) if near[n] or key in said]
    if query.filter is not None and found:
        passed = set(sql.select_passing(c, query.collection, query.filter, [keys[n] for n in found]))
        found = [n for n in found if keys[n] in passed]
    return [
        NewMatch(
            *pictures[n],
            None if np.isnan(scores[n]) else round(float(scores[n]), 6),
            tuple(name for name, holds in (("vector", near[n]), ("keyword", keys[n] in said)) if holds),
        )
        for n in found
    ]


def judge_nearness(
    prepared: PreparedQuery, match: str | None, profile: Profile, scores: Floats | Embeddings
) -> Sequence[bool]:
    """Whether each cosine is near enough: at least the threshold, and good in the sense of the verdict if so asked."""
    least = prepared.query.score_threshold
    near = np.isfinite(scores) & (least is not None or match == GOOD)
    if least is not None:
        near &= scores >= least
    if match == GOOD:
        if profile.calibration is None or profile.spread is None or prepared.unknown >= MOSTLY_UNKNOWN:
            return [False] * len(scores)
        calibration, row = profile.calibration, prepared.vector[None]
        nothing, one = (float(profile.spread.measure_deviations([cosine], row)[0]) for cosine in (0.0, 1.0))
        near &= [calibration.judge(float(s), nothing + float(s) * (one - nothing)).match == GOOD for s in scores]
    return [bool(one) for one in near]
