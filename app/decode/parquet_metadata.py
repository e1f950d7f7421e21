"""Rows of a Parquet table as lines of JSON. Runs in a decode child.

Of each row what can be said in JSON is kept: words, numbers, times; no bytes, lists or structures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.core.errors import ArchiveCorrupt, UrlUnreachable
from app.core.files import open_nofollow

BATCH = 1_000  # rows read at once
PAGE = 1 << 20


def list_metadata(path: Path, out: Path, most: int) -> int:
    """Write an object for each row, without what is missing, to `out`; returns how many there are, at most `most`.

    Raises UrlUnreachable for a file that cannot be read, ArchiveCorrupt for one that is no Parquet.
    """
    from pyarrow import ArrowException

    count = 0
    try:
        with open(path, "rb", opener=open_nofollow) as file, out.open("w", encoding="ascii") as lines:
            for row in _rows(file):
                lines.write(json.dumps(row) + "\n")
                count += 1
                if count >= most:
                    break
    except (ArrowException, ValueError) as error:
        raise ArchiveCorrupt(f"{path.name} is no Parquet table, or is damaged") from error
    except OSError as error:
        raise UrlUnreachable(f"{path.name} cannot be read: {error.strerror or 'it is damaged'}") from None
    return count


def _rows(file: Any) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet, types

    with parquet.ParquetFile(file, buffer_size=PAGE, pre_buffer=False) as table:
        said = [
            field.name
            for field in table.schema_arrow
            if not (types.is_nested(field.type) or types.is_binary(field.type) or types.is_large_binary(field.type))
            and not field.name.startswith("__")
        ]
        for batch in table.iter_batches(BATCH, columns=said, use_threads=False):
            for row in batch.to_pylist():
                yield {name: told for name, value in row.items() if (told := _told(value)) is not None}


def _told(value: Any) -> Any:
    """A value as JSON has it; None for what is missing."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
