from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.cli.table_upload import TableUpload, is_table
from app.core.errors import Validation
from tests.support.pictures import picture

PICTURES = [picture("red", n) for n in range(5)]


def test_rows_of_one_sort_are_parcels_in_order(tmp_path: Path) -> None:
    text = base64.b64encode(PICTURES[0]).decode()
    rows = [{"url": "http://a/"}, {"url": "http://b/", "caption": "b"}, 5, {"image": text, "id": "x"}, {"image": "-"}]
    table = tmp_path / "a.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parcels = TableUpload(table, tmp_path / "work", {})
    assert parcels.count == 5
    urls, bad, images = parcels
    assert [parcel.sort for parcel in (urls, bad, images)] == ["url", "error", "place"]
    assert [line.get("caption") for line in urls.lines] == [None, "b"]
    assert parcels.name(bad.lines[0]) == "a.jsonl:3"
    with parcels.archive(images) as (path, failed):
        assert path is not None
        with zipfile.ZipFile(path) as archive:
            assert archive.read("a.jsonl:4") == PICTURES[0]
            assert json.loads(archive.read("metadata.jsonl")) == {"file": "a.jsonl:4", "id": "x"}
    assert [item["name"] for item in failed] == ["a.jsonl:5"]


def test_pictures_of_parquet_come_across_row_groups(tmp_path: Path) -> None:
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [*PICTURES, None]}), table, row_group_size=2)
    parcels = TableUpload(table, tmp_path / "work", {})
    (parcel,) = parcels
    with parcels.archive(parcel) as (path, failed):
        assert path is not None
        with zipfile.ZipFile(path) as archive:
            assert [archive.read(name) for name in archive.namelist()[:-1]] == PICTURES
    assert [item["name"] for item in failed] == ["a.parquet:6"]
    pq.write_table(pa.table({"image": pa.array([None], pa.binary())}), table)
    parcels = TableUpload(table, tmp_path / "work", {})
    (parcel,) = parcels
    with parcels.archive(parcel) as (path, failed):
        assert (path, len(failed)) == (None, 1)


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    assert not is_table(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("label\nx\n")
    assert is_table(tmp_path / "a.csv")
    with pytest.raises(Validation, match="no column holds pictures"):
        TableUpload(tmp_path / "a.csv", tmp_path / "work", {})
