"""Write pictures with their vectors as Parquet, a part at a time. Only here and in `parquet` pyarrow is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "sha256": pa.string(),
    "source": pa.string(),
    "caption": pa.string(),
    "tags": pa.list_(pa.string()),
    "metadata": pa.string(),  # JSON
    "width": pa.int32(),
    "height": pa.int32(),
    "format": pa.string(),
    "created_at": pa.string(),
}


class VectorTable:
    """A Parquet file with a row for each picture: COLUMNS, and `vector`, a list of `d` float32."""

    def __init__(self, file: IO[bytes], d: int, about: Mapping[str, str]) -> None:
        """`about` is kept as the metadata of the file."""
        self._d = d
        vector = pa.list_(pa.field("item", pa.float32(), nullable=False), d)
        fields = [pa.field(name, kind) for name, kind in COLUMNS.items()]
        self._schema = pa.schema([*fields, pa.field("vector", vector, nullable=False)], dict(about))
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, rows: Sequence[Mapping[str, Any]], vectors: npt.NDArray[np.float32]) -> None:
        """Add rows with their vectors [n, d], as one row group."""
        columns = [pa.array([row[name] for row in rows], kind) for name, kind in COLUMNS.items()]
        flat = pa.array(vectors.reshape(-1), pa.float32())
        columns.append(pa.FixedSizeListArray.from_arrays(flat, type=self._schema.field("vector").type))
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
