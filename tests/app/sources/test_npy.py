from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import Validation
from app.sources.npy import NpyMatrix


def save_array(path: Path, array: object) -> Path:
    np.save(path, array, allow_pickle=True)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_rows_come_one_by_one_at_length_one(tmp_path: Path, dtype: str) -> None:
    rows = np.array([[3, 4, 0], [0, 0, 5], [1e-3, 0, 0]], dtype)
    matrix = NpyMatrix(save_array(tmp_path / "a.npy", rows))
    assert (matrix.n, matrix.d) == (3, 3)
    found = np.stack([row for n in range(3) if (row := matrix.row(n)) is not None])
    assert np.allclose(found, np.array([[0.6, 0.8, 0], [0, 0, 1], [1, 0, 0]]))
    assert matrix.row(3) is None
    matrix.close()


def test_a_row_that_means_nothing_is_none(tmp_path: Path) -> None:
    rows = np.array([[np.nan, 1], [np.inf, 1], [0, 0], [3e38, 3e38]], "<f4")
    matrix = NpyMatrix(save_array(tmp_path / "a.npy", rows))
    assert [matrix.row(n) is None for n in range(4)] == [True, True, True, False]
    matrix.close()


def test_a_file_that_is_cut_while_it_is_open_ends_nothing(tmp_path: Path) -> None:
    path = save_array(tmp_path / "a.npy", np.ones((10_000, 8), "<f4"))
    matrix = NpyMatrix(path)
    os.truncate(path, 200)
    assert matrix.row(9_999) is None
    matrix.close()
    with pytest.raises(Validation, match="cut off"):
        NpyMatrix(path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_what_holds_no_vectors_is_refused_and_no_pickle_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = [np.array([[Bomb()]], dtype=object), np.ones(4), np.ones((2, 2), "<i4"), np.ones((2, 2), ">f4")]
    arrays += [np.ones((2, 2), "<f8"), np.asfortranarray(np.ones((3, 2), "<f4")), np.ones((3, 0), "<f4")]
    paths = [save_array(tmp_path / f"{n}.npy", array) for n, array in enumerate(arrays)]
    for name, data in (("empty", b""), ("words", b"no vectors"), ("pickle", pickle.dumps(Bomb()))):
        (tmp_path / name).write_bytes(data)
        paths.append(tmp_path / name)
    (tmp_path / "bomb").write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 0xFFFF)
    (tmp_path / "link").symlink_to(paths[0])
    os.mkfifo(tmp_path / "pipe")
    paths += [tmp_path / name for name in ("bomb", "link", "pipe", "gone")]
    for path in paths:
        with pytest.raises(Validation, match=path.name):
            NpyMatrix(path)
    assert not (tmp_path / "exploded").exists()
