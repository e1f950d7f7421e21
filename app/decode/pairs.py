"""Sets of pairs of a picture and its texts, by which a search is measured or taught. Runs in a decode child.

A table (CSV, TSV, JSONL) has a column for the picture and one for its text; JSON has a list of such rows, or is a
file of Karpathy's splits of COCO and Flickr30k (`dataset_coco.json`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.errors import ArchiveCorrupt, Validation
from app.decode import delimited
from app.decode.column_mapping import format_column_names

JSON_SUFFIX = ".json"
PAIR_SUFFIXES = (*delimited.DELIMITERS, *delimited.JSON_LINES, JSON_SUFFIX)
MAX_PAIRS = 30_000
MAX_TEXT_CHARS = 1_000  # the rest is cut off: no model reads it
MAX_NAME_CHARS = 4_096
MAX_JSON_BYTES = 256 << 20
# In order of preference, in any case.
PICTURE_COLUMNS = (
    *("picture", "image", "id", "image_id", "sha256", "filepath", "file_path", "path", "image_path"),
    *("file_name", "filename", "image_name", "image_file", "file", "name"),
)
TEXT_COLUMNS = (
    *("texts", "text", "captions", "caption", "sentences", "sentence", "raw", "comment", "query"),
    *("title", "alt_text", "description", "label"),
)
SEPARATORS = frozenset(" \t\r\n,")
_IMAGES = re.compile(r'"images"\s*:\s*\[')


def list_pairs(path: Path, suffix: str, out: Path, split: str) -> dict[str, Any]:
    """Write `[picture, texts]` as a line of JSON to `out` for each row of a set, and `{"error"}` for one without both.

    Returns the `splits` that Karpathy's file has, counted; of those, `split` is taken. Raises Validation for a file
    that is no set, or that has more than MAX_PAIRS pairs.
    """
    splits: Counter[str] = Counter()
    count = 0
    with out.open("w", encoding="ascii") as lines:
        for n, row in enumerate(_iter_rows(path, suffix.lower()), start=1):
            if isinstance(row, dict) and isinstance(row.get("sentences"), list) and "split" in row:
                splits[str(row["split"])] += 1
                if row["split"] != split:
                    continue
                row = _read_karpathy(row)
            line = f"row {n}: {row.detail}" if isinstance(row, Validation) else _read_row(row, n)
            if isinstance(line, list):
                count += len(line[1])
                if count > MAX_PAIRS:
                    raise Validation(
                        f"the set has more than {MAX_PAIRS:,} pairs, which is the limit: send a part of it"
                    )
            lines.write(json.dumps(line if isinstance(line, list) else {"error": line}) + "\n")
    return dict(splits)


def _iter_rows(path: Path, suffix: str) -> Iterator[Mapping[str, Any] | Validation]:
    if suffix not in PAIR_SUFFIXES:
        raise Validation(f"a set of pairs is one of {', '.join(PAIR_SUFFIXES)}")
    if suffix == JSON_SUFFIX:
        yield from _iter_json(path)
        return
    layout = delimited.read_layout(path, suffix)
    if layout is not None:
        _require_columns(layout.names)
    for _, _, row in delimited.iter_rows(path, suffix, layout):
        yield row


def _iter_json(path: Path) -> Iterator[Mapping[str, Any] | Validation]:
    """The objects of a list, or of the list `images`, one after the other: parsed at once they need ten times as much
    memory as the text."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise Validation(f"the JSON of a set may have {MAX_JSON_BYTES:,} bytes; write it as JSONL")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise Validation("the set is not JSON in UTF-8") from None
    start = re.compile(r"\s*\[").match(text) or _IMAGES.search(text)
    if start is None:
        raise Validation("the JSON is neither a list of pairs nor has it a list `images`, as dataset_coco.json does")
    at, decoder = start.end(), json.JSONDecoder()
    while True:
        while text[at : at + 1] in SEPARATORS:
            at += 1
        if text[at : at + 1] == "]":
            return
        try:
            row, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise ArchiveCorrupt("the JSON of the set is cut off or damaged") from None
        yield row if isinstance(row, dict) else Validation("it is no JSON object")


def _read_karpathy(image: Mapping[str, Any]) -> dict[str, Any]:
    """The row of an entry of `images`: `filepath` (of COCO), `filename`, and the `raw` text of each sentence."""
    name = "/".join(str(part) for part in (image.get("filepath"), image.get("filename")) if part)
    return {"picture": name, "texts": [one.get("raw") for one in image["sentences"] if isinstance(one, dict)]}


def _read_row(row: Mapping[str, Any], n: int) -> list[Any] | str:
    """The picture and its texts, or what is wrong with the row."""
    names = {name.casefold(): name for name in reversed(list(row))}
    picture = row[names[found]] if (found := _find_column(names, PICTURE_COLUMNS)) else None
    given = row[names[found]] if (found := _find_column(names, TEXT_COLUMNS)) else None
    texts = [given] if isinstance(given, str | int | float) else given if isinstance(given, Sequence) else []
    said = [_clean(text)[:MAX_TEXT_CHARS] for text in texts]
    said = [text for text in said if text]
    name = _clean(picture)
    if not name or len(name) > MAX_NAME_CHARS:
        return f"row {n}: it names no picture"
    return [name, said] if said else f"row {n}: {name[:80]} has no text"


def _clean(value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    return " ".join(str(value).encode("utf-8", "replace").decode().split())


def _find_column(names: Mapping[str, str], usual: Iterable[str]) -> str | None:
    return next((name for name in usual if name in names), None)


def _require_columns(names: Sequence[str]) -> None:
    found = {name.casefold(): name for name in names}
    for what, usual in (("pictures", PICTURE_COLUMNS), ("texts", TEXT_COLUMNS)):
        if _find_column(found, usual) is None:
            listed = format_column_names([name for name in names if name])
            raise Validation(f"no column of the set names {what}, among {listed}: name one {usual[0].rstrip('s')!r}")
