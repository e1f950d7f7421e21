from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import ArchiveCorrupt, Validation
from app.decode import delimited as texts
from app.decode.delimited import iter_rows, read_column_names, read_row


def written(folder: Path, content: bytes, suffix: str) -> Path:
    path = folder / f"table{suffix}"
    path.write_bytes(content)
    return path


CSV = b'\xef\xbb\xbfurl,caption\r\nhttp://a/,"two\nlines, and ""quotes"""\nhttp://b/\n\nhttp://c/,\xff\nhttp://d/,"x"y\nhttp://e/,last'
JSONL = b'{"url": "http://a/", "n": 1}\n\n[1]\n{"url":\n\xff\n' + b"[" * 50_000 + b'\n{"url": "http://b/"}'


def test_rows_of_csv_come_with_their_places_and_bad_ones_fail_alone(tmp_path: Path) -> None:
    path = written(tmp_path, CSV, ".csv")
    assert read_column_names(path, ".csv") == ["url", "caption"]
    found = list(iter_rows(path, ".csv"))
    told = [row.detail if isinstance(row, Validation) else row["url"] for _, _, row in found]
    assert told[0] == "http://a/"
    assert told[1] == "the row has 1 cells, the header 2"
    assert told[2] == "the row is not UTF-8"
    assert "cannot be read" in told[3]
    assert told[4] == "http://e/"
    for offset, size, row in found:
        if isinstance(row, dict):
            assert read_row(path, ".csv", offset, size, ["url", "caption"]) == row
    assert found[0][2]["caption"] == 'two\nlines, and "quotes"'  # type: ignore[index]
    with pytest.raises(Validation):
        read_row(path, ".csv", found[1][0], found[1][1], ["url", "caption"])


def test_rows_of_tsv_are_split_at_tabs(tmp_path: Path) -> None:
    path = written(tmp_path, b"url\tcaption\nhttp://a/\ta, b\n", ".tsv")
    ((_, _, row),) = iter_rows(path, ".tsv")
    assert row == {"url": "http://a/", "caption": "a, b"}


def test_rows_of_jsonl_are_objects(tmp_path: Path) -> None:
    path = written(tmp_path, JSONL, ".jsonl")
    found = list(iter_rows(path, ".jsonl"))
    assert [isinstance(row, dict) for _, _, row in found] == [True, False, False, False, False, True]
    offset, size, row = found[-1]
    assert read_row(path, ".jsonl", offset, size, []) == row == {"url": "http://b/"}
    assert list(iter_rows(written(tmp_path, b"\n\n", ".jsonl"), ".jsonl")) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"url,url\n", b"url,\n", b"\xff\n", b'"url'])
def test_a_header_that_cannot_be_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Validation, match="no header"):
        list(iter_rows(written(tmp_path, content, ".csv"), ".csv"))


@pytest.mark.parametrize(("content", "suffix"), [(b'url\nx\n"' + b"line\n" * 500, ".csv"), (b"x" * 2_000, ".jsonl")])
def test_a_row_without_end_ends_the_reading(
    content: bytes, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "MAX_ROW_BYTES", 1_000)
    with pytest.raises(ArchiveCorrupt, match="more than 1,000 bytes"):
        list(iter_rows(written(tmp_path, content, suffix), suffix))
