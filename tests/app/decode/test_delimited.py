from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import ArchiveCorrupt, Validation
from app.decode import delimited as texts
from app.decode.delimited import Layout, Row, find_number_columns, iter_rows, read_layout, read_row


def write_table(folder: Path, content: bytes, suffix: str) -> Path:
    path = folder / f"table{suffix}"
    path.write_bytes(content)
    return path


def rows_of(path: Path) -> list[Row]:
    return list(iter_rows(path, path.suffix, read_layout(path, path.suffix)))


def layout_of(path: Path) -> Layout:
    layout = read_layout(path, path.suffix)
    assert layout is not None
    return layout


CSV = b'\xef\xbb\xbfurl,caption\r\nhttp://a/,"two\nlines, and ""quotes"""\nhttp://b/\n\nhttp://c/,\xff\nhttp://d/,"x"y\nhttp://e/,last'
JSONL = b'{"url": "http://a/", "n": 1}\n\n[1]\n{"url":\n\xff\n' + b"[" * 50_000 + b'\n{"url": "http://b/"}'


def test_rows_of_csv_come_with_their_places_and_bad_ones_fail_alone(tmp_path: Path) -> None:
    path = write_table(tmp_path, CSV, ".csv")
    layout = layout_of(path)
    assert layout.names == ["url", "caption"]
    found = rows_of(path)
    told = [row.detail if isinstance(row, Validation) else row["url"] for _, _, row in found]
    assert told[0] == "http://a/"
    assert told[1] == "http://b/"  # programs leave out empty cells at the end of a row
    assert told[2] == "http://c/"
    assert "cannot be read" in told[3]
    assert told[4] == "http://e/"
    for offset, size, row in found:
        if isinstance(row, dict):
            assert read_row(path, ".csv", offset, size, layout) == row
    assert found[0][2]["caption"] == 'two\nlines, and "quotes"'  # type: ignore[index]
    assert found[1][2]["caption"] == ""  # type: ignore[index]
    assert found[2][2]["caption"] == "ÿ"  # type: ignore[index]
    with pytest.raises(Validation):
        read_row(path, ".csv", found[3][0], found[3][1], layout)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".tsv", b"url\tcaption\nhttp://a/\ta, b\n"),
        (".csv", b"url\tcaption\nhttp://a/\ta, b\n"),
        (".csv", b"url;caption\r\nhttp://a/;a, b\r\n"),
        (".csv", b"\xef\xbb\xbfsep=;\r\nurl;caption\r\nhttp://a/;a, b\r\n;;\r\n"),
        (".csv", b"url|caption\nhttp://a/|a, b\n"),
        (".csv", b' url , caption ,\n"http://a/","a, b",\n'),
        (".csv", b',url,caption\n0,http://a/,"a, b"\n'),
        (".csv", b'url,caption\nhttp://a/,"a, b",,\n'),
        (".csv", b'\n \r\nurl,caption\nhttp://a/,"a, b"\n'),
    ],
)
def test_the_header_says_how_the_cells_are_separated(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = write_table(tmp_path, content, suffix)
    ((offset, size, row),) = rows_of(path)
    assert row == {"url": "http://a/", "caption": "a, b"}
    assert read_row(path, suffix, offset, size, layout_of(path)) == row


def test_letters_that_are_not_utf8_are_read_as_windows_1252(tmp_path: Path) -> None:
    path = write_table(tmp_path, "url;größe\r\nhttp://a/;grün\r\n".encode("cp1252"), ".csv")
    layout = layout_of(path)
    ((_, _, row),) = iter_rows(path, ".csv", layout)
    assert (row, layout.legacy_rows) == ({"url": "http://a/", "größe": "grün"}, 1)
    path = write_table(tmp_path, b"url,a\nhttp://a/,\x81\n", ".csv")
    ((_, _, error),) = rows_of(path)
    assert isinstance(error, Validation)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_by_its_name(encoding: str, tmp_path: Path) -> None:
    for suffix, text in ((".csv", "url\nhttp://a/\n"), (".jsonl", '{"url": "http://a/"}\n')):
        with pytest.raises(Validation, match="UTF-16"):
            rows_of(write_table(tmp_path, text.encode(encoding), suffix))


def test_one_json_list_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Validation, match="one JSON list"):
        rows_of(write_table(tmp_path, b'\xef\xbb\xbf[{"url": "http://a/"}]', ".jsonl"))


def test_numbers_with_a_decimal_comma_are_read_where_spreadsheets_write_them() -> None:
    table = "url;price;stock;mixed;code\nhttp://a/;9,99;3;1,5;1.2.3\nhttp://b/;10;4;1.5;4\n"
    rows = texts.parse_table(table.encode(), ".csv")
    assert [row["price"] for row in rows if isinstance(row, dict)] == [9.99, 10]
    assert rows[0] == {"url": "http://a/", "price": 9.99, "stock": 3, "mixed": "1,5", "code": "1.2.3"}
    rows = texts.parse_table(b'url,price\nhttp://a/,"9,99"\n', ".csv")
    assert rows == [{"url": "http://a/", "price": "9,99"}]


def test_columns_of_numbers_are_found() -> None:
    rows = [
        {"price": "9.99", "zip": "01230", "n": "", "size": " 3", "mixed": "1", "empty": "", "serial": "1" * 20},
        {"price": "-1e3", "zip": "12300", "n": "0", "size": "4 ", "mixed": "x", "empty": "", "serial": "2"},
    ]
    assert find_number_columns(iter(rows)) == {"price": ".", "n": ".", "size": "."}
    read = texts.read_numbers(rows[0], {"price": ".", "n": ".", "size": "."})
    assert (read["price"], read["n"], read["size"], read["zip"]) == (9.99, "", 3, "01230")


def test_rows_of_jsonl_are_objects(tmp_path: Path) -> None:
    path = write_table(tmp_path, JSONL, ".jsonl")
    found = rows_of(path)
    assert [isinstance(row, dict) for _, _, row in found] == [True, False, False, False, False, True]
    offset, size, row = found[-1]
    assert read_row(path, ".jsonl", offset, size, None) == row == {"url": "http://b/"}
    assert rows_of(write_table(tmp_path, b"\n\n", ".jsonl")) == []


@pytest.mark.parametrize("content", [b"", b"\n", b",,\n", b"url,url\n", b"\x81\n", b'"url'])
def test_a_header_that_cannot_be_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Validation, match=r"no header|more than once"):
        rows_of(write_table(tmp_path, content, ".csv"))


@pytest.mark.parametrize(("content", "suffix"), [(b'url\nx\n"' + b"line\n" * 500, ".csv"), (b"x" * 2_000, ".jsonl")])
def test_a_row_without_end_ends_the_reading(
    content: bytes, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "MAX_ROW_BYTES", 1_000)
    with pytest.raises(ArchiveCorrupt, match="more than 1,000 bytes"):
        rows_of(write_table(tmp_path, content, suffix))
