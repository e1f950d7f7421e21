"""Map the columns of a table to their roles by their usual names: picture, URL, path, caption, id, tags."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from app.core.base64_text import decode_base64
from app.core.errors import Validation
from app.core.types import AnswerWarning
from app.decode.headers import has_picture_suffix

# In order of preference, in any case.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "image_bytes", "bytes", "img", "picture", "jpg", "jpeg", "png", "webp", "image_base64"),
    "url": ("url", "image_url", "image_link"),
    "path": ("filepath", "file_path", "path", "image_path", "file_name", "filename", "image_file", "file"),
    "caption": ("caption", "text", "title", "alt_text", "prompt"),
    "id": ("id", "image_id"),
    "tags": ("tags", "keywords"),
}
ROLES = frozenset(USUAL_NAMES)
IGNORED_COLUMNS = frozenset({"exif", "status", "error_message"})  # notes of img2dataset
MAX_PATH_CHARS = 4_096
_WHOLE_NUMBER = re.compile(r"(\d+)\.0+")
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """The column of each role, or None. The columns in `rest` become metadata."""

    image: str | None
    url: str | None
    path: str | None
    caption: str | None
    id: str | None
    tags: str | None
    rest: tuple[str, ...]

    @property
    def picture(self) -> str:
        """The column with the bytes, the URL or the path of the picture."""
        return self.image or self.url or self.path or ""


def map_columns(names: Iterable[str], requested: Mapping[str, str]) -> ColumnMapping:
    """Map the columns `names`: `requested` names some by role, the others are found by their usual names.

    An empty name switches a role off. Raises Validation if a requested column does not exist, and if no column holds
    pictures, URLs or paths.
    """
    names = list(names)
    roles = find_roles(names, requested)
    for role in ("path", "url"):
        if requested.get(role):
            roles.update({other: None for other in ("image", "url") if other != role and not requested.get(other)})
            break
    pictures = [name for name in (roles["image"], roles["url"], roles["path"]) if name is not None]
    if not pictures:
        if any(is_url(name) or has_picture_suffix(name) for name in names):
            raise Validation(
                "the first line is no header, but holds a picture's URL or path (a list of URLs goes with --urls)"
            )
        listed = format_column_names(names)
        raise Validation(f"no column holds pictures, URLs or paths, among {listed}; name one with columns")
    used = {pictures[0], roles["caption"], roles["id"], roles["tags"]}
    rest = (name for name in names if name not in used and name.casefold() not in IGNORED_COLUMNS)
    return ColumnMapping(**roles, rest=tuple(rest))


def find_roles(names: list[str], requested: Mapping[str, str]) -> dict[str, str | None]:
    """The column of each role, or None. Raises Validation if a requested column does not exist."""
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(name.casefold(), name)
    roles: dict[str, str | None] = {}
    for role, usual in USUAL_NAMES.items():
        wanted = requested.get(role)
        if wanted and wanted not in names:
            raise Validation(f"there is no column {wanted!r} for the {role}; there are {format_column_names(names)}")
        free = (by_name[name] for name in usual if name in by_name and by_name[name] not in requested.values())
        roles[role] = next(free, None) if wanted is None else wanted or None
    return roles


def format_column_names(names: list[str]) -> str:
    """Names of columns for a message, at most 20 of them."""
    listed = ", ".join(name[:50] for name in names[:20])
    return listed + (", …" if len(names) > 20 else "") if names else "no columns"


def read_attributes(row: Mapping[str, Any], columns: ColumnMapping) -> Line:
    """The caption, id, tags and metadata of a row, without empty values."""
    fields: Line = {}
    caption = to_json_value(row.get(columns.caption)) if columns.caption else None
    if isinstance(caption, list):
        caption = next((one for one in caption if isinstance(one, str)), None)
    if isinstance(caption, str) and caption.strip():
        fields["caption"] = caption.strip()
    elif isinstance(caption, int | float):
        fields["caption"] = str(caption)
    if columns.id and isinstance(id := to_json_value(row.get(columns.id)), str | int | float) and id != "":
        fields["id"] = format_id(id)
    tags = to_json_value(row.get(columns.tags)) if columns.tags else None
    if isinstance(tags, str):
        tags = _split_tags(tags)
    if isinstance(tags, list) and (names := [str(tag).strip() for tag in tags if tag and str(tag).strip()]):
        fields["tags"] = names
    metadata = {name: value for name in columns.rest if (value := to_json_value(row.get(name))) not in (None, "")}
    if metadata:
        fields["metadata"] = metadata
    return fields


def read_entry(entry: Mapping[str, Any], roles: Mapping[str, str | None], where: str) -> Line:
    """The caption, id, tags and metadata of a line or a file about one picture, by the names of these `roles`.

    The entries of an object `metadata`, and all fields without a role, are the metadata. `where` begins the warning
    for a value that cannot be stored.
    """
    named = {role: roles.get(role) for role in ("caption", "id", "tags")}
    fields = read_attributes(entry, ColumnMapping(None, None, None, **named, rest=()))
    metadata = entry.get("metadata")
    rest: dict[str, Any] = dict(metadata) if isinstance(metadata, Mapping) else {}
    used = {*named.values(), "metadata" if isinstance(metadata, Mapping) else None}
    rest.update({name: value for name, value in entry.items() if name not in used})
    plain = {name: to_json_value(value) for name, value in rest.items()}
    fields["metadata"] = {name: value for name, value in plain.items() if value not in (None, "")}
    lost = [name for name, value in rest.items() if plain[name] is None and not _is_missing(value)]
    lost += [role for role, name in named.items() if not _is_missing(entry.get(name or "")) and role not in fields]
    if lost:
        fields["warnings"] = [
            asdict(AnswerWarning("left_out", f"{where}: the value of {name[:50]!r} cannot be stored", name[:50]))
            for name in lost
        ]
    return {name: value for name, value in fields.items() if value}


def _is_missing(value: Any) -> bool:
    return value in (None, "", []) or value != value  # NaN


def _split_tags(text: str) -> list[Any]:
    """Tags with commas between them, or a list as JSON or Python writes it."""
    if text.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            listed = json.loads(text if '"' in text else text.replace("'", '"'))
            if isinstance(listed, list):
                return listed
    return text.split(",")


def format_id(value: Any) -> str:
    """An id as text: a whole number that a program wrote as a fraction (`12.0`) without it."""
    text = str(value).strip()
    whole = _WHOLE_NUMBER.fullmatch(text)
    return whole[1] if whole else text


def to_json_value(value: Any) -> Any:
    """A value as JSON has it; None for a value that JSON cannot hold: bytes, NaN, very deep nesting."""
    try:
        json.dumps(plain := _to_plain(value), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError, TypeError):
        return None
    return plain


def _to_plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _to_plain(float(value)) if value % 1 else int(value)
    if isinstance(value, list | tuple):
        return [_to_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _to_plain(one) for name, one in value.items()}
    return value if isinstance(value, str | int | bool) else None


def is_url(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip()[:8].lower().startswith(("http://", "https://"))


def read_path(value: Any) -> str | None:
    """The path in a cell that holds the name of a picture's file, or `{path}` as Hugging Face; base64 has no dots."""
    if isinstance(value, Mapping) and not value.get("bytes"):
        value = value.get("path")
    if not isinstance(value, str) or len(value) > MAX_PATH_CHARS or "\n" in value or value.startswith("data:"):
        return None
    path = value.strip()
    path = unquote(path.removeprefix("file://")) if path.startswith("file://") else path.replace("\\", "/")
    return path if has_picture_suffix(path) else None


def read_picture_cell(value: Any) -> bytes:
    """The bytes of the picture in a cell: plain, nested as Hugging Face does, or in base64. Raises Validation."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str) or not value:
        raise Validation("the row holds no picture")
    try:
        return decode_base64(value)
    except ValueError:
        raise Validation("the row's picture is neither bytes nor base64") from None
