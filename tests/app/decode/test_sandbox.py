"""A decoder that a picture has taken over reaches nothing: each of these tries what it would."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ArchiveCorrupt, ImageCorrupt, Rejected
from app.core.metrics import ProcessMetrics
from app.core.types import Preprocessing
from app.decode import landlock
from app.decode.child_pool import MAX_LIST
from app.decode.child_process import PASSED_ON, clean_environment
from app.decode.limits import ChildLimits, PictureLimits
from app.decode.picture import decode_picture
from app.decode.pool import DecodePool
from app.decode.sandbox import Protections, find_protections
from app.decode.task_channel import OutputFile, OutputFolder
from tests.support import intruders
from tests.support.sample_pictures import FORMATS, sample

PROTECTIONS = find_protections()
needs_seccomp = pytest.mark.skipif(not PROTECTIONS.seccomp, reason="this kernel or machine has no seccomp filters")
needs_landlock = pytest.mark.skipif(not PROTECTIONS.landlock, reason="this kernel has no Landlock")
SECRET = "a-secret-of-the-service"


@pytest.fixture(scope="module")
def metrics() -> ProcessMetrics:
    return ProcessMetrics()


@pytest.fixture(scope="module")
def pool(metrics: ProcessMetrics) -> Iterator[DecodePool]:
    os.environ["SIGHTLINE_INDEX_TOKEN"] = SECRET
    try:
        limits = ChildLimits(seconds=10, memory=512 << 20, cpu_seconds=5)
        with DecodePool(1, limits, metrics=metrics, modules=["tests.support.intruders"]) as pool:
            pool.prewarm()
            yield pool
    finally:
        del os.environ["SIGHTLINE_INDEX_TOKEN"]


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[dict[str, tuple[Any, ...]]]:
    """What each intrusion is aimed at."""
    database = tmp_path / "sightline.db"
    sqlite3.connect(database).executescript("CREATE TABLE pictures (id); INSERT INTO pictures VALUES (1)")
    local = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(local))
        listener.listen()
        yield {
            "read the database": (str(database),),
            "read the database by number": (str(database),),
            "write a file": (str(database),),
            "remove a file": (str(database),),
            "open a socket": (server.getsockname()[1],),
            "open a local socket": (str(local),),
        }


@needs_seccomp
@pytest.mark.parametrize("name", list(intruders.INTRUSIONS))
@pytest.mark.parametrize("kind", ["picture", "archive"])
def test_each_intrusion_fails_and_harms_its_own_task_only(
    pool: DecodePool, metrics: ProcessMetrics, targets: dict[str, tuple[Any, ...]], tmp_path: Path, name: str, kind: str
) -> None:
    if kind == "archive" and not PROTECTIONS.landlock and "file" in name + "database environment":
        pytest.skip("without Landlock a child for archives can open files")
    before = (tmp_path / "sightline.db").read_bytes()
    count = count_refusals(metrics)
    seconds = None if kind == "picture" else 10.0
    function, aim = intruders.INTRUSIONS[name], targets.get(name, ())
    with pytest.raises(Rejected) as refused:
        pool.submit(function, *aim, seconds=seconds).result(60)
    assert type(refused.value) is (ImageCorrupt if kind == "picture" else ArchiveCorrupt)
    if kind == "picture":
        assert "what no decoder may do" in refused.value.detail
        assert count_refusals(metrics) == count + 1
    assert (tmp_path / "sightline.db").read_bytes() == before
    good = tmp_path / "good"
    good.write_bytes(sample("jpeg"))
    assert pool.submit(decode_picture, good, Preprocessing(32), PictureLimits()).result(60).format == "jpeg"


def count_refusals(metrics: ProcessMetrics) -> float:
    value = metrics.registry.get_sample_value(
        "sightline_decode_deaths_total", {"process": "server", "cause": "sandbox"}
    )
    assert value is not None
    return value


def test_a_child_knows_nothing_of_the_services_environment(pool: DecodePool) -> None:
    for seconds in (None, 10.0):
        found = pool.submit(intruders.read_environment, seconds=seconds).result(60)
        assert SECRET not in repr(found)
        assert set(found) <= {*PASSED_ON, *clean_environment({})}


def test_a_child_may_compute_in_threads(pool: DecodePool) -> None:
    assert pool.submit(intruders.start_thread).result(60) == "computed"


@needs_landlock
def test_a_child_for_an_archive_reads_its_input_and_writes_its_output_alone(pool: DecodePool, tmp_path: Path) -> None:
    given, other, out = tmp_path / "given", tmp_path / "other", tmp_path / "out"
    given.write_bytes(b"given")
    other.write_bytes(b"other")
    assert pool.submit(intruders.read_file, given, seconds=10.0).result(60) == b"given".hex()
    assert pool.submit(intruders.write_file, OutputFile(tmp_path / "file"), seconds=10.0).result(60) == "written"
    assert pool.submit(intruders.write_into, OutputFolder(out), "a", seconds=10.0).result(60) == "written"
    assert (out / "a").read_text() == "changed"
    for name in ("../other", "../new"):
        with pytest.raises(Rejected):
            pool.submit(intruders.write_into, OutputFolder(out), name, seconds=10.0).result(60)
    with pytest.raises(Rejected):
        pool.submit(intruders.write_file, given, seconds=10.0).result(60)
    assert (other.read_bytes(), given.read_bytes(), (tmp_path / "new").exists()) == (b"other", b"given", False)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_decoded_without_opening_a_file(pool: DecodePool, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(sample(kind, 300, 200))
    small = tmp_path / "small.webp"
    found = pool.submit(decode_picture, path, Preprocessing(32), PictureLimits(), OutputFile(small), 64).result(60)
    assert (found.format, found.width, found.height) == (kind, 300, 200)
    assert small.stat().st_size > 0


def test_a_thumbnail_of_a_task_that_fails_is_removed(pool: DecodePool, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(sample("jpeg")[:-200])
    with pytest.raises(ImageCorrupt):
        pool.submit(
            decode_picture, path, Preprocessing(32), PictureLimits(), OutputFile(tmp_path / "small.webp"), 64
        ).result(60)
    assert [one.name for one in tmp_path.iterdir()] == ["picture"]


def test_a_child_writes_no_file_without_end(pool: DecodePool, tmp_path: Path) -> None:
    for seconds in (None, 10.0):
        most = ChildLimits().file_bytes if seconds is None else MAX_LIST
        assert list(pool.submit(intruders.find_file_limit, seconds=seconds).result(60)) == [most, most]


def test_a_thumbnail_past_the_limit_fails_its_own_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(sample("jpeg", 300, 200))
    with DecodePool(1, ChildLimits(file_bytes=100)) as pool:
        task = (path, Preprocessing(32), PictureLimits())
        with pytest.raises(ImageCorrupt, match="a larger file than allowed"):
            pool.submit(decode_picture, *task, OutputFile(tmp_path / "small.webp"), 64).result(60)
        assert pool.submit(decode_picture, *task).result(60).width == 300
    assert [one.name for one in tmp_path.iterdir()] == ["picture"]


def test_protections_that_are_missing_are_named() -> None:
    assert Protections(7, True).describe().endswith("seccomp, Landlock 7")
    assert "no seccomp, no Landlock: one of an archive" in Protections(0, False).describe()
    assert PROTECTIONS.landlock == landlock.read_version()
