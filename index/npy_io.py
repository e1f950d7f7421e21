"""Numpy arrays to a stream and back, in numpy's .npy format, version 1.0, without ever unpickling.

`numpy.save` needs the whole array at once and `numpy.load` trusts the header; these functions write an array block by
block, and read it only if it has exactly the expected dtype and shape.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from index.protocol import Sink


def write_array(sink: Sink, dtype: npt.DTypeLike, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]]) -> None:
    """Write `blocks`, rows of one array of `shape`, one after the other."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(sink, header)
    for block in blocks:
        sink.write(_as_bytes(np.ascontiguousarray(block)))


def read_array(file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array in `file`. Raises ValueError unless it has this dtype and shape and the file ends with it."""
    _read_header(file, dtype, shape)
    array = np.empty(shape, dtype)
    rest = _as_bytes(array)
    while rest.nbytes:
        count = file.readinto(rest)  # type: ignore[attr-defined]  # every real file has it
        if not count:
            raise ValueError("the file ends too early")
        rest = rest[count:]
    if file.read(1):
        raise ValueError("the file goes on past the array")
    return array


def map_array(file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The same, mapped and not read: the file must not change. It stays mapped as long as the array is used."""
    _read_header(file, dtype, shape)
    start, size = file.tell(), os.fstat(file.fileno()).st_size
    if size != start + np.dtype(dtype).itemsize * math.prod(shape):
        raise ValueError(f"the file has {size} bytes, too few or too many for {list(shape)}")
    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype, math.prod(shape), start).reshape(shape)


def _read_header(file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not a .npy file of version 1.0")
    found, fortran_order, descr = np.lib.format.read_array_header_1_0(file)
    if (found, fortran_order, descr) != (shape, False, np.dtype(dtype)):
        raise ValueError(f"holds {descr} {list(found)}, expected {np.dtype(dtype)} {list(shape)}")


def _as_bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
