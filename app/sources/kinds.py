"""The kinds of source, by the word before the colon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import Validation
from app.sources.bucket import Bucket, GoogleBucket
from app.sources.clip_retrieval import ClipRetrieval
from app.sources.folder import Folder
from app.sources.img2dataset import Img2dataset
from app.sources.kind import Allowed, Asked, Kind, Tools
from app.sources.table import Table
from app.sources.urls import Urls
from app.sources.webdataset import Webdataset

KINDS: dict[str, type[Kind]] = {
    "urls": Urls,
    "folder": Folder,
    "webdataset": Webdataset,
    "table": Table,
    "s3": Bucket,
    "gs": GoogleBucket,
    "clip-retrieval": ClipRetrieval,
    "img2dataset": Img2dataset,
}
FORMS = ", ".join(kind.FORM for kind in KINDS.values())


def asked_of(source: str, options: Mapping[str, Any], allowed: Allowed) -> Asked:
    """What a request asks for, checked. Raises Validation, UrlNotAllowed."""
    word, _, place = source.partition(":")
    kind = KINDS.get(word)
    if kind is None:
        raise Validation(f"source must be one of: {FORMS}")
    if wrong := sorted(options.keys() - kind.TAKES):
        raise Validation(f"{wrong[0]} does not belong to the source {kind.FORM}")
    return kind.checked(Asked(word, place, dict(options)), allowed)


def opened(asked: Asked, tools: Tools) -> Kind:
    """What reads the source."""
    return KINDS[asked.kind](asked, tools)
