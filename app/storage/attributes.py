"""The attributes that a picture comes with, and their limits. Requests, archives and changes share these checks."""

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
    """What a request or a manifest says about a picture."""

    id: str | None = None
    caption: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True, slots=True)
class MetadataLimits:
    """How many bytes the metadata of an item may have as JSON, and how deeply it may be nested."""

    metadata_bytes: int = 16_384
    metadata_depth: int = 8


def check_attributes(attributes: ImageAttributes, limits: MetadataLimits) -> None:
    """Raise Validation, saying why, unless every attribute can be stored and returned as JSON."""
    if attributes.id is not None:
        check_id(attributes.id)
    if attributes.caption is not None:
        check_text("caption", attributes.caption, MAX_CAPTION_CHARS)
    if len(attributes.tags) > MAX_TAGS:
        raise Validation(f"a picture may have {MAX_TAGS} tags, this has {len(attributes.tags)}")
    for tag in attributes.tags:
        check_text("tag", tag, MAX_TAG_CHARS)
        if not tag:
            raise Validation("a tag is empty")
    check_metadata(attributes.metadata, limits)


def check_id(id: str) -> None:
    """Raise Validation for what is not an id."""
    if not ID_PATTERN.fullmatch(id):
        raise Validation("an id has 1 to 64 of A-Z, a-z, 0-9, _ and -")


def check_text(what: str, text: str, max_chars: int) -> None:
    """Raise Validation for text that is too long or not Unicode (lone surrogates)."""
    if len(text) > max_chars:
        raise Validation(f"a {what} may have {max_chars} characters, this has {len(text)}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Validation(f"the {what} is not valid Unicode") from None


def check_metadata(metadata: Metadata, limits: MetadataLimits) -> None:
    """Raise Validation for metadata beyond the limits, and for values that JSON cannot represent."""
    try:
        size = len(json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False).encode("utf-8"))
    except (ValueError, RecursionError):
        raise Validation("metadata must be plain JSON: valid Unicode, no NaN, not nested endlessly") from None
    if size > limits.metadata_bytes:
        raise Validation(f"metadata may have {limits.metadata_bytes} bytes as JSON, this has {size}")
    if nesting_depth(metadata) > limits.metadata_depth:
        raise Validation(f"metadata may be nested {limits.metadata_depth} deep")


def nesting_depth(value: Any) -> int:
    """How deeply objects and lists are nested: 1 for a flat object. Does not recurse: the input may be hostile."""
    deep = 0
    level = [value]
    while level := [each for each in level if isinstance(each, Mapping | list)]:
        deep += 1
        level = [item for each in level for item in (each.values() if isinstance(each, Mapping) else each)]
    return deep
