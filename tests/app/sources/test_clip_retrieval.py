from __future__ import annotations

import os
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from app.core.errors import Validation
from app.core.types import SourceSpec
from app.decode.pool import DecodePool
from app.encoder.dummy import DummyEncoder
from app.sources.base import SourceContext, SourceItem, SourcePolicy
from app.sources.clip_retrieval import ClipRetrievalSource, PictureFinder
from app.sources.local_files import AllowedFolders, file_tag
from app.storage.library import Library
from tests.app.sources.moved import clip_retrieval, paint, vectors, write_sidecars
from tests.support.makers import never_stop

SPACE = DummyEncoder().space.fingerprint


class Reading:
    """Sources of one folder, and what they give."""

    def __init__(self, library: Library, pool: DecodePool, root: Path) -> None:
        self.allowed = SourcePolicy(AllowedFolders((root,)))
        self.context = SourceContext(library.database, library.blobs, self.allowed, pool=pool, encoder=DummyEncoder())
        self.work = root / "work"
        self.target = self.work / "fetched"
        self.target.mkdir(parents=True)

    def lines(self, place: Path, **options: Any) -> list[SourceItem]:
        with closing(self._open_source(place, options)) as source:
            return list(source.scan(self.work, "default", never_stop))

    def fetch_all_items(self, place: Path, **options: Any) -> list[SourceItem]:
        with closing(self._open_source(place, options)) as source:
            lines = [line for line in source.scan(self.work, "default", never_stop) if "error" not in line]
            return source.fetch(self.target, lines, never_stop)

    def _open_source(self, place: Path, options: dict[str, Any]) -> ClipRetrievalSource:
        return ClipRetrievalSource(
            ClipRetrievalSource.resolve(SourceSpec("clip-retrieval", str(place), options), self.allowed), self.context
        )


@pytest.fixture
def reading(library: Library, pool: DecodePool, tmp_path: Path) -> Reading:
    return Reading(library, pool, tmp_path)


def test_each_row_is_a_picture_with_its_vector_and_what_is_said_of_it(reading: Reading, tmp_path: Path) -> None:
    paths = paint(tmp_path / "old", 23)
    made = vectors(paths)
    place = clip_retrieval(
        tmp_path / "embeddings",
        [str(path) for path in paths],
        made * 3,  # whatever their length
        parts=3,
        caption=[f"picture {n}" if n else "  " for n in range(23)],
        url=[f"http://example.org/{n}" for n in range(23)],
        width=[32 if n else None for n in range(23)],
        similarity=[0.25 if n else float("nan") for n in range(23)],
        sha256=[b"x"] * 23,
        exif=["{}"] * 23,
    )
    came = reading.fetch_all_items(place, embeddings_of=SPACE)
    assert [line["name"] for line in came] == [str(path) for path in paths]
    for path, vector, line in zip(paths, made, came, strict=True):
        assert (reading.work / line["file"]).read_bytes() == path.read_bytes()
        space, packed = line["given"]
        assert space == SPACE
        found = np.frombuffer(packed, "<f4")
        assert abs(float(np.linalg.norm(found)) - 1) < 1e-5
        assert float(found @ vector) > 0.999
    assert "caption" not in came[0]
    assert came[0]["metadata"] == {"url": "http://example.org/0"}
    assert came[5]["caption"] == "picture 5"
    assert came[5]["metadata"] == {"url": "http://example.org/5", "width": 32, "similarity": 0.25}


def test_without_a_statement_no_vector_is_read(reading: Reading, tmp_path: Path) -> None:
    paths = paint(tmp_path / "old", 3)
    place = clip_retrieval(tmp_path / "embeddings", [str(path) for path in paths], None)
    assert ["given" in line for line in reading.fetch_all_items(place)] == [False] * 3
    with pytest.raises(Validation, match=r"img_emb_0.npy: the file cannot be read"):
        reading.lines(place, embeddings_of=SPACE)


def test_vectors_of_another_model_or_order_are_refused_whole(reading: Reading, tmp_path: Path) -> None:
    paths = paint(tmp_path / "old", 24)
    names, made = [str(path) for path in paths], vectors(paths)
    other = np.random.default_rng(0).normal(size=made.shape)
    for n, (wrong, told) in enumerate(
        [
            (other, "another model, or are not in this order"),
            (np.roll(made, 1, axis=0), "another model, or are not in this order"),
            (made[:-1], "has 23 vectors, but metadata_0.parquet has 24 rows"),
            (made[:, :-1], "has vectors of width"),
        ]
    ):
        place = clip_retrieval(tmp_path / f"wrong{n}", names, made)
        np.save(place / "img_emb" / "img_emb_0.npy", wrong.astype(np.float32))
        with pytest.raises(Validation, match=told):
            reading.lines(place, embeddings_of=SPACE)
    with pytest.raises(Validation, match=f"colours, has {SPACE}: serve the model that made them"):
        reading.lines(clip_retrieval(tmp_path / "right", names, made), embeddings_of="0" * 16)
    assert len(reading.lines(tmp_path / "right", embeddings_of=SPACE)) == 24


def test_a_few_pictures_that_changed_since_are_no_reason_to_refuse(reading: Reading, tmp_path: Path) -> None:
    paths = paint(tmp_path / "old", 16)
    made = vectors(paths)
    made[:3] = made[[1, 2, 0]]
    place = clip_retrieval(tmp_path / "embeddings", [str(path) for path in paths], made)
    paths[5].write_bytes(b"no picture any more")
    assert len(reading.fetch_all_items(place, embeddings_of=SPACE)) == 16
    for path in paths:
        path.write_bytes(b"no picture any more")
    with pytest.raises(Validation, match="no picture could be decoded"):
        reading.lines(place, embeddings_of=SPACE)


def test_a_row_without_its_picture_fails_and_one_without_a_good_vector_is_embedded(
    reading: Reading, tmp_path: Path
) -> None:
    paths = paint(tmp_path / "old", 6)
    made = vectors(paths)
    made[1], made[2] = np.nan, 0
    names: list[Any] = [str(path) for path in paths]
    names[3:] = ["/etc/passwd", None, f"{tmp_path}/old/../secret.png"]
    paths[0].unlink()
    place = clip_retrieval(tmp_path / "embeddings", names, made)
    (tmp_path / "embeddings" / "more.png").touch()
    lines = reading.lines(place)
    assert [line.get("error", {}).get("code") for line in lines] == [
        "url_unreachable",
        None,
        None,
        "url_unreachable",
        "validation",
        "validation",
    ]
    assert "`pictures` names the folder" in lines[0]["error"]["detail"]
    assert lines[3]["error"] == lines[0]["error"]  # /etc/passwd, as if it were not there
    names[3:] = [str(path) for path in paths[3:]]
    place = clip_retrieval(tmp_path / "again", names, made)
    assert ["given" in line for line in reading.fetch_all_items(place, embeddings_of=SPACE)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_vectors_that_change_after_they_were_listed_are_not_taken(reading: Reading, tmp_path: Path) -> None:
    paths = paint(tmp_path / "old", 2)
    place = clip_retrieval(tmp_path / "embeddings", [str(path) for path in paths], vectors(paths))
    lines = reading.lines(place, embeddings_of=SPACE)
    os.utime(place / "img_emb" / "img_emb_0.npy", (1, 1))
    with closing(
        ClipRetrievalSource(SourceSpec("clip-retrieval", str(place), {"embeddings_of": SPACE}), reading.context)
    ) as source:
        came = source.fetch(reading.target, lines, never_stop)
    assert ["changed after" in line["error"]["detail"] for line in came] == [True, True]


def test_pictures_are_found_where_they_lie_now(tmp_path: Path) -> None:
    for name in ("new/00000/1.png", "new/00001/2.png", "new/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    moved = PictureFinder(tmp_path / "new", file_tag, moved=True)
    assert moved.find("/old/images/00000/gone.png") == tmp_path / "new/old/images/00000/gone.png"
    assert moved.find("/old/images/00000/1.png") == tmp_path / "new/00000/1.png"
    assert moved.find("/old/images/00001/1.png") == tmp_path / "new/00001/1.png"  # not new/1.png
    beside = PictureFinder(tmp_path, file_tag, moved=False)
    assert beside.find("new/00001/2.png") == tmp_path / "new/00001/2.png"
    assert beside.find("/old/images/1.png") == Path("/old/images/1.png")


def test_rows_that_name_samples_of_tars_bring_their_vectors(reading: Reading, tmp_path: Path) -> None:
    paths = paint(tmp_path / "images", 20)
    made = vectors(paths)
    write_sidecars(paths[3], "in the tar", width=32)
    for shard in ("00000", "00001"):
        with tarfile.open(tmp_path / "images" / f"{shard}.tar", "w") as tar:
            for path in paths[:8] if shard == "00000" else paths[8:]:
                for one in sorted(path.parent.glob(f"{path.stem}.*")):
                    tar.add(one, one.name)
    order = [*reversed(range(20)), 4]  # and one of them twice
    keys = [paths[n].stem for n in order] + ["000000099"]
    place = clip_retrieval(tmp_path / "embeddings", keys, np.concatenate([made[order], made[:1]]), parts=3)
    lines = reading.lines(place, pictures=str(tmp_path / "images"), embeddings_of=SPACE)
    assert lines[-1]["error"]["detail"] == "1 rows name no picture of the tars"
    came = reading.fetch_all_items(place, pictures=str(tmp_path / "images"), embeddings_of=SPACE)
    assert [line["name"].rpartition("/")[2] for line in came] == [path.name for path in paths]
    assert came[3]["caption"] == "in the tar"
    for n, line in enumerate(came):
        assert (reading.work / line["file"]).read_bytes() == paths[n].read_bytes()
        if n == 4:
            assert "given" not in line
        else:
            assert float(np.frombuffer(line["given"][1], "<f4") @ made[n]) > 0.999
    plain = reading.fetch_all_items(place, pictures=str(tmp_path / "images"))
    assert ["given" in line for line in plain] == [False] * 20
    for number, rows in enumerate((8, 7, 7)):
        other = np.random.default_rng(number).normal(size=(rows, made.shape[1]))
        np.save(place / "img_emb" / f"img_emb_{number}.npy", other.astype(np.float32))
    with pytest.raises(Validation, match="not in this order"):
        reading.lines(place, pictures=str(tmp_path / "images"), embeddings_of=SPACE)


def test_what_is_no_output_of_clip_retrieval_or_may_not_be_read_is_told(reading: Reading, tmp_path: Path) -> None:
    (tmp_path / "empty" / "metadata").mkdir(parents=True)
    with pytest.raises(Validation, match="no output of clip-retrieval"):
        reading.lines(tmp_path / "empty")
    with pytest.raises(Validation, match="may not read this folder, or there is none"):
        reading.lines(tmp_path / "work")
    for place, options in (
        (Path("/etc"), {}),
        (tmp_path, {"pictures": "/etc"}),
        (tmp_path, {"embeddings_of": "ViT-B/32"}),
    ):
        with pytest.raises(Validation):
            ClipRetrievalSource.resolve(SourceSpec("clip-retrieval", str(place), options), reading.allowed)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "metadata").symlink_to("/etc")
    with pytest.raises(Validation):
        reading.lines(tmp_path / "linked")


def test_tables_come_in_the_order_of_their_numbers(reading: Reading, tmp_path: Path) -> None:
    paths = paint(tmp_path / "old", 3)
    place = clip_retrieval(tmp_path / "embeddings", [], None)
    (place / "metadata" / "metadata_0.parquet").unlink()
    for number, path in zip(("09", "10", "008"), (paths[1], paths[2], paths[0]), strict=True):
        parquet.write_table(
            pyarrow.table({"image_path": [str(path)]}), place / "metadata" / f"metadata_{number}.parquet"
        )
    assert [line["path"] for line in reading.lines(place)] == [str(path) for path in paths]
