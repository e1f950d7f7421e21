from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import ArchiveCorrupt, Validation
from app.decode.parquet import ParquetTable, read_picture
from tests.support.archives import PNG


def write_parquet(folder: Path, columns: dict[str, Any], rows: int = 4) -> Path:
    path = folder / "table.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


def test_rows_come_group_by_group_without_bytes_and_vectors(tmp_path: Path) -> None:
    columns = {
        "image": [{"bytes": PNG, "path": f"{n}.png"} for n in range(10)],
        "text": [f"text {n}" for n in range(10)],
        "n": list(range(10)),
        "vector": [[0.5, 0.5]] * 10,
        "raw": [b"x"] * 10,
        "words": [["a", "b"]] * 10,
    }
    file = ParquetTable(write_parquet(tmp_path, columns))
    found = file.map_columns({})
    assert (found.image, found.caption) == ("image", "text")
    rows = list(file.iter_attributes(found))
    assert [(group, n) for group, n, _ in rows] == [(n // 4, n % 4) for n in range(10)]
    assert rows[9][2] == {"text": "text 9", "n": 9, "words": ["a", "b"]}
    assert [n for n, _ in file.iter_pictures("image", 1, 2)] == [2, 3]
    assert [value for _, value in file.iter_pictures("image", 2, 0)] == [PNG, PNG]
    assert not file.holds_text("image")
    assert file.group_bytes(0) > len(PNG)
    file.close()


def test_a_table_of_pictures_alone_has_as_many_rows(tmp_path: Path) -> None:
    file = ParquetTable(write_parquet(tmp_path, {"jpg": [PNG, None, b"", PNG, PNG]}))
    assert [row for _, _, row in file.iter_attributes(file.map_columns({}))] == [{}] * 5
    values = [value for _, value in file.iter_pictures("jpg", 0, 0)]
    assert [isinstance(value, Validation) for value in values] == [False, True, False, False]
    file.close()


@pytest.mark.parametrize("value", [None, "http://a/", "no base64!", 5, {"bytes": None, "path": "/etc/passwd"}])
def test_a_cell_without_a_picture_says_so(value: Any) -> None:
    assert isinstance(read_picture(value), Validation)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1", b"words " * 100])
def test_what_is_no_parquet_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ArchiveCorrupt):
        ParquetTable(tmp_path / "a")
