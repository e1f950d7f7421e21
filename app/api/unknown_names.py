"""A name that a request brings and that its call does not know: the sentence that says which name is meant."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from app.api.errors import MAX_NAME_CHARS

# Words of one line stand for the same thing in other services and libraries; the first one that the call has is meant.
SYNONYMS = [
    words.split()
    for words in (
        "k limit top_k topk top n size count num num_results max_results page_size per_page num_images",
        "q query text search term words keywords prompt vector embedding queries parts",
        "file files image images picture photo img upload",
        "collection collection_name collections index index_name namespace album",
        "caption description text title alt comment name",
        "name collection id",
        "filter filters where query_filter tags",
        "tags tag keywords",
        "cursor offset page skip start after next next_cursor",
        "state status",
        "replace overwrite force upsert",
        "metadata meta properties payload attributes",
        "target type kind modality",
        "wait timeout sync",
        "searches queries requests",
        "score_threshold min_score threshold min_similarity max_distance",
    )
]


def describe_unknown(what: str, name: str, known: Collection[str]) -> str:
    """A sentence about a parameter or field (`what`) that is not among those `known` to the call."""
    name = name[:MAX_NAME_CHARS]
    plain = name.lower().replace("-", "_").removesuffix("[]")
    meant = get_close_matches(plain, known, 1, 0.9)  # keywords: keyword, before what other services call so
    meant += [one for words in SYNONYMS if plain in words for one in words if one in known]
    meant += get_close_matches(plain, known, 1, 0.6)
    sentence = f"there is no {what} {name!r}"
    if meant:
        return f"{sentence}; did you mean {meant[0]!r}?"
    return f"{sentence}; this call takes {', '.join(sorted(known)) or 'none'}"
