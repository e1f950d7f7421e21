"""What a sender says about a picture, and the bounds of it. One check serves requests, archives and changes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import Validation
from app.core.types import Metadata

ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_TAGS = 100
MAX_TAG_CHARS = 100
MAX_CAPTION_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class ImageAttributes:
    """The words that go with a picture."""

    id: str | None = None
    caption: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True, slots=True)
class MetadataLimits:
    """How much metadata an item may have: bytes as JSON, and how deeply it may be nested."""

    metadata_bytes: int = 16_384
    metadata_depth: int = 8


def check_attributes(said: ImageAttributes, bounds: MetadataLimits) -> None:
    """Raise Validation, saying why, unless all of it can be stored and sent again."""
    if said.id is not None:
        check_id(said.id)
    if said.caption is not None:
        check_text("caption", said.caption, MAX_CAPTION_CHARS)
    if len(said.tags) > MAX_TAGS:
        raise Validation(f"a picture may have {MAX_TAGS} tags, this has {len(said.tags)}")
    for tag in said.tags:
        check_text("tag", tag, MAX_TAG_CHARS)
        if not tag:
            raise Validation("a tag is empty")
    check_metadata(said.metadata, bounds)


def check_id(id: str) -> None:
    """Raise Validation unless it can be an id."""
    if not ID_PATTERN.fullmatch(id):
        raise Validation("an id has 1 to 64 of A-Z, a-z, 0-9, _ and -")


def check_text(what: str, text: str, most: int) -> None:
    """Raise Validation for text that is too long or not Unicode (lone surrogates)."""
    if len(text) > most:
        raise Validation(f"a {what} may have {most} characters, this has {len(text)}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Validation(f"the {what} is not valid Unicode") from None


def check_metadata(metadata: Metadata, bounds: MetadataLimits) -> None:
    """Raise Validation for metadata out of bounds, and for what JSON cannot say."""
    try:
        size = len(json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False).encode("utf-8"))
    except (ValueError, RecursionError):
        raise Validation("metadata must be plain JSON: valid Unicode, no NaN, not nested without end") from None
    if size > bounds.metadata_bytes:
        raise Validation(f"metadata may have {bounds.metadata_bytes} bytes as JSON, this has {size}")
    if nesting_depth(metadata) > bounds.metadata_depth:
        raise Validation(f"metadata may be nested {bounds.metadata_depth} deep")


def nesting_depth(value: Any) -> int:
    """How deeply objects and lists are nested: 1 for a flat object. Never recurses, whatever it is given."""
    deep = 0
    level = [value]
    while level := [each for each in level if isinstance(each, Mapping | list)]:
        deep += 1
        level = [item for each in level for item in (each.values() if isinstance(each, Mapping) else each)]
    return deep
