"""Sidecar files of pictures in a webdataset: `key.txt` is the caption, `key.json` holds further fields."""

from __future__ import annotations

import json
from typing import Any

from app.core.types import ItemError

TEXT, JSON = "txt", "json"
MAX_SIDECAR_BYTES = {TEXT: 64 << 10, JSON: 1 << 20}
# The notes of img2dataset about its download, and EXIF, which may tell where a photo was taken.
IGNORED_FIELDS = frozenset({"caption", "tags", "exif", "status", "error_message"})
SidecarFields = dict[str, Any]


def split_key(name: str) -> tuple[str, str]:
    """The key that the members of a sample share, and the extension: `a/001.left.JPG` is (`a/001`, `left.jpg`)."""
    folder, slash, file = name.rpartition("/")
    key, _, extension = file.partition(".")
    return folder + slash + key, extension.lower()


def parse_sidecar(extension: str, data: bytes) -> SidecarFields | ItemError:
    """The `caption`, `tags` and `metadata` of a sidecar, or why it cannot be read."""
    try:
        text = data.decode("utf-8-sig")
        return (
            {"caption": text.strip()}
            if extension == TEXT
            else _parse_json(json.loads(text, parse_constant=_drop_constant))
        )
    except _BadSidecar as error:
        return ItemError("validation", f"the sample's .{extension} {error}")
    except UnicodeDecodeError:
        return ItemError("validation", f"the sample's .{extension} is not UTF-8")
    except (ValueError, RecursionError):
        return ItemError("validation", f"the sample's .{extension} is not JSON that can be stored")


def too_large_error(extension: str) -> ItemError:
    return ItemError("validation", f"the sample's .{extension} has more than {MAX_SIDECAR_BYTES[extension]:,} bytes")


def merge_sidecars(sidecars: dict[str, SidecarFields | ItemError]) -> SidecarFields | ItemError:
    """The fields of all sidecars of one sample (by extension); the caption of `.txt` wins."""
    for one in sidecars.values():
        if isinstance(one, ItemError):
            return one
    merged: SidecarFields = {}
    for extension in (JSON, TEXT):
        one = sidecars.get(extension, {})
        assert isinstance(one, dict)
        merged.update({name: value for name, value in one.items() if value})
    return merged


class _BadSidecar(Exception):
    """What is wrong with a sidecar; the text follows its name."""


def _drop_constant(constant: str) -> None:
    """NaN and infinities become null; pandas writes them for missing values."""


def _parse_json(entry: Any) -> SidecarFields:
    if not isinstance(entry, dict):
        raise _BadSidecar("is not an object")
    fields: SidecarFields = {"caption": entry["caption"].strip()} if isinstance(entry.get("caption"), str) else {}
    tags = entry.get("tags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        fields["tags"] = tags
    fields["metadata"] = {
        name: value for name, value in entry.items() if name not in IGNORED_FIELDS and value is not None
    }
    json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()  # raises for 1e999 and half a surrogate pair
    return fields
