from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import ArchiveCorrupt, SightlineError, Validation
from app.decode.pool import DecodePool
from app.decode.table import extract_pictures, list_table
from app.decode.task_channel import OutputFile, OutputFolder
from tests.support.archives import PNG

TEXT = base64.b64encode(PNG).decode()


def list_rows(path: Path, given: dict[str, str] | None = None, most: int = 1_000) -> list[dict[str, Any]]:
    out = path.with_name("out")
    list_table(path, path.suffix, out, given or {}, most)
    return [json.loads(line) for line in out.read_text().splitlines()]


def extract_rows(path: Path, lines: list[dict[str, Any]], **more: int) -> dict[int, tuple[str, str] | None]:
    folder = path.with_name("taken")
    folder.mkdir(exist_ok=True)
    limits = {"max_bytes": 10_000, "window": 1 << 20} | more
    places = [line["place"] for line in lines]
    return dict(extract_pictures(path, path.suffix, lines[0]["column"], places, folder, **limits))


def test_urls_of_every_form_of_table_are_lines(tmp_path: Path) -> None:
    rows = [{"URL": f"http://a/{n}", "TEXT": f"text {n}", "n": n} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text("URL,TEXT,n\n" + "".join(f"http://a/{n},text {n},{n}\n" for n in range(3)))
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        lines = list_rows(tmp_path / name)
        assert [line["row"] for line in lines] == [1, 2, 3]
        assert lines[2]["url"] == "http://a/2"
        assert (lines[2]["caption"], str(lines[2]["metadata"]["n"])) == ("text 2", "2")
        assert len(list_rows(tmp_path / name, most=2)) == 2
        (first, *_) = list_rows(tmp_path / name, {"caption": "n", "url": "URL"})
        assert first["metadata"] == {"TEXT": "text 0"}


def test_pictures_in_rows_are_written_to_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [PNG, b"", None, b"x" * 10_001, PNG]}), tmp_path / "a.parquet")
    done = extract_rows(tmp_path / "a.parquet", list_rows(tmp_path / "a.parquet")[1:])
    assert {n: failure and failure[0] for n, failure in done.items()} == {
        1: "validation",
        2: "validation",
        3: "image_too_large",
        4: None,
    }
    assert (tmp_path / "taken" / "4").read_bytes() == PNG
    assert list(extract_rows(tmp_path / "a.parquet", list_rows(tmp_path / "a.parquet"), window=1)) == [0]
    (tmp_path / "a.jsonl").write_text(f'{{"image": "{TEXT}"}}\n{{"image": "no base64!"}}\n')
    lines = list_rows(tmp_path / "a.jsonl")
    done = extract_rows(tmp_path / "a.jsonl", lines)
    assert {n: failure and failure[0] for n, failure in done.items()} == {0: None, 1: "validation"}
    assert (tmp_path / "taken" / "0").read_bytes() == PNG
    (tmp_path / "a.csv").write_text(f"id,image\na,{TEXT}\n")
    (line,) = list_rows(tmp_path / "a.csv")
    assert line["id"] == "a"
    assert extract_rows(tmp_path / "a.csv", [line]) == {0: None}


def test_rows_without_a_picture_fail_alone(tmp_path: Path) -> None:
    text = '{"url": null}\n{"n": 1}\n{"url": "http://a/"}\n5\n{"image": null, "url": "http://b/"}\n'
    (tmp_path / "a.jsonl").write_text(text)
    assert [line.get("url") or line["error"]["code"] for line in list_rows(tmp_path / "a.jsonl")] == [
        "validation",
        "validation",
        "http://a/",
        "validation",
        "http://b/",
    ]


def test_what_is_no_table_is_refused_and_damage_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"words")
    with pytest.raises(ArchiveCorrupt):
        list_rows(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("label\nx\n")
    with pytest.raises(Validation, match="no column holds pictures"):
        list_rows(tmp_path / "a.csv")
    monkeypatch.setattr("app.decode.delimited.MAX_ROW_BYTES", 100)
    (tmp_path / "a.jsonl").write_text('{"url": "http://a/"}\n' + "x" * 200)
    first, last = list_rows(tmp_path / "a.jsonl")
    assert first["url"] == "http://a/"
    assert last["error"]["code"] == "archive_corrupt"


def test_damage_anywhere_gives_rows_or_an_error_of_ours(pool: DecodePool, tmp_path: Path) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"image": [PNG] * 40, "text": ["x"] * 40}), out, row_group_size=10)
    chance = random.Random(7)
    path = tmp_path / "a.parquet"
    seen = set()
    for _ in range(60):
        damaged = bytearray(out.getvalue())
        for _ in range(3):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged if chance.random() < 0.8 else damaged[: chance.randrange(len(damaged))])
        try:
            count = pool.submit(
                list_table,
                path,
                ".parquet",
                OutputFile(tmp_path / "out"),
                {},
                1_000,
                seconds=60,
            ).result()
            lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
            assert len(lines) >= count
            places = [line["place"] for line in lines if "place" in line][-1:]
            if places:
                pool.submit(
                    extract_pictures,
                    path,
                    ".parquet",
                    "image",
                    places,
                    OutputFolder(tmp_path),
                    10_000,
                    1 << 20,
                    seconds=60,
                ).result()
            seen.add("rows")
        except SightlineError as error:
            seen.add(error.code)
    assert {"rows", "archive_corrupt"} <= seen


def test_columns_of_numbers_are_numbers_and_codes_stay_text(tmp_path: Path) -> None:
    rows = "".join(f"http://a/{n},{9 + n * 10}.99,0123{n},{n}\n" for n in range(3))
    (tmp_path / "shop.csv").write_text("url,price,zip,stock\n" + rows)
    lines = list_rows(tmp_path / "shop.csv")
    assert [line["metadata"] for line in lines] == [
        {"price": 9 + n * 10 + 0.99, "zip": f"0123{n}", "stock": n} for n in range(3)
    ]


def test_ids_of_other_programs(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [PNG] * 3, "id": [1.0, 2.0, None]}), tmp_path / "float.parquet")
    assert [line.get("id") for line in list_rows(tmp_path / "float.parquet")] == ["1", "2", None]
    (tmp_path / "a.csv").write_text("url,id\nhttp://a/,3.0\nhttp://b/,AB.12/3\n")
    assert [line.get("id") for line in list_rows(tmp_path / "a.csv")] == ["3", "AB.12/3"]
    off = list_rows(tmp_path / "a.csv", {"id": ""})
    assert [(line.get("id"), line["metadata"]["id"]) for line in off] == [(None, "3.0"), (None, "AB.12/3")]


def test_windows_1252_is_said_once(tmp_path: Path) -> None:
    text = "url;caption\r\nhttp://a/;rot\r\nhttp://b/;gr\u00fcn\r\nhttp://c/;wei\u00df\r\n"
    (tmp_path / "excel.csv").write_bytes(text.encode("cp1252"))
    lines = list_rows(tmp_path / "excel.csv")
    assert [line["caption"] for line in lines] == ["rot", "grün", "weiß"]
    assert [len(line.get("warnings", ())) for line in lines] == [0, 1, 0]
    assert "Windows-1252" in lines[1]["warnings"][0]["detail"]
