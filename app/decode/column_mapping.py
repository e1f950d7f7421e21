"""The columns of a table by their usual names: where the picture is, and what is said of it."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from app.core.errors import Validation

# In order of preference; letters of either case are the same.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "image_bytes", "bytes", "img", "picture", "jpg", "jpeg", "png", "webp", "image_base64"),
    "url": ("url", "image_url", "image_link"),
    "caption": ("caption", "text", "title", "alt_text"),
    "id": ("id", "image_id"),
    "tags": ("tags", "keywords"),
}
ROLES = frozenset(USUAL_NAMES)
IGNORED_COLUMNS = frozenset({"exif", "status", "error_message"})  # of img2dataset
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """The column of each role, None where there is none; `rest` become metadata."""

    image: str | None
    url: str | None
    caption: str | None
    id: str | None
    tags: str | None
    rest: tuple[str, ...]

    @property
    def picture(self) -> str:
        """The column of the picture, bytes or URL."""
        return self.image or self.url or ""


def map_columns(names: Iterable[str], given: Mapping[str, str]) -> ColumnMapping:
    """The columns among `names`: those that are `given` by role, the others by their usual names.

    Raises Validation for a column that is not there, and when there is neither picture nor URL.
    """
    names = list(names)
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(name.casefold(), name)
    roles: dict[str, str | None] = {}
    for role, usual in USUAL_NAMES.items():
        if (asked := given.get(role)) is not None and asked not in names:
            raise Validation(f"there is no column {asked!r} for the {role}; there are {format_column_names(names)}")
        free = (by_name[name] for name in usual if name in by_name and by_name[name] not in given.values())
        roles[role] = asked or next(free, None)
    if given.get("url") and not given.get("image"):
        roles["image"] = None
    if roles["image"] is None and roles["url"] is None:
        raise Validation(f"no column holds pictures or URLs, among {format_column_names(names)}; name one with columns")
    used = {name for role, name in roles.items() if role != "url" or roles["image"] is None}
    rest = (name for name in names if name not in used and name.casefold() not in IGNORED_COLUMNS)
    return ColumnMapping(**roles, rest=tuple(rest))


def format_column_names(names: list[str]) -> str:
    """Names of columns for a person, not without end."""
    listed = ", ".join(name[:50] for name in names[:20])
    return listed + (", …" if len(names) > 20 else "") if names else "no columns"


def read_attributes(row: Mapping[str, Any], columns: ColumnMapping) -> Line:
    """What a row says of its picture; what is empty is left out."""
    said: Line = {}
    caption = to_json_value(row.get(columns.caption)) if columns.caption else None
    if isinstance(caption, list):
        caption = next((one for one in caption if isinstance(one, str)), None)
    if isinstance(caption, str) and caption.strip():
        said["caption"] = caption.strip()
    if columns.id and (id := to_json_value(row.get(columns.id))) not in (None, ""):
        said["id"] = str(id)
    tags = to_json_value(row.get(columns.tags)) if columns.tags else None
    if isinstance(tags, str):
        tags = tags.split(",")
    if isinstance(tags, list) and (kept := [str(tag).strip() for tag in tags if tag and str(tag).strip()]):
        said["tags"] = kept
    metadata = {name: value for name in columns.rest if (value := to_json_value(row.get(name))) not in (None, "")}
    if metadata:
        said["metadata"] = metadata
    return said


def to_json_value(value: Any) -> Any:
    """A value as JSON can say it; None for what it cannot: bytes, NaN, what is nested deeply."""
    try:
        json.dumps(made := _plain(value), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError, TypeError):
        return None
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return value if isinstance(value, str | int | bool) else None


def is_url(value: Any) -> bool:
    """Whether a cell holds a URL."""
    return isinstance(value, str) and value.lstrip()[:8].lower().startswith(("http://", "https://"))


def read_picture_cell(value: Any) -> bytes:
    """The bytes of a picture in a cell: as they are, as Hugging Face nests them, or in base64. Raises Validation."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str) or not value:
        raise Validation("the row holds no picture")
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Validation("the row's picture is neither bytes nor base64") from None
