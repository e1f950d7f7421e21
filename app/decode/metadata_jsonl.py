"""The `metadata.jsonl` of an archive: lines of `{"file", "id"?, "caption"?, "tags"?, "metadata"?}`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from app.core.types import ItemError

METADATA_FILE = "metadata.jsonl"
MAX_METADATA_FILE_BYTES = 64 << 20
MAX_REPORTED_LINES = 20  # errors for single lines; the rest are counted
METADATA_FIELDS = ("id", "caption", "tags", "metadata")


def normalise_name(name: str) -> str:
    """The name of a member for comparisons: forward slashes, no empty and no `.` parts. It is never used as a path."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def is_metadata_file(name: str) -> bool:
    """Whether a member (by its normalised name) is a metadata file: one at the root or in a top folder."""
    return name.split("/")[-1] == METADATA_FILE and name.count("/") <= 1


@dataclass(slots=True)
class ArchiveMetadata:
    """The fields of each member by its normalised name; later lines win."""

    _fields: dict[str, dict[str, Any] | ItemError] = field(default_factory=dict)
    problems: list[ItemError] = field(default_factory=list)
    _lines: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)
    _more: int = 0

    def read(self, name: str, data: bytes) -> None:
        """Add one metadata file; bad content becomes errors and raises none."""
        folder = name[: -len(METADATA_FILE)]
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip(b" \t\r\n\xef\xbb\xbf"):
                self._read_line(folder, number, line)

    def fields_of(self, name: str) -> dict[str, Any] | ItemError:
        """The fields of a member; {} if no line names it, an error if its line is bad."""
        return self._fields.get(name, {})

    def errors(self, members: frozenset[str]) -> Iterator[ItemError]:
        """Errors that belong to no member: bad lines without a name, and names that the archive does not hold."""
        for file, (number, names) in self._lines.items():
            if not names & members:
                self._report("not_found", f"line {number} names {file[:200]!r}, which is not in the archive")
        yield from self.problems
        if self._more:
            yield ItemError(
                "validation", f"{self._more:,} more lines are bad or name files that are not in the archive"
            )

    def _read_line(self, folder: str, number: int, line: bytes) -> None:
        entry: Any = None
        try:
            entry = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
            fields: dict[str, Any] | ItemError = _parse_fields(entry)
        except _BadLine as error:
            fields = ItemError("validation", f"line {number} of {METADATA_FILE} {error}")
        except (ValueError, RecursionError):
            fields = ItemError("validation", f"line {number} of {METADATA_FILE} is not valid JSON in UTF-8")
        file = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not normalise_name(file):
            detail = (
                fields.detail if isinstance(fields, ItemError) else f"line {number} of {METADATA_FILE} names no file"
            )
            self._report("validation", detail)
            return
        names = {normalise_name(folder + file)}
        if normalise_name(file).startswith(folder):
            names.add(normalise_name(file))
        self._fields.update(dict.fromkeys(names, fields))
        self._lines[file] = number, frozenset(names)

    def _report(self, code: str, detail: str) -> None:
        if len(self.problems) < MAX_REPORTED_LINES:
            self.problems.append(ItemError(code, detail))
        else:
            self._more += 1


class _BadLine(Exception):
    """What is wrong with a line; the text follows "line n of metadata.jsonl"."""


def _refuse_constant(constant: str) -> NoReturn:
    raise _BadLine(f"holds {constant}, which is not JSON")


def _parse_fields(entry: Any) -> dict[str, Any]:
    """The known fields of a line. Raises _BadLine."""
    if not isinstance(entry, dict):
        raise _BadLine("is not an object")
    fields = {name: entry[name] for name in METADATA_FIELDS if entry.get(name) is not None}
    for name in ("id", "caption"):
        if not isinstance(fields.get(name, ""), str):
            raise _BadLine(f"has {name} that is not a string")
    tags = fields.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise _BadLine("has tags that are not a list of strings")
    if not isinstance(fields.get("metadata", {}), dict):
        raise _BadLine("has metadata that is not an object")
    try:
        json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # 1e999, or half a surrogate pair
        raise _BadLine("holds a value that cannot be stored") from error
    return fields
