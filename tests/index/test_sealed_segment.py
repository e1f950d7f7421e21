"""A sealed segment on disk: what it finds, and that no byte of it is believed before it was checked."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from index import snapshot
from index.errors import InvalidSnapshot, SegmentDamaged
from index.float16 import round_to_float16
from index.idset import IdSet
from index.sealed_segment import BLOCK_ROWS, VECTORS, AllowedRows, Depth, SealedSegment, SegmentParams
from index.segmented import SegmentedIndex
from tests.index.oracle import nearest, numbers, unit
from tests.index.sealed import load, sealed

D, N = 16, 300
IDS = np.random.default_rng(9).permutation(N).astype(np.int64) * 5 + 2
VECTORS_IN = round_to_float16(unit(N, D))
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def segment_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    sealed(folder, IDS, VECTORS_IN, seq=77)
    return folder


@pytest.fixture
def base(segment_dir: Path) -> SealedSegment:
    return load(segment_dir, D)


def allowed(rows: list[int]) -> AllowedRows:
    bits = np.zeros(N, np.bool_)
    bits[rows] = True
    return AllowedRows(np.packbits(bits, bitorder="little"), len(rows))


def stored_rows(rows: range | list[int] = range(N)) -> dict[int, np.ndarray]:
    return {int(IDS[row]): VECTORS_IN[row] for row in rows}


def test_it_knows_what_it_is(base: SealedSegment) -> None:
    assert (base.n, base.d, base.manifest.applied_seq, base.manifest.kind) == (N, D, 77, "base")
    assert base.params.fast.nprobe <= base.params.normal.nprobe <= base.params.nlist


def test_rows_are_found_by_id(base: SealedSegment) -> None:
    np.testing.assert_array_equal(base.find_rows(IDS[[4, 250, 0]]), [4, 250, 0])
    assert base.find_rows(numbers(0, 1, 3, 2**62)).tolist() == []
    assert base.find_known(numbers(int(IDS[7]), 1)).tolist() == [int(IDS[7])]


@pytest.mark.parametrize("few", [0, 10**6])
@pytest.mark.parametrize("k", [1, 10, N, N + 5])
def test_codes_and_plain_comparison_give_the_same_answer(base: SealedSegment, few: int, k: int) -> None:
    base.brute_force_rows = few
    queries = unit(4, D, 3)
    scores, ids = base.search(queries, k, base.params.nlist, N)
    expected = nearest(stored_rows(), queries, k)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_allclose(scores, expected[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("probes", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 9, 40])
def test_k_hits_come_back_wherever_k_are_allowed(base: SealedSegment, probes: int, count: int) -> None:
    rows = np.random.default_rng(4).permutation(N)[:count].tolist()
    scores, ids = base.search(unit(5, D, 3), 10, probes, 1, allowed(rows))
    assert ((ids >= 0).sum(axis=1) == min(10, count)).all()
    assert set(ids[ids >= 0].tolist()) <= set(stored_rows(rows))
    assert np.isneginf(scores[ids < 0]).all()


def test_an_exact_search_among_some_is_the_oracles(base: SealedSegment) -> None:
    rows = list(range(0, N, 3))
    _, ids = base.search_exact(unit(3, D, 3), 20, allowed(rows))
    np.testing.assert_array_equal(ids, nearest(stored_rows(rows), unit(3, D, 3), 20)[1])


@pytest.mark.parametrize("wanted", [[], [2], [1, 3, 4], list(range(0, 2000, 2)), [7, 10**7], [700]])
def test_a_selection_of_ids_becomes_one_of_rows(base: SealedSegment, wanted: list[int]) -> None:
    among = IdSet.of(np.array(wanted, np.int64))
    for _ in range(2):  # the second time from what was kept
        bits = np.unpackbits(base.map_to_rows(among), count=N, bitorder="little")
        np.testing.assert_array_equal(np.flatnonzero(bits), np.flatnonzero(np.isin(IDS, wanted)))


def test_vectors_are_mapped_and_not_read_at_the_opening(segment_dir: Path, base: SealedSegment) -> None:
    path = next(segment_dir.glob(f"*/{VECTORS}"))
    assert str(path) in Path("/proc/self/maps").read_text()
    assert not base.verified
    base.verify()
    assert base.verified
    assert base.damage is None


def test_verifying_can_be_stopped(base: SealedSegment) -> None:
    base.verify(lambda: True)
    assert not base.verified


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << at % 8
    path.write_bytes(data)


def offsets(size: int) -> list[int]:
    """The first and last bytes and some between."""
    return sorted({*range(min(size, 12)), *range(size - 8, size), *np.linspace(0, size - 1, 25).astype(int).tolist()})


FILES = ["base.json", "blocks.npy", "codes.faiss", "gap.npy", "ids.npy", "manifest.json", "order.npy"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_refused_before_anything_reads_the_file(segment_dir: Path, tmp_path: Path, name: str) -> None:
    copied = shutil.copytree(segment_dir, tmp_path / "copy")
    path = next(copied.glob(f"*/{name}"))
    whole = path.read_bytes()
    for at in offsets(len(whole)):
        flip(path, at)
        with pytest.raises(InvalidSnapshot):
            load(copied, D)
        path.write_bytes(whole)
    load(copied, D)


@pytest.mark.parametrize("name", [*FILES, VECTORS, "CURRENT"])
def test_a_file_of_another_length_is_refused(segment_dir: Path, tmp_path: Path, name: str) -> None:
    copied = shutil.copytree(segment_dir, tmp_path / "copy")
    path = next(copied.rglob(name))
    whole = path.read_bytes()
    for length in sorted({0, 1, len(whole) // 2, len(whole) - 1}):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidSnapshot):
            load(copied, D)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InvalidSnapshot):
        load(copied, D)
    path.unlink()
    with pytest.raises(InvalidSnapshot):
        load(copied, D)


def test_a_flipped_byte_among_the_vectors_never_reaches_an_answer(segment_dir: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(segment_dir, tmp_path / "copy")
    path = next(copied.glob(f"*/{VECTORS}"))
    whole = path.read_bytes()
    expected = nearest(stored_rows(), unit(1, D, 3), 5)[1]
    for at in offsets(len(whole)):
        flip(path, at)
        damaged, verified = load(copied, D), load(copied, D)
        broken = at // (BLOCK_ROWS * D * 2)
        with pytest.raises(SegmentDamaged, match=f"block {broken} differs"):
            verified.verify()
        with pytest.raises(SegmentDamaged):  # and from then on nothing is answered
            verified._vectors.take(np.array([0]))
        sound = [row for row in range(N) if row // BLOCK_ROWS != broken]
        np.testing.assert_array_equal(
            damaged.search_exact(unit(1, D, 3), 5, allowed(sound))[1], nearest(stored_rows(sound), unit(1, D, 3), 5)[1]
        )
        with pytest.raises(SegmentDamaged):
            damaged.search(unit(1, D, 3), 5, damaged.params.nlist, N)
        path.write_bytes(whole)
    np.testing.assert_array_equal(load(copied, D).search_exact(unit(1, D, 3), 5)[1], expected)


@pytest.mark.parametrize("change", [{"name": "m"}, {"space": "t"}, {"d": D + 1}])
def test_a_segment_of_another_index_is_refused(segment_dir: Path, change: dict[str, object]) -> None:
    asked = {"name": "n", "space": "s", "d": D, **change}
    with pytest.raises(InvalidSnapshot, match=f"{next(iter(change))} is "):
        snapshot.load(segment_dir, SealedSegment, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "lists": 1, "probes": 0, "rerank": 1, "recall": 1}',
        b'{"format": 2, "lists": 1, "probes": 1, "rerank": 1, "recall": 1}',
        b'{"format": 3, "lists": 1, "probes": 1, "rerank": 1, "recall": 1}',
    ],
)
def test_parameters_of_another_format_are_refused(text: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        SegmentParams.from_json(text)


def test_parameters_are_read_as_they_were_written() -> None:
    params = SegmentParams(9, Depth(nprobe=3, refine_k=100, recall=0.99), Depth(2, 40, 0.95), share=0.5)
    assert SegmentParams.from_json(params.to_json()) == params


def test_parameters_of_the_first_format_have_one_effort() -> None:
    params = SegmentParams.from_json(b'{"format": 1, "lists": 9, "probes": 3, "rerank": 100, "recall": 0.99}')
    assert params == SegmentParams(9, Depth(3, 100, 0.99), Depth(3, 100, 0.99), format=1)


def test_searches_go_on_when_the_files_are_deleted(segment_dir: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(segment_dir, tmp_path / "copy")
    live = SegmentedIndex(D, load(copied, D))
    shutil.rmtree(copied)
    assert live.search(VECTORS_IN[:1], 1)[1].tolist() == [[IDS[0]]]


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("base-*")), ids=lambda folder: folder.name)
def test_segments_of_every_format_so_far_are_opened(folder: Path) -> None:
    """See fixtures/README.md."""
    base, manifest = snapshot.load(folder, SealedSegment, name="fixture/images", space="fixture", d=8)
    base.verify()
    base.brute_force_rows = 0
    vectors = round_to_float16(unit(130, 8, 42))
    ids = np.arange(130, dtype=np.int64) * 3
    expected = nearest(dict(zip(ids.tolist(), vectors, strict=True)), unit(5, 8, 43), 10)
    _, found = base.search(unit(5, 8, 43), 10, base.params.nlist, 130)
    np.testing.assert_array_equal(found, expected[1])
    assert manifest.applied_seq == 131


def test_there_is_a_fixture() -> None:
    assert [folder.name for folder in sorted(FIXTURES.glob("base-*"))] == ["base-1", "base-2"]
