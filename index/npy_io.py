"""Numpy arrays to a stream and back, in numpy's .npy format, version 1.0, without ever unpickling.

`numpy.save` wants the whole array at once and `numpy.load` believes the header; here an array is written
block by block, and read only if it is exactly the one that was expected.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

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
        sink.write(_raw(np.ascontiguousarray(block)))


def read_array(file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array in `file`. Raises ValueError unless it has this dtype and shape and the file ends with it."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not a .npy file of version 1.0")
    found, fortran_order, descr = np.lib.format.read_array_header_1_0(file)
    if (found, fortran_order, descr) != (shape, False, np.dtype(dtype)):
        raise ValueError(f"holds {descr} {list(found)}, expected {np.dtype(dtype)} {list(shape)}")
    array = np.empty(shape, dtype)
    rest = _raw(array)
    while rest.nbytes:
        count = file.readinto(rest)  # type: ignore[attr-defined]  # every real file has it
        if not count:
            raise ValueError("ends too early")
        rest = rest[count:]
    if file.read(1):
        raise ValueError("goes on past its end")
    return array


def _raw(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
