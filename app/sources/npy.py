"""Vectors in a `.npy` file, of which at most one row is in memory.

It reads the file instead of mapping it: truncating a mapped file would kill the process.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.core.errors import UrlUnreachable, Validation
from app.sources.local_files import open_plain, tag_from_stat

DTYPES = (np.dtype("<f2"), np.dtype("<f4"))
HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpyMatrix:
    """The rows of one file: `n` vectors of width `d`, float16 or float32. The caller closes it."""

    def __init__(self, path: Path) -> None:
        """Raises Validation for any other file."""
        self.name = path.name
        try:
            self._file = open_plain(path)
        except UrlUnreachable as error:
            raise Validation(f"{self.name}: {error.detail}") from None
        try:
            self.n, self.d = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> tuple[int, int]:
        file = self._file
        try:
            read = HEADER_READERS[np.lib.format.read_magic(file)]
            shape, is_fortran, self._dtype = read(file)
        except (ValueError, KeyError, EOFError, SyntaxError, MemoryError, RecursionError):
            raise Validation(f"{self.name} is no .npy file of version 1 or 2") from None
        if len(shape) != 2 or is_fortran or self._dtype not in DTYPES or shape[1] < 1:
            raise Validation(f"{self.name} holds no rows of float16 or float32")
        status = os.fstat(file.fileno())
        self.tag = tag_from_stat(status)
        self._start = file.tell()
        self._row_bytes = shape[1] * self._dtype.itemsize
        if status.st_size < self._start + shape[0] * self._row_bytes:
            raise Validation(f"{self.name} is cut off")
        return int(shape[0]), int(shape[1])

    def row(self, n: int) -> npt.NDArray[np.float32] | None:
        """Row `n` at length 1; None when it is not finite, has no length, or is cut off."""
        data = os.pread(self._file.fileno(), self._row_bytes, self._start + n * self._row_bytes)
        if len(data) < self._row_bytes:
            return None
        vector = np.frombuffer(data, dtype=self._dtype).astype(np.float64)
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length < 1e-6:
            return None
        return (vector / length).astype(np.float32)

    def close(self) -> None:
        self._file.close()
