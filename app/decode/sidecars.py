"""Sidecar files of pictures: `cat.txt` beside `cat.jpg` is its caption, `cat.json` and `cat.xmp` hold further fields.

The same rules hold in folders, archives and webdatasets, for the JSON that Google Takeout puts beside photographs, and
for the XMP of Apple Photos, Lightroom and darktable.
A sidecar that cannot be read, or does not fit, never costs the picture: it leaves a warning.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from html import unescape
from pathlib import PurePosixPath
from typing import Any

from app.core.types import AnswerWarning, CameraData
from app.decode import column_mapping
from app.decode.camera_data import (
    camera_data_from_json,
    camera_data_from_xmp,
    camera_data_to_json,
    make_tags,
    merge_camera_data,
    with_time,
)
from app.decode.headers import has_picture_suffix
from app.decode.taken_time import parse_epoch
from app.decode.xmp import MAX_XMP_BYTES, BadXmp, make_location, parse_xmp

TEXT, JSON, XMP = "txt", "json", "xmp"
MAX_SIDECAR_BYTES = {TEXT: 64 << 10, JSON: 1 << 20, XMP: MAX_XMP_BYTES}
MAX_CAPTION_LINES = 5  # a text with more is a list, or one caption in many languages
# The notes of img2dataset about its download, and EXIF, which may tell where a photo was taken.
IGNORED_FIELDS = frozenset({"exif", "status", "error_message"})
# `caption`, `tags`, `metadata` and `camera_data`, as a line of a manifest has them, and `warnings` (`AnswerWarning`s as
# objects).
SidecarFields = dict[str, Any]

LEGACY_ENCODING = "cp1252"
_TAKEOUT_WORD = "supplemental-metadata"
_TAKEOUT_CHARS = 46  # Google Takeout cuts the name of a sidecar, without its `.json`, here
_NUMBERED = re.compile(r"(.*?)(\(\d{1,6}\))?", re.DOTALL)
_EDITED = re.compile(
    r"-(edited|bearbeitet|modifié|editado|modificato|bewerkt|edytowane|redigerad|編集済み|已修改)(?=(?:\(\d{1,6}\))?\.)"
)


def split_key(name: str) -> tuple[str, str]:
    """The key that the members of a sample share, and the extension: `a/001.left.JPG` is (`a/001`, `left.jpg`)."""
    folder, slash, file = name.rpartition("/")
    key, _, extension = file.partition(".")
    return folder + slash + key, extension.lower()


def split_suffix(name: str) -> tuple[str, str]:
    """A file name before its last suffix, and that: (`a.left`, `.jpg`)."""
    path = PurePosixPath(name)
    return (path.stem, path.suffix) if path.name == name else (name, "")


def sidecar_extension(name: str) -> str | None:
    """`txt`, `json` or `xmp` if a file may be a sidecar by its name."""
    extension = name.rpartition(".")[2].lower()
    return extension if "." in name and extension in MAX_SIDECAR_BYTES else None


def match_sidecars(pictures: Iterable[str], sidecars: Iterable[str]) -> dict[str, list[str]]:
    """The sidecars of each picture, both by their names in one folder.

    `cat.jpg.json`, `cat.json` and, for `cat.left.jpg`, also `cat.json` belong to a picture; of Google Takeout
    `cat.jpg.supplemental-metadata(1).json`, however it was cut, belongs to `cat(1).jpg`.
    """
    names = sorted(pictures)
    by_stem: dict[str, list[str]] = {}
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(split_suffix(name)[0], []).append(name)
        by_key.setdefault(split_key(name)[0], []).append(name)
    whole = set(names)
    found: dict[str, list[str]] = {}
    for sidecar in sorted(sidecars):
        base = sidecar.rpartition(".")[0]
        taken_out = _name_in_takeout(base)
        owners = [base] if base in whole else by_stem.get(base) or by_key.get(base) or []
        owners = owners or ([taken_out] if taken_out in whole else by_stem.get(taken_out, []))
        for owner in owners or _find_cut_name(base, taken_out, names):
            found.setdefault(owner, []).append(sidecar)
    for name in names:
        if name not in found and (original := found.get(_EDITED.sub("", name))):
            found[name] = original
    return found


def match_sidecar_paths(pictures: Iterable[str], sidecars: Iterable[str]) -> dict[str, list[str]]:
    """Like `match_sidecars`, by names with folders: a sidecar lies in the folder of its picture."""
    folders: dict[str, tuple[list[str], list[str]]] = {}
    for n, names in enumerate((pictures, sidecars)):
        for name in names:
            folder, slash, file = name.rpartition("/")
            folders.setdefault(folder + slash, ([], []))[n].append(file)
    return {
        folder + picture: [folder + one for one in found]
        for folder, (inside, beside) in folders.items()
        for picture, found in match_sidecars(inside, beside).items()
    }


def _name_in_takeout(base: str) -> str:
    """The picture's name in that of a sidecar of Google Takeout: `a.jpg.suppl(1)` is about `a(1).jpg`."""
    match = _NUMBERED.fullmatch(base)
    assert match is not None  # it matches everything
    name, number = match[1], match[2] or ""
    head, dot, word = name.rpartition(".")
    if dot and head and _TAKEOUT_WORD.startswith(word):
        name = head
    stem, suffix = split_suffix(name)
    return stem + number + suffix


def _find_cut_name(base: str, name: str, names: list[str]) -> list[str]:
    """The only picture whose name begins like that of a sidecar, if the sidecar's name was cut."""
    if abs(len(base) - _TAKEOUT_CHARS) > 1:
        return []
    at = bisect_left(names, name)
    found = [one for one in names[at : at + 2] if one.startswith(name)]
    return found if len(found) == 1 else []


def parse_sidecar(extension: str, data: bytes, name: str = "") -> SidecarFields:
    """The fields of a sidecar; only `warnings` if it cannot be read. `name` is what a warning calls it."""
    name = name or f"the .{extension}"
    if len(data) > MAX_SIDECAR_BYTES[extension]:
        return refuse_sidecar(extension, f"{name} has more than {MAX_SIDECAR_BYTES[extension]:,} bytes")
    try:
        if extension == TEXT:
            return _parse_caption(data, name)
        if extension == XMP:
            return _parse_xmp(data)
        return _parse_json(json.loads(data.decode("utf-8-sig"), parse_constant=_drop_constant), name)
    except (_BadSidecar, BadXmp) as error:
        return refuse_sidecar(extension, f"{name}: {error}" if extension == XMP else f"{name} {error}")
    except UnicodeDecodeError:
        return refuse_sidecar(extension, f"{name} is not UTF-8")
    except (ValueError, RecursionError):
        return refuse_sidecar(extension, f"{name} is not JSON that can be stored")


def refuse_sidecar(extension: str, reason: str) -> SidecarFields:
    """The fields of a sidecar that gives none, with the reason."""
    about = "caption" if extension == TEXT else "metadata"
    return {"warnings": [asdict(AnswerWarning("left_out", reason, about))]}


def merge_sidecars(sidecars: Iterable[tuple[str, SidecarFields]]) -> SidecarFields:
    """The fields of all sidecars of a picture, each with its extension: `txt` wins over `xmp`, that over `json`."""
    merged: SidecarFields = {}
    warnings: list[Mapping[str, Any]] = []
    carried: list[CameraData] = []
    for _, one in sorted(sidecars, key=lambda pair: (pair[0] == TEXT, pair[0] == XMP)):
        warnings += one.get("warnings", [])
        merged.update({name: value for name, value in one.items() if value})
        if "camera_data" in one:
            carried.insert(0, camera_data_from_json(one["camera_data"]))
    if len(carried) > 1:
        merged["camera_data"] = camera_data_to_json(merge_camera_data(carried))
    return {**merged, "warnings": warnings} if warnings else merged


def is_of_lost_picture(fields: SidecarFields) -> bool:
    """Whether a sidecar that belongs to no picture here is Google Takeout's about one, which is in another part."""
    metadata = fields.get("metadata") or {}
    return "taken" in metadata and has_picture_suffix(str(metadata.get("title", "")))


class _BadSidecar(Exception):
    """What is wrong with a sidecar; the text follows its name."""


def _drop_constant(constant: str) -> None:
    """NaN and infinities become null; pandas writes them for missing values."""


def _parse_caption(data: bytes, name: str) -> SidecarFields:
    fields: SidecarFields = {}
    try:
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode(LEGACY_ENCODING)  # raises UnicodeDecodeError, too
        warning = AnswerWarning("encoding", f"{name} is not UTF-8; it was read as Windows-1252", "caption")
        fields["warnings"] = [asdict(warning)]
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > MAX_CAPTION_LINES:
        reason = f"{name} is no caption: it has {len(lines)} lines, and a caption at most {MAX_CAPTION_LINES}"
        return refuse_sidecar(TEXT, reason)
    return {"caption": text.strip(), **fields}


def _parse_json(entry: Any, name: str) -> SidecarFields:
    if not isinstance(entry, dict):
        raise _BadSidecar("is not an object")
    if "photoTakenTime" in entry:
        return _parse_takeout(entry)
    plain = {field: value for field, value in entry.items() if field not in IGNORED_FIELDS}
    return column_mapping.read_entry(plain, {"caption": "caption", "tags": "tags"}, name)


def _parse_xmp(data: bytes) -> SidecarFields:
    """The words and the camera data of XMP."""
    said = camera_data_from_xmp(parse_xmp(data))
    fields: SidecarFields = {"caption": said.caption, "tags": list(said.tags)}
    fields["camera_data"] = camera_data_to_json(replace(said, caption=None, tags=()))
    return {name: value for name, value in fields.items() if value}


def _parse_takeout(entry: Mapping[str, Any]) -> SidecarFields:
    """What Google Takeout says of a photograph: description, people (as tags), time, place and title."""
    fields: SidecarFields = {"metadata": {}}
    if isinstance(description := entry.get("description"), str) and description.strip():
        fields["caption"] = unescape(description).strip()
    if isinstance(title := entry.get("title"), str) and title:
        fields["metadata"]["title"] = unescape(title)
    people = entry.get("people")
    named = (one.get("name") for one in (people if isinstance(people, list) else ()) if isinstance(one, dict))
    if names := make_tags(unescape(name) for name in named if isinstance(name, str)):
        fields["tags"] = list(names)
    taken = entry["photoTakenTime"]
    time = parse_epoch(taken.get("timestamp")) if isinstance(taken, dict) else None
    if time is not None:
        fields["metadata"]["taken"] = f"{time.wall}Z"
    geo = entry.get("geoData")
    place = make_location(geo.get("latitude"), geo.get("longitude")) if isinstance(geo, dict) else None
    said = CameraData(latitude=place[0], longitude=place[1]) if place else CameraData()
    if carried := camera_data_to_json(with_time(said, time)):
        fields["camera_data"] = carried
    json.dumps(fields, ensure_ascii=False).encode()  # raises for half a surrogate pair
    return fields
