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


def test_rows_of_one_kind_are_a_batch_in_order(tmp_path: Path) -> None:
    text = base64.b64encode(PICTURES[0]).decode()
    rows = [{"url": "http://a/"}, {"url": "http://b/", "caption": "b"}, 5, {"image": text, "id": "x"}, {"image": "-"}]
    table = tmp_path / "a.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    upload = TableUpload(table, tmp_path / "work", {})
    assert upload.count == 5
    urls, bad, images = upload
    assert [batch.kind for batch in (urls, bad, images)] == ["url", "error", "place"]
    assert [line.get("caption") for line in urls.lines] == [None, "b"]
    assert upload.name(bad.lines[0]) == "a.jsonl:3"
    with upload.make_archive(images) as (path, failed):
        assert path is not None
        with zipfile.ZipFile(path) as archive:
            assert archive.read("a.jsonl:4") == PICTURES[0]
            assert json.loads(archive.read("metadata.jsonl")) == {"file": "a.jsonl:4", "id": "x"}
    assert [item["name"] for item in failed] == ["a.jsonl:5"]


def test_pictures_of_parquet_come_across_row_groups(tmp_path: Path) -> None:
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [*PICTURES, None]}), table, row_group_size=2)
    upload = TableUpload(table, tmp_path / "work", {})
    (batch,) = upload
    with upload.make_archive(batch) as (path, failed):
        assert path is not None
        with zipfile.ZipFile(path) as archive:
            assert [archive.read(name) for name in archive.namelist()[:-1]] == PICTURES
    assert [item["name"] for item in failed] == ["a.parquet:6"]
    pq.write_table(pa.table({"image": pa.array([None], pa.binary())}), table)
    upload = TableUpload(table, tmp_path / "work", {})
    (batch,) = upload
    with upload.make_archive(batch) as (path, failed):
        assert (path, len(failed)) == (None, 1)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "url\tcaption\nhttp://a/1.jpg\ta cat\n", True),
        ("a.txt", "http://a/1.jpg\nhttp://a/2.jpg\n", True),
        ("a.txt", "a picture of a cat\n", False),
        ("a.txt", "", False),
        ("a.json", '[\n  {"url": "http://a/1.jpg"}]', True),
        ("a.json", '{"caption": "a cat"}', False),
        ("a.png", "url\n", False),
    ],
)
def test_a_text_that_begins_like_a_table_is_one(name: str, text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert is_table(tmp_path / name) is expected
    link = tmp_path / f"link{Path(name).suffix}"
    link.symlink_to(name)
    assert is_table(link) is expected


def test_a_table_may_have_another_suffix_and_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("url\tcaption\nhttp://a/1.jpg\ta cat\n")
    (tmp_path / "link.txt").symlink_to("a.txt")
    upload = TableUpload(tmp_path / "link.txt", tmp_path / "work", {})
    (batch,) = upload
    assert (batch.lines[0]["url"], upload.name(batch.lines[0])) == ("http://a/1.jpg", "link.txt:1")


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    assert not is_table(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("label\nx\n")
    assert is_table(tmp_path / "a.csv")
    with pytest.raises(Validation, match="no column holds pictures"):
        TableUpload(tmp_path / "a.csv", tmp_path / "work", {})
