"""Snapshots: written whole or not at all, and never believed when a single byte is wrong."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.errors import InvalidSnapshot, SnapshotMissing
from index.flat import FlatIndex
from index.protocol import FrozenIndex, Sink
from index.snapshot import load, save
from index.types import SnapshotManifest
from tests.index.oracle import assert_holds, nearest, numbers, unit

ROOT = Path(__file__).parents[2]
D = 8
N = 20


def make_index(n: int = N, seed: int = 0) -> FlatIndex:
    index = FlatIndex(D)
    index.add(np.arange(n, dtype=np.int64), unit(n, D, seed))
    return index


def keep(folder: Path, n: int = N, seq: int = 42, name: str = "images", seed: int = 0) -> SnapshotManifest:
    return save(folder, make_index(n, seed).freeze(), name=name, space="space", applied_seq=seq)


def reload(folder: Path, name: str = "images") -> tuple[FlatIndex, SnapshotManifest]:
    return load(folder, FlatIndex, name=name, space="space", d=D)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same(index: FlatIndex, n: int = N) -> None:
    expected = nearest(dict(enumerate(unit(n, D))), unit(3, D, 1), 5)
    np.testing.assert_array_equal(index.search(unit(3, D, 1), 5)[1], expected[1])
    assert index.ntotal == n


def test_saved_index_answers_the_same(tmp_path: Path) -> None:
    saved = keep(tmp_path / "deep" / "folder")
    index, manifest = reload(tmp_path / "deep" / "folder")
    assert_same(index)
    assert manifest == saved
    assert manifest.applied_seq == 42
    assert manifest.ntotal == N


def test_empty_index_is_saved(tmp_path: Path) -> None:
    keep(tmp_path, n=0)
    assert reload(tmp_path)[0].ntotal == 0


def test_no_snapshot_is_missing_not_damaged(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SnapshotMissing):
            reload(folder)


def test_next_save_replaces_and_leaves_one_snapshot(tmp_path: Path) -> None:
    for seq in range(3):
        keep(tmp_path, n=seq + 1, seq=seq)
    assert reload(tmp_path)[1].applied_seq == 2
    assert len(list(tmp_path.iterdir())) == 2  # CURRENT and one directory


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path: Path) -> None:
    keep(tmp_path)
    torn = tmp_path / "snapshot-0123456789abcdef"
    torn.mkdir()
    (torn / "vectors.npy").write_bytes(b"half")
    (tmp_path / "CURRENT.new").write_bytes(b"snapshot-0123")
    assert_same(reload(tmp_path)[0])
    keep(tmp_path, seq=43)
    assert reload(tmp_path)[1].applied_seq == 43
    assert not torn.exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_new_snapshot_no_one_points_at_yet_is_not_loaded(tmp_path: Path) -> None:
    """Killed between the new directory and CURRENT: the old one counts."""
    old, new = tmp_path / "old", tmp_path / "new"
    keep(old)
    keep(new, n=3, seq=50)
    (complete,) = new.glob("snapshot-*")
    shutil.copytree(complete, old / complete.name)
    assert reload(old)[1].applied_seq == 42


@pytest.mark.parametrize("change", [{"name": "texts"}, {"space": "other"}, {"d": D + 1}])
def test_snapshot_of_something_else_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    keep(tmp_path)
    wanted: dict[str, object] = {"name": "images", "space": "space", "d": D, **change}
    with pytest.raises(InvalidSnapshot, match=f"{next(iter(change))} is "):
        load(tmp_path, FlatIndex, **wanted)  # type: ignore[arg-type]


def test_snapshot_of_another_kind_is_refused(tmp_path: Path) -> None:
    save(tmp_path, replace(make_index().freeze(), kind="ivf"), name="images", space="space", applied_seq=1)
    with pytest.raises(InvalidSnapshot, match="kind is 'ivf'"):
        reload(tmp_path)


def test_snapshot_of_another_collection_put_in_its_place_is_refused(tmp_path: Path) -> None:
    keep(tmp_path / "a", name="images")
    keep(tmp_path / "b", name="texts", seed=1)
    with pytest.raises(InvalidSnapshot, match="name is 'texts'"):
        reload(tmp_path / "b")
    (a,), (b,) = ((tmp_path / x).glob("snapshot-*") for x in "ab")
    for name in ("manifest.json", "vectors.npy", "ids.npy"):  # same sizes, other contents
        original = (a / name).read_bytes()
        shutil.copy(b / name, a / name)
        if (a / name).read_bytes() != original:
            with pytest.raises(InvalidSnapshot, match="hash differs"):
                reload(tmp_path / "a")
        (a / name).write_bytes(original)
    assert_same(reload(tmp_path / "a")[0])


def iter_damages(folder: Path) -> Iterator[tuple[str, Path, bytes]]:
    """Every byte of the small files flipped, the big ones swept, cut short, made longer, and at random."""
    dice = random.Random(7)
    for name, text in contents(folder).items():
        step = 1 if name.endswith(("CURRENT", "json")) else 13
        for i in range(0, len(text), step):
            flipped = bytes([text[i] ^ (1 << (i % 8))])
            yield f"{name}: byte {i} flipped", folder / name, text[:i] + flipped + text[i + 1 :]
        for i in {0, 1, len(text) // 2, len(text) - 1, *dice.sample(range(len(text)), 20)}:
            yield f"{name}: cut to {i}", folder / name, text[:i]
        yield f"{name}: longer", folder / name, text + b"\0"
        yield f"{name}: a newline more", folder / name, text + b"\n"
        yield f"{name}: zeros", folder / name, bytes(len(text))
        for _ in range(30):
            i, length = dice.randrange(len(text)), dice.randrange(1, 64)
            noise = dice.randbytes(min(length, len(text) - i))
            yield f"{name}: noise at {i}", folder / name, text[:i] + noise + text[i + len(noise) :]


def test_every_damage_is_refused(tmp_path: Path) -> None:
    keep(tmp_path)
    sound = contents(tmp_path)
    tried = 0
    for what, path, text in iter_damages(tmp_path):
        if text == sound[str(path.relative_to(tmp_path))]:
            continue  # the noise hit what was there
        before = path.read_bytes()
        path.write_bytes(text)
        with pytest.raises(InvalidSnapshot):
            print(what, reload(tmp_path))  # shown where nothing was raised
        path.write_bytes(before)
        tried += 1
    assert tried > 500
    assert_same(reload(tmp_path)[0])


@pytest.mark.parametrize("name", ["CURRENT", "manifest.json", "ids.npy", "vectors.npy"])
@pytest.mark.parametrize("instead", ["nothing", "directory", "huge"])
def test_missing_file_or_something_else_in_its_place_is_refused(tmp_path: Path, name: str, instead: str) -> None:
    keep(tmp_path)
    (path,) = tmp_path.rglob(name)
    path.unlink()
    if instead == "directory":
        path.mkdir()
    elif instead == "huge":
        with open(path, "wb") as file:
            file.truncate(1 << 40)  # sparse: must be refused by its size, not read
    with pytest.raises(InvalidSnapshot):
        reload(tmp_path)


def test_contents_that_lie_under_a_right_hash_are_refused(tmp_path: Path) -> None:
    def short(sink: Sink) -> None:
        sink.write(b"\x93NUMPY\x01\x00v\x00{'descr': __import__('os')}".ljust(128) + b"\n")

    frozen = make_index().freeze()
    lying = FrozenIndex(frozen.kind, D, N, {**frozen.files, "vectors.npy": short})
    save(tmp_path, lying, name="images", space="space", applied_seq=1)
    with pytest.raises(InvalidSnapshot, match="contents"):
        reload(tmp_path)


def test_failing_writer_leaves_the_previous_snapshot(tmp_path: Path) -> None:
    keep(tmp_path)
    before = contents(tmp_path)

    def fail(sink: Sink) -> None:
        sink.write(b"half")
        raise OSError(errno.EIO, "the disk says no")

    frozen = make_index().freeze()
    failing = FrozenIndex(frozen.kind, D, N, {**frozen.files, "vectors.npy": fail})
    with pytest.raises(OSError, match="the disk says no"):
        save(tmp_path, failing, name="images", space="space", applied_seq=43)
    assert contents(tmp_path) == before


def test_name_that_load_would_refuse_is_not_saved(tmp_path: Path) -> None:
    keep(tmp_path)
    with pytest.raises(ValueError, match="name: String should match"):
        keep(tmp_path, name="line\nbreak")
    assert_same(reload(tmp_path)[0])


def fill(path: Path, leave: int) -> None:
    """Take all space but `leave` pages of 4 KiB."""
    stat = os.statvfs(path.parent)
    path.write_bytes(bytes(max(0, stat.f_bavail - leave) * stat.f_frsize))


@pytest.mark.parametrize("leave", range(12))
def test_full_disk_leaves_the_previous_snapshot(small_disk: Path, leave: int) -> None:
    """The new snapshot needs 13 pages or so: the disk fills at its first, in its middle, at its last."""
    folder, filler = small_disk / "index", small_disk / "filler"
    keep(folder, n=1000)
    before = contents(folder)
    fill(filler, leave)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        keep(folder, n=1000, seq=43)
    assert contents(folder) == before
    assert_same(reload(folder)[0], 1000)
    filler.unlink()
    keep(folder, n=1000, seq=44)
    assert reload(folder)[1].applied_seq == 44


def test_descriptors_are_not_leaked(tmp_path: Path) -> None:
    keep(tmp_path)
    (vectors,) = tmp_path.rglob("vectors.npy")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        reload(tmp_path)
    vectors.write_bytes(b"")
    for _ in range(5):
        with pytest.raises(InvalidSnapshot):
            reload(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_removed_vectors_are_not_in_the_files(tmp_path: Path) -> None:
    index = make_index()
    index.remove(numbers(3))
    save(tmp_path, index.freeze(), name="images", space="space", applied_seq=1)
    (vectors,) = tmp_path.rglob("vectors.npy")
    assert unit(N, D)[3].tobytes() not in vectors.read_bytes()


SAVES_FOR_EVER = """
import sys, numpy as np
from pathlib import Path
from index.flat import FlatIndex
from index.snapshot import save
seq = int(sys.argv[2])
while True:
    seq += 1
    index = FlatIndex(8)
    index.add(np.arange(seq, dtype=np.int64), np.tile(np.eye(1, 8, dtype=np.float32), (seq, 1)))
    save(Path(sys.argv[1]), index.freeze(), name="images", space="space", applied_seq=seq)
    print(seq, flush=True)
"""


def test_killed_save_leaves_the_last_finished_one_or_a_newer(tmp_path: Path) -> None:
    """kill -9 at any moment; what was reported as saved is there, or the one being saved, whole."""
    dice, seq = random.Random(3), 0
    for _ in range(8):
        command = [sys.executable, "-c", SAVES_FOR_EVER, str(tmp_path), str(seq)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            reported = int(process.stdout.readline())
            time.sleep(dice.uniform(0, 0.05))
            process.kill()
            reported = max([reported, *map(int, process.stdout.read().splitlines())])
        index, manifest = reload(tmp_path)
        seq = manifest.applied_seq
        assert reported <= seq <= reported + 1
        assert index.ntotal == seq


FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("exact-*"))


@pytest.mark.parametrize("folder", FIXTURES, ids=lambda folder: folder.name)
def test_snapshots_of_every_format_so_far_are_opened(folder: Path) -> None:
    """See fixtures/README.md."""
    index, manifest = load(folder, FlatIndex, name="fixture/images", space="fixture", d=8)
    vectors = unit(130, 8, 42)
    assert_holds(index, dict(zip(range(0, 390, 3), vectors, strict=True)))
    assert manifest.applied_seq == 131


def test_there_is_a_fixture() -> None:
    assert [folder.name for folder in FIXTURES] == ["exact-1"]
