"""Read Parquet files one row group at a time. Runs in a decode child, and only there pyarrow is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.core.errors import ArchiveCorrupt, Validation
from app.core.files import open_nofollow
from app.decode.column_mapping import ColumnMapping, is_url, map_columns, read_picture_cell

ATTRIBUTE_ROWS, PICTURE_ROWS = 1_000, 16  # rows in memory at once
MAX_COLUMNS = 1_000
FOOTER_BYTES = 64 << 20

# Group, number in the group, and the values of the row; the number is -1 for a group that cannot be read.
Row = tuple[int, int, dict[str, Any] | Validation]


class ParquetTable:
    """An open Parquet file. Raises ArchiveCorrupt for any other file."""

    def __init__(self, path: Path) -> None:
        # The other memory pools of Arrow reserve more memory than a child may have.
        pa.set_memory_pool(pa.system_memory_pool())
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        self._raw = open(path, "rb", opener=open_nofollow)  # noqa: SIM115 (open until close())
        try:
            self._file = pq.ParquetFile(
                self._raw,
                pre_buffer=False,
                buffer_size=1 << 20,
                thrift_string_size_limit=FOOTER_BYTES,
                thrift_container_size_limit=FOOTER_BYTES,
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            self._raw.close()
            raise ArchiveCorrupt("this is not Parquet, or its end is missing or damaged") from error

    def close(self) -> None:
        self._file.close(force=True)
        self._raw.close()

    def map_columns(self, requested: Mapping[str, str]) -> ColumnMapping:
        """Raises Validation."""
        names = self._file.schema_arrow.names
        if len(names) > MAX_COLUMNS:
            raise Validation(f"it has {len(names)} columns; {MAX_COLUMNS} can be read")
        return map_columns((name for name in names if name), requested)

    def holds_text(self, name: str) -> bool:
        """Whether a column is text, which may be URLs or base64."""
        kind = self._file.schema_arrow.field(name).type
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

    def iter_attributes(self, columns: ColumnMapping) -> Iterator[Row]:
        """Every row without its picture; a picture column of text is included, for it may hold URLs."""
        wanted = [columns.caption, columns.id, columns.tags, *columns.rest]
        if self.holds_text(columns.picture):
            wanted.append(columns.picture)
        names = [name for name in wanted if name is not None and self._has_attributes(name)]
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if not names:
                yield from ((group, n, {}) for n in range(rows))
                continue
            try:
                n = 0
                for batch in self._iter_batches(group, names, ATTRIBUTE_ROWS):
                    for row in batch.to_pylist():
                        yield group, n, row
                        n += 1
            except (pa.ArrowException, OSError, ValueError, OverflowError):
                yield group, -1, Validation(f"row group {group + 1} of {rows} rows is damaged from row {n + 1} on")

    def group_bytes(self, group: int) -> int:
        """The size of a row group as the footer claims it."""
        return int(self._file.metadata.row_group(group).total_byte_size)

    def iter_pictures(self, name: str, group: int, first: int) -> Iterator[tuple[int, bytes | Validation]]:
        """The pictures of a row group from row `first` on. Raises ArchiveCorrupt for damage."""
        kind = self._file.schema_arrow.field(name).type
        leaf = f"{name}.bytes" if pa.types.is_struct(kind) else name
        n = 0
        try:
            for batch in self._iter_batches(group, [leaf], PICTURE_ROWS):
                if n + batch.num_rows > first:
                    column = batch.column(0)
                    for row in range(max(0, first - n), batch.num_rows):
                        yield n + row, read_picture(column[row].as_py())
                n += batch.num_rows
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise ArchiveCorrupt(f"row group {group + 1} is damaged from row {n + 1} on") from error

    def _iter_batches(self, group: int, names: list[str], size: int) -> Iterator[pa.RecordBatch]:
        yield from self._file.iter_batches(size, row_groups=[group], columns=names, use_threads=False)

    def _has_attributes(self, name: str) -> bool:
        """Whether a column may hold attributes: not if it holds bytes or vectors."""
        kind = self._file.schema_arrow.field(name).type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return not (pa.types.is_floating(kind.value_type) or holds_bytes(kind.value_type))
        return not (holds_bytes(kind) or pa.types.is_fixed_size_list(kind))


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a type is bytes, or a struct with bytes in it."""
    if pa.types.is_struct(kind):
        return any(holds_bytes(kind.field(n).type) for n in range(kind.num_fields))
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def read_picture(value: Any) -> bytes | Validation:
    """The bytes of a picture in a cell, or why it has none."""
    if is_url(value):
        return Validation("the row holds a URL where others hold pictures")
    try:
        return read_picture_cell(value)
    except Validation as error:
        return error
