from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from app.core.errors import ArchiveCorrupt, UrlUnreachable
from app.decode.parquet_metadata import BATCH_ROWS, list_metadata
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile


def list_rows(path: Path, most: int = 1_000_000) -> list[dict[str, object]]:
    out = path.with_suffix(".out")
    count = list_metadata(path, out, most)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == count
    return rows


def test_rows_say_what_json_can(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "image_path": ["a.png", "ü.png", None],
            "width": pyarrow.array([1, None, 3], pyarrow.uint16()),
            "similarity": [0.5, float("nan"), float("inf")],
            "nsfw": [True, False, None],
            "at": pyarrow.array([datetime(2026, 5, 1), None, None], pyarrow.timestamp("ms")),
            "word": pyarrow.array(["x", "y", "x"]).dictionary_encode(),
            "bytes": [b"1", b"2", b"3"],
            "list": [[1], [2], [3]],
            "__index_level_0__": [0, 1, 2],
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    assert list_rows(tmp_path / "a.parquet") == [
        {"image_path": "a.png", "width": 1, "similarity": 0.5, "nsfw": True, "at": "2026-05-01 00:00:00", "word": "x"},
        {"image_path": "ü.png", "nsfw": False, "word": "y"},
        {"width": 3, "word": "x"},
    ]


def test_rows_come_to_their_end_or_to_the_most(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"n": range(2 * BATCH_ROWS + 1)}), tmp_path / "a.parquet", row_group_size=700)
    assert [row["n"] for row in list_rows(tmp_path / "a.parquet")] == list(range(2 * BATCH_ROWS + 1))
    assert len(list_rows(tmp_path / "a.parquet", most=5)) == 5


def test_a_child_reads_a_table_and_tells_what_is_none(tmp_path: Path, pool: DecodePool) -> None:
    parquet.write_table(pyarrow.table({"n": [1]}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    assert (
        pool.submit(
            list_metadata,
            tmp_path / "a.parquet",
            OutputFile(tmp_path / "out"),
            9,
            seconds=60,
        ).result()
        == 1
    )
    for name, data in (("empty", b""), ("words", b"no table"), ("cut", whole[:-9]), ("odd", b"PAR1" * 9 + whole[-8:])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ArchiveCorrupt, match=f"{name} is no Parquet table"):
            pool.submit(
                list_metadata,
                tmp_path / name,
                OutputFile(tmp_path / "out"),
                9,
                seconds=60,
            ).result()
    (tmp_path / "link").symlink_to("a.parquet")
    for name in ("gone", "link"):
        with pytest.raises(UrlUnreachable, match=f"{name} cannot be read"):
            pool.submit(
                list_metadata,
                tmp_path / name,
                OutputFile(tmp_path / "out"),
                9,
                seconds=60,
            ).result()
