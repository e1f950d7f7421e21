"""What stands beside a picture in a webdataset: `key.txt` is its caption, `key.json` says more of it."""

from __future__ import annotations

import json
from typing import Any

from app.core.types import ItemError

TEXT, FACTS = "txt", "json"
MAX_SIDECAR_BYTES = {TEXT: 64 << 10, FACTS: 1 << 20}
# What img2dataset notes of its download, and what would tell where a photo was taken.
IGNORED_FIELDS = frozenset({"caption", "tags", "exif", "status", "error_message"})
SidecarFields = dict[str, Any]


def split_key(name: str) -> tuple[str, str]:
    """The key that a sample's members share, and what this one is: `a/001.left.JPG` is (`a/001`, `left.jpg`)."""
    folder, slash, file = name.rpartition("/")
    key, _, extension = file.partition(".")
    return folder + slash + key, extension.lower()


def parse_sidecar(extension: str, data: bytes) -> SidecarFields | ItemError:
    """What a sidecar says: `caption`, `tags`, `metadata`; or what is wrong with it."""
    try:
        text = data.decode("utf-8-sig")
        return {"caption": text.strip()} if extension == TEXT else _facts(json.loads(text, parse_constant=_nothing))
    except _Odd as error:
        return ItemError("validation", f"The sample's .{extension} {error}.")
    except UnicodeDecodeError:
        return ItemError("validation", f"The sample's .{extension} is not UTF-8.")
    except (ValueError, RecursionError):
        return ItemError("validation", f"The sample's .{extension} is not JSON that can be stored.")


def too_large_error(extension: str) -> ItemError:
    """What is wrong with one past its bound."""
    return ItemError("validation", f"The sample's .{extension} has more than {MAX_SIDECAR_BYTES[extension]:,} bytes.")


def merge_sidecars(said: dict[str, SidecarFields | ItemError]) -> SidecarFields | ItemError:
    """What the sidecars of one sample say together, by extension; the caption of `.txt` counts first."""
    for one in said.values():
        if isinstance(one, ItemError):
            return one
    found: SidecarFields = {}
    for extension in (FACTS, TEXT):
        one = said.get(extension, {})
        assert isinstance(one, dict)
        found.update({name: value for name, value in one.items() if value})
    return found


class _Odd(Exception):
    """What is wrong with a sidecar, to follow its name."""


def _nothing(constant: str) -> None:
    """NaN and the infinities, which pandas writes for what is missing."""


def _facts(entry: Any) -> SidecarFields:
    if not isinstance(entry, dict):
        raise _Odd("is not an object")
    said: SidecarFields = {"caption": entry["caption"].strip()} if isinstance(entry.get("caption"), str) else {}
    tags = entry.get("tags")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        said["tags"] = tags
    said["metadata"] = {
        name: value for name, value in entry.items() if name not in IGNORED_FIELDS and value is not None
    }
    json.dumps(said, ensure_ascii=False, allow_nan=False).encode()  # 1e999, or half of a surrogate pair
    return said
