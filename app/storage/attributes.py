"""The attributes that a picture comes with, and their limits. Requests, archives and changes share these checks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from app.core.errors import Validation
from app.core.types import AnswerWarning, CameraData, Metadata

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
    camera_data: CameraData | None = None  # what a file beside the picture says


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
    check_tags(attributes.tags)
    check_metadata(attributes.metadata, limits)


def check_tags(tags: Sequence[str]) -> None:
    """Raise Validation for more or longer tags than a picture may have, and for an empty one."""
    if len(tags) > MAX_TAGS:
        raise Validation(f"a picture may have {MAX_TAGS} tags, this has {len(tags)}")
    for tag in tags:
        check_text("tag", tag, MAX_TAG_CHARS)
        if not tag:
            raise Validation("a tag is empty")


def fit_attributes(said: ImageAttributes, limits: MetadataLimits) -> tuple[ImageAttributes, list[AnswerWarning]]:
    """The attributes without what `check_attributes` refuses, which is cut or left out, and a warning for each."""
    warnings: list[AnswerWarning] = []
    id, metadata = said.id, dict(said.metadata)
    if id is not None and not ID_PATTERN.fullmatch(id):
        metadata.setdefault("id", id)
        reason = f"{id[:100]!r} is no id (1 to 64 of A-Z, a-z, 0-9, _ and -); metadata.id keeps it"
        warnings.append(AnswerWarning("left_out", reason, "id"))
        id = None
    caption = said.caption
    if caption is not None and not _is_unicode(caption):
        warnings.append(AnswerWarning("left_out", "the caption is not valid Unicode", "caption"))
        caption = None
    elif caption is not None and len(caption) > MAX_CAPTION_CHARS:
        reason = f"the caption has {len(caption):,} characters; the first {MAX_CAPTION_CHARS:,} are kept"
        warnings.append(AnswerWarning("cut", reason, "caption"))
        caption = caption[:MAX_CAPTION_CHARS]
    tags = _fit_tags(said.tags, warnings)
    return replace(
        said, id=id, caption=caption, tags=tags, metadata=_fit_metadata(metadata, limits, warnings)
    ), warnings


def _fit_tags(tags: Sequence[str], warnings: list[AnswerWarning]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(tag for tag in tags if tag))
    fit = tuple(tag for tag in wanted if len(tag) <= MAX_TAG_CHARS and _is_unicode(tag))
    if len(fit) < len(wanted):
        reason = f"{len(wanted) - len(fit)} tags have more than {MAX_TAG_CHARS} characters, or are not valid Unicode"
        warnings.append(AnswerWarning("left_out", reason, "tags"))
    if len(fit) > MAX_TAGS:
        warnings.append(AnswerWarning("cut", f"of {len(fit)} tags the first {MAX_TAGS} are kept", "tags"))
    return fit[:MAX_TAGS]


def _fit_metadata(metadata: dict[str, Any], limits: MetadataLimits, warnings: list[AnswerWarning]) -> dict[str, Any]:
    """The metadata without the values that cannot be stored, then without the largest, until the rest fits."""
    sizes: dict[str, int] = {}
    for name, value in metadata.items():
        with suppress(Validation):
            check_metadata({name: value}, limits)
            sizes[name] = len(_encode_json({name: value}))
    while sum(sizes.values()) > limits.metadata_bytes:  # each is counted with its braces, as much as the commas take
        sizes.pop(max(sizes, key=sizes.__getitem__))
    if lost := [name for name in metadata if name not in sizes]:
        listed = ", ".join(repr(name[:50]) for name in lost[:5]) + (", …" if len(lost) > 5 else "")
        reason = f"it may have {limits.metadata_bytes:,} bytes of plain JSON, nested {limits.metadata_depth} deep"
        warnings.append(AnswerWarning("left_out", f"{listed}: {reason}", "metadata"))
    return {name: metadata[name] for name in sizes}


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _encode_json(value: Metadata) -> bytes:
    return json.dumps(dict(value), ensure_ascii=False, allow_nan=False).encode("utf-8")


def check_id(id: str) -> None:
    """Raise Validation for what is not an id."""
    if not ID_PATTERN.fullmatch(id):
        raise Validation("an id has 1 to 64 of A-Z, a-z, 0-9, _ and -")


def check_text(what: str, text: str, max_chars: int) -> None:
    """Raise Validation for text that is too long or not Unicode (lone surrogates)."""
    if len(text) > max_chars:
        raise Validation(f"a {what} may have {max_chars} characters, this has {len(text)}")
    if not _is_unicode(text):
        raise Validation(f"the {what} is not valid Unicode")


def check_metadata(metadata: Metadata, limits: MetadataLimits) -> None:
    """Raise Validation for metadata beyond the limits, and for values that JSON cannot represent."""
    try:
        size = len(_encode_json(metadata))
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
