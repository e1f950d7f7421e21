"""Vectors in a `.npy` file, of which never more than a row is read at once.

The file is read, not mapped: one that is cut while it is mapped would end the process.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.core.errors import Validation
from app.core.files import open_nofollow
from app.sources.local_files import tag_from_stat

DTYPES = (np.dtype("<f2"), np.dtype("<f4"))
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpyMatrix:
    """The rows of one file: `n` vectors of width `d`, float16 or float32. `close` it."""

    def __init__(self, path: Path) -> None:
        """Raises Validation for what is no such file."""
        self.name = path.name
        try:
            self._file = open(path, "rb", opener=open_nofollow)  # noqa: SIM115 (closed by `close`)
        except OSError as error:
            raise Validation(f"{self.name} cannot be read: {error.strerror}") from None
        try:
            self.n, self.d = self._head()
        except BaseException:
            self._file.close()
            raise

    def _head(self) -> tuple[int, int]:
        file = self._file
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Validation(f"{self.name} is no plain file")
        try:
            read = HEADERS[np.lib.format.read_magic(file)]
            shape, by_columns, self._dtype = read(file)
        except (ValueError, KeyError, EOFError, SyntaxError, MemoryError, RecursionError):
            raise Validation(f"{self.name} is no .npy file of a version that is read here") from None
        if len(shape) != 2 or by_columns or self._dtype not in DTYPES or shape[1] < 1:
            raise Validation(f"{self.name} holds no rows of float16 or float32")
        self.tag = tag_from_stat(os.fstat(file.fileno()))
        self._begin = file.tell()
        self._width = shape[1] * self._dtype.itemsize
        if os.fstat(file.fileno()).st_size < self._begin + shape[0] * self._width:
            raise Validation(f"{self.name} is cut off")
        return int(shape[0]), int(shape[1])

    def row(self, n: int) -> npt.NDArray[np.float32] | None:
        """Row `n` at length 1; None when it is not finite, has no length, or is not there (any more)."""
        data = os.pread(self._file.fileno(), self._width, self._begin + n * self._width)
        if len(data) < self._width:
            return None
        vector = np.frombuffer(data, dtype=self._dtype).astype(np.float64)
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length < 1e-6:
            return None
        return (vector / length).astype(np.float32)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
