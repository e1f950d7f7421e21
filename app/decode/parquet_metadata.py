"""List the rows of a Parquet table as lines of JSON: texts, numbers and times only. Runs in a decode child."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.core.errors import ArchiveCorrupt, UrlUnreachable
from app.core.files import open_nofollow

BATCH_ROWS = 1_000
BUFFER_BYTES = 1 << 20


def list_metadata(path: Path, out: Path, max_lines: int) -> int:
    """Write an object for each row to `out`, without missing values, at most `max_lines`; returns their number.

    Raises UrlUnreachable for a file that cannot be read, ArchiveCorrupt for no Parquet.
    """
    from pyarrow import ArrowException

    count = 0
    try:
        with open(path, "rb", opener=open_nofollow) as file, out.open("w", encoding="ascii") as lines:
            for row in _iter_rows(file):
                lines.write(json.dumps(row) + "\n")
                count += 1
                if count >= max_lines:
                    break
    except (ArrowException, ValueError) as error:
        raise ArchiveCorrupt(f"{path.name} is no Parquet table, or is damaged") from error
    except OSError as error:
        raise UrlUnreachable(f"{path.name} cannot be read: {error.strerror or 'it is damaged'}") from None
    return count


def _iter_rows(file: Any) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet, types

    with parquet.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as table:
        names = [
            field.name
            for field in table.schema_arrow
            if not (types.is_nested(field.type) or types.is_binary(field.type) or types.is_large_binary(field.type))
            and not field.name.startswith("__")
        ]
        for batch in table.iter_batches(BATCH_ROWS, columns=names, use_threads=False):
            for row in batch.to_pylist():
                yield {name: plain for name, value in row.items() if (plain := _to_json_value(value)) is not None}


def _to_json_value(value: Any) -> Any:
    """A value as JSON has it; None if it is missing."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
