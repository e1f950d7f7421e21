from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.core.errors import Validation
from app.core.types import SourceSpec
from app.decode.pool import DecodePool
from app.sources.base import SourceContext, SourceItem, SourcePolicy
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.http import HttpFetcher
from app.sources.local_files import AllowedFolders
from app.sources.stop_signal import ShouldStop
from app.sources.table import TableSource
from app.storage.library import Library
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry
from tests.support.makers import add, never_stop
from tests.support.pictures import picture
from tests.support.web_servers import WebServer, content

PICTURES = [picture("red", n) for n in range(7)]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    tables = tmp_path / "tables"
    tables.mkdir()
    rows = [{"image": {"bytes": bytes, "path": None}, "text": f"text {n}"} for n, bytes in enumerate(PICTURES)]
    rows[3]["image"] = {"bytes": None, "path": "/etc/passwd"}
    pq.write_table(pa.Table.from_pylist(rows), tables / "a.parquet", row_group_size=3)
    (tables / "b.parquet").write_bytes(b"no table at all")
    text = base64.b64encode(picture("blue")).decode()
    (tables / "c.jsonl").write_text(json.dumps({"image": text, "tags": ["x"]}) + "\n{\n")
    (tables / "notes.txt").write_text("left out")
    return tables


@pytest.fixture
def source_context(library: Library, pool: DecodePool, tables: Path) -> SourceContext:
    return SourceContext(library.database, library.blobs, SourcePolicy(AllowedFolders((tables,))), None, pool)


def fetch_in_parts(table: TableSource, lines: list[SourceItem], folder: Path, size: int = 2) -> Iterator[SourceItem]:
    """What comes of the lines, `size` at a time, each part in a folder of its own."""
    for start in range(0, len(lines), size):
        target = folder / f"{start}"
        target.mkdir(parents=True)
        yield from table.fetch(target, lines[start : start + size], never_stop)


def test_pictures_come_out_of_rows_and_again_only_what_is_new(
    library: Library, source_context: SourceContext, tables: Path, tmp_path: Path
) -> None:
    def scan_and_fetch(work: Path) -> list[tuple[str, str | None, str | None]]:
        table = TableSource(SourceSpec("table", str(tables)), source_context)
        lines = list(table.scan(tmp_path, "default", never_stop))
        came = iter(fetch_in_parts(table, [line for line in lines if "error" not in line], work))
        told = []
        for line in lines:
            if "error" not in line:
                line = next(came)
            if "error" not in line:
                known = CacheEntry(line["tag"], add(library, (work / line["file"]).read_bytes()).image.sha256)
                library.database.write(lambda c, line=line, known=known: source_cache.store(c, line["origin"], known))  # type: ignore[misc]
            told.append((line["name"], line.get("caption"), line.get("error", {}).get("code")))
        table.close()
        return told

    bad = [("a.parquet:4", "text 3", "validation"), ("b.parquet", None, "archive_corrupt")]
    good = [(f"a.parquet:{n + 1}", f"text {n}", None) for n in range(7) if n != 3]
    rest = [("c.jsonl:1", None, None), ("c.jsonl:2", None, "validation")]
    assert scan_and_fetch(tmp_path / "first") == [*good[:3], bad[0], *good[3:], bad[1], *rest]
    kept = {image.sha256 for image in library.list_images("default", 20, None)}
    assert kept == {add(library, one).image.sha256 for one in [*PICTURES[:3], *PICTURES[4:], picture("blue")]}
    assert scan_and_fetch(tmp_path / "second") == [*bad, rest[1]]


class TakenOver(TableSource):
    """What a decode child answers that a hostile table has taken over."""

    def _fill_window(self, item: SourceItem, window: Path, should_stop: ShouldStop) -> None:
        super()._fill_window({**item, "place": [0, 0]}, window, should_stop)
        self._window[item["place"][1]] = None


def test_a_child_that_was_taken_over_moves_nothing_from_elsewhere(
    source_context: SourceContext, tables: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(PICTURES[0])
    table = TakenOver(SourceSpec("table", f"{tables}/a.parquet"), source_context)
    (line, *_) = table.scan(tmp_path, "default", never_stop)
    for row in ("../../secret", str(tmp_path / "secret")):
        (tmp_path / "work" / "0").mkdir(parents=True, exist_ok=True)
        with pytest.raises(ValueError, match="invalid literal"):
            table.fetch(tmp_path / "work" / "0", [{**line, "place": [0, row]}], never_stop)
    assert (tmp_path / "secret").read_bytes() == PICTURES[0]


def test_a_part_of_a_row_group_is_found_again_from_anywhere(
    source_context: SourceContext, tables: Path, tmp_path: Path
) -> None:
    place = f"{tables}/a.parquet"
    lines = list(TableSource(SourceSpec("table", place), source_context).scan(tmp_path, "default", never_stop))
    for n in (6, 1, 4):  # as after a kill, and backwards, which is never asked for
        (line,) = fetch_in_parts(
            TableSource(SourceSpec("table", place), source_context), [lines[n]], tmp_path / f"work{n}"
        )
        assert (tmp_path / f"work{n}" / line["file"]).read_bytes() == PICTURES[n]
    with open(place, "ab") as file:
        file.write(b"x")
    (line,) = fetch_in_parts(TableSource(SourceSpec("table", place), source_context), [lines[0]], tmp_path / "changed")
    assert line["error"]["code"] == "url_unreachable"


def test_rows_of_urls_are_fetched_only_where_that_is_allowed(
    library: Library, pool: DecodePool, tables: Path, tmp_path: Path
) -> None:
    web = WebServer()
    web.pages["/a"] = content(picture("green"))
    (tables / "urls.csv").write_text(f"URL,TEXT\n{web.url}/a,=1+1\nhttp://10.0.0.1/,x\nfile:///etc/passwd,y\n")
    fetcher = HttpFetcher(AddressPolicy(["127.0.0.1"]))
    allowed = SourcePolicy(AllowedFolders((tables,)), fetch=True)
    told: list[list[Any]] = []
    for one in (fetcher, None):
        table = TableSource(
            SourceSpec("table", f"{tables}/urls.csv"),
            SourceContext(library.database, library.blobs, allowed, one, pool),
        )
        lines = list(table.scan(tmp_path, "default", never_stop))
        good = [line for line in lines if "error" not in line]
        told.append([line.get("error", {}).get("code") for line in fetch_in_parts(table, good, tmp_path / str(one))])
    assert [line["caption"] for line in good] == ["=1+1", "x"]
    assert [line["error"]["code"] for line in lines if "error" in line] == ["validation"]
    assert told == [[None, "url_not_allowed"], ["url_not_allowed"] * 2]
    fetcher.close()
    web.close()


def test_columns_are_named_by_role_and_tables_by_their_ends(
    source_context: SourceContext, tables: Path, tmp_path: Path
) -> None:
    allowed = source_context.policy
    with pytest.raises(Validation, match="there is no 'colour', only caption, id, image, path, tags, url"):
        TableSource.resolve(SourceSpec("table", str(tables), {"columns": {"colour": "x"}}), allowed)
    given = {"columns": {"image": "image", "caption": "nothing"}}
    (line,) = TableSource(SourceSpec("table", f"{tables}/a.parquet", given), source_context).scan(
        tmp_path, "default", never_stop
    )
    assert "no column 'nothing'" in line["error"]["detail"]
    (line,) = TableSource(SourceSpec("table", f"{tables}/notes.txt"), source_context).scan(
        tmp_path, "default", never_stop
    )
    assert line["error"]["code"] == "unsupported_media_type"


PNG = picture("red")


def test_rows_may_name_files_relative_to_the_table(source_context: SourceContext, tables: Path, tmp_path: Path) -> None:
    folder = tables / "train"
    (folder / "images").mkdir(parents=True)
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    for n in range(3):
        (folder / "images" / f"{n}.jpg").write_bytes(PNG + bytes([n]))
    rows = [(f"images/{n}.jpg", f"a circle {n}") for n in range(3)]
    texts = {
        "tab.csv": "filepath\ttitle\n" + "".join(f"{path}\t{title}\n" for path, title in rows),
        "comma.csv": "image,caption\n" + "".join(f"{path},{title}\n" for path, title in rows),
        "windows.csv": "path;text\r\n" + "".join(f"images\\{n}.jpg;a circle {n}\r\n" for n in range(3)),
        "list.jsonl": "".join(json.dumps({"file_name": path, "text": title}) + "\n" for path, title in rows),
        "away.csv": f"path\n{secret}\n../../secret.png\ngone.jpg\nimages/0.jpg\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)

    def take(name: str) -> list[SourceItem]:
        table = TableSource(SourceSpec("table", str(folder / name)), source_context)
        lines = list(table.scan(tmp_path, "default", never_stop))
        came = list(fetch_in_parts(table, lines, tmp_path / "work" / name))
        table.close()
        return came

    for name in ("tab.csv", "comma.csv", "windows.csv", "list.jsonl"):
        came = take(name)
        assert [(item["name"], item["caption"]) for item in came] == rows
        assert [(tmp_path / "work" / name / item["file"]).read_bytes() for item in came] == [
            PNG + bytes([n]) for n in range(3)
        ]
    codes = [item.get("error", {}).get("code") for item in take("away.csv")]
    assert codes == ["validation", "validation", "url_unreachable", None]
