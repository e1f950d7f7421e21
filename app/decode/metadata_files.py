"""Files with the fields of many pictures: `metadata.jsonl` and `metadata.csv` beside them, in an archive or a folder.

A line is `{"file", "id"?, "caption"?, "tags"?, "metadata"?}`, or as Hugging Face's imagefolder has it: `file_name`, the
caption as `text`, and any other column. What a line says wrongly costs that field, never the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.errors import UrlUnreachable, Validation
from app.core.files import open_nofollow
from app.core.types import ItemError
from app.decode import column_mapping, delimited
from app.decode.camera_data import camera_data_from_json

METADATA_FILE = "metadata.jsonl"
METADATA_FILES = (METADATA_FILE, "metadata.csv", "metadata.ndjson", "metadata.tsv")
MAX_METADATA_FILE_BYTES = 64 << 20
MAX_STEPS = 100  # of a path; names of thousands would cost a millisecond each
MAX_REPORTED_LINES = 20  # errors for single lines; the rest are counted
METADATA_FIELDS = ("id", "caption", "tags", "metadata", "warnings", "camera_data")
NAMES = ("file", "file_name", "filename", "image")  # of the column that names the picture, in any case


def normalise_name(name: str) -> str:
    """The name of a member for comparisons: forward slashes, no empty and no `.` parts, the last MAX_STEPS of others.

    It is never used as a path.
    """
    return "/".join([part for part in name.replace("\\", "/").split("/") if part not in ("", ".")][-MAX_STEPS:])


def is_metadata_file(name: str) -> bool:
    """Whether a member (by its normalised name) is a metadata file, in whatever folder."""
    return name.split("/")[-1].lower() in METADATA_FILES


@dataclass(slots=True)
class MetadataFiles:
    """The fields of each picture by its normalised name; later lines win."""

    problems: list[ItemError] = field(default_factory=list)
    _fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lines: dict[str, tuple[str, int, frozenset[str]]] = field(default_factory=dict)  # what names it, where
    _found: set[str] = field(default_factory=set)
    _more: int = 0

    def read(self, name: str, data: bytes) -> bool:
        """Add one metadata file; False if it names no pictures. Bad content becomes problems and raises none."""
        folder, _, file = name.rpartition("/")
        try:
            rows = delimited.parse_table(data, Path(file.lower()).suffix)
        except Validation as error:
            self._report("validation", f"{file}: {error.detail}")
            return True
        if file.lower() != METADATA_FILE and not any(isinstance(row, dict) and _named_file(row) for row in rows):
            return False
        for number, row in enumerate(rows, 1):
            self._read_row(f"{folder}/" if folder else "", file, number, row)
        return True

    def fields_of(self, name: str) -> dict[str, Any]:
        """The fields of a picture; {} if no line names it."""
        fields = self._fields.get(name)
        if fields is None:
            return {}
        self._found.add(name)
        return fields

    def find_problems(self) -> Iterator[ItemError]:
        """Errors that belong to no picture: bad lines without a name, and names that `fields_of` was never asked."""
        for named, (file, number, names) in self._lines.items():
            if not names & self._found:
                self._report("not_found", f"line {number} of {file} names {named[:200]!r}, which is not there")
        yield from self.problems
        if self._more:
            yield ItemError("validation", f"{self._more:,} more lines are bad or name files that are not there")

    def _read_row(self, folder: str, file: str, number: int, row: Mapping[str, Any] | Validation) -> None:
        where = f"line {number} of {file}"
        if isinstance(row, Validation):
            self._report("validation", f"{where} cannot be read: {row.detail}")
            return
        named = _named_file(row)
        if named is None or not normalise_name(str(row[named])):
            self._report("validation", f"{where} names no file")
            return
        path = str(row[named])
        names = {normalise_name(folder + path)}
        if normalise_name(path).startswith(folder):
            names.add(normalise_name(path))
        others = {name: value for name, value in row.items() if name != named}
        carried = others.pop("camera_data") if _is_camera_data(others.get("camera_data")) else None
        fields = column_mapping.read_entry(others, column_mapping.find_roles(list(others), {}), where)
        if carried:
            fields["camera_data"] = carried
        self._fields.update(dict.fromkeys(names, fields))
        self._lines[path] = file, number, frozenset(names)

    def _report(self, code: str, detail: str) -> None:
        if len(self.problems) < MAX_REPORTED_LINES:
            self.problems.append(ItemError(code, detail))
        else:
            self._more += 1


def _named_file(row: Mapping[str, Any]) -> str | None:
    """The column that names the picture."""
    by_name = {name.casefold(): name for name in row}
    return next((by_name[name] for name in NAMES if isinstance(row.get(by_name.get(name, "")), str)), None)


def _is_camera_data(value: Any) -> bool:
    """Whether `sightline ingest` wrote this of a sidecar; another value is metadata."""
    try:
        return isinstance(value, dict) and camera_data_from_json(value) is not None
    except ValueError:
        return False


def read_metadata_path(metadata: MetadataFiles, path: Path, name: str) -> bool:
    """Read a metadata file of a folder, if it is one by its name and content; False if it is not."""
    if not is_metadata_file(name):
        return False
    try:
        with open(path, "rb", opener=open_nofollow) as file:
            data = file.read(MAX_METADATA_FILE_BYTES + 1)
    except OSError as error:
        metadata.problems.append(ItemError(UrlUnreachable.code, f"{name}: {error.strerror}"))
        return True
    if len(data) > MAX_METADATA_FILE_BYTES:
        metadata.problems.append(ItemError("validation", f"{name} has more than {MAX_METADATA_FILE_BYTES:,} bytes"))
        return True
    return metadata.read(name, data)
