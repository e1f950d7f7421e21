"""Arrays to a stream and back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.npy_io import map_array, read_array, write_array
from tests.index.oracle import unit


class Buffer(io.BytesIO):
    """A file that returns fewer bytes than asked for, as files may."""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return super().readinto(buffer[:5])


def write_to_bytes(shape: tuple[int, ...] = (7, 3)) -> bytes:
    sink = io.BytesIO()
    vectors = unit(7, 3)
    write_array(sink, np.float32, shape, (vectors[:4], vectors[4:]))
    return sink.getvalue()


def test_blocks_are_read_back_as_one_array() -> None:
    np.testing.assert_array_equal(read_array(Buffer(write_to_bytes()), np.float32, (7, 3)), unit(7, 3))


def test_numpy_reads_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "vectors.npy").write_bytes(write_to_bytes())
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy", allow_pickle=False), unit(7, 3))


def test_empty_array_survives() -> None:
    sink = io.BytesIO()
    write_array(sink, np.int64, (0,), ())
    assert read_array(Buffer(sink.getvalue()), np.int64, (0,)).shape == (0,)


def test_rows_out_of_order_in_memory_are_written_in_order() -> None:
    sink, vectors = io.BytesIO(), np.asfortranarray(unit(4, 3))
    write_array(sink, np.float32, (4, 3), [vectors])
    np.testing.assert_array_equal(read_array(Buffer(sink.getvalue()), np.float32, (4, 3)), vectors)


@pytest.mark.parametrize("shape", [(7, 4), (8, 3), (21,), (3, 7)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected float32"):
        read_array(Buffer(write_to_bytes()), np.float32, shape)


def test_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="expected int32"):
        read_array(Buffer(write_to_bytes()), np.int32, (7, 3))


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with open(tmp_path / "evil.npy", "rb") as file, pytest.raises(ValueError, match="holds object"):
        read_array(file, np.float32, (1,))


def test_shorter_and_longer_files_are_refused() -> None:
    with pytest.raises(ValueError, match="ends too early"):
        read_array(Buffer(write_to_bytes()[:-1]), np.float32, (7, 3))
    with pytest.raises(ValueError, match="goes on"):
        read_array(Buffer(write_to_bytes() + b"\0"), np.float32, (7, 3))


def test_other_magic_is_refused() -> None:
    for text in (b"", b"\x93NUMPY\x02\x00" + write_to_bytes()[8:], b"PK" + write_to_bytes()):
        with pytest.raises(ValueError):  # noqa: PT011 - each says something else
            read_array(Buffer(text), np.float32, (7, 3))


def test_a_mapped_array_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    path.write_bytes(write_to_bytes())
    with open(path, "rb", buffering=0) as file:
        array = map_array(file, np.float32, (7, 3))
    path.unlink()
    np.testing.assert_array_equal(array, unit(7, 3))
    assert not array.flags.writeable


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole + b"\0"])
def test_a_file_of_another_length_is_not_mapped(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "vectors.npy"
    path.write_bytes(change(write_to_bytes()))
    with open(path, "rb") as file, pytest.raises(ValueError, match="too few or too many"):
        map_array(file, np.float32, (7, 3))
