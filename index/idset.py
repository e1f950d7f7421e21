"""IdSet: which ids a search may find, as a bitmap."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from index.types import Ids
from index.validation import check_ids

MAX_ID = (1 << 33) - 1
"""The largest id that a set can hold: its bitmap would be 1 GiB."""

Bitmap = npt.NDArray[np.uint8]


class IdSet:
    """A set of ids that never changes: one bit for each id up to the largest, lowest bit first.

    So it takes largest / 8 bytes, however many ids there are: meant for consecutive ids, as a database numbers its
    rows. FAISS reads the same bits (`IDSelectorBitmap`).
    """

    __slots__ = ("_count", "bitmap")

    def __init__(self, bitmap: Bitmap) -> None:
        self.bitmap = bitmap
        self.bitmap.flags.writeable = False
        self._count = int(np.bitwise_count(bitmap).sum(dtype=np.int64))

    @classmethod
    def of(cls, ids: Ids) -> IdSet:
        """The set of `ids` [n], in any order. Raises InvalidId, and ValueError for one past MAX_ID."""
        return cls(np.zeros(0, np.uint8)).with_changes(ids, np.empty(0, np.int64))

    def with_changes(self, added: Ids, removed: Ids) -> IdSet:
        """This set with the ids of `added` [n] and without those of `removed` [m]; an id in both is not in it.

        Raises InvalidId, and ValueError for an added id past MAX_ID.
        """
        check_ids(added)
        check_ids(removed)
        largest = int(added.max(initial=-1))
        if largest > MAX_ID:
            raise ValueError(f"id {largest} is past {MAX_ID}")
        bits = np.zeros(max(len(self.bitmap), (largest >> 3) + 1), np.uint8)
        bits[: len(self.bitmap)] = self.bitmap
        np.bitwise_or.at(bits, added >> 3, _bit(added))
        inside = removed[removed >> 3 < len(bits)]
        np.bitwise_and.at(bits, inside >> 3, ~_bit(inside))
        return IdSet(bits)

    def contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of `ids` [n] are in the set: [n]. Negative ones, as in a padded answer, never are."""
        inside = (ids >= 0) & (ids >> 3 < len(self.bitmap))
        known = np.where(inside, ids, 0)
        if not len(self.bitmap):
            return inside
        held: npt.NDArray[np.bool_] = inside & ((self.bitmap[known >> 3] & _bit(known)) != 0)
        return held

    def ids(self) -> Ids:
        """All of them, rising: [n]."""
        return np.flatnonzero(np.unpackbits(self.bitmap, bitorder="little")).astype(np.int64)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids().tolist())

    @property
    def nbytes(self) -> int:
        return int(self.bitmap.nbytes)


def _bit(ids: Ids) -> Bitmap:
    bits: Bitmap = np.left_shift(1, ids & 7).astype(np.uint8)
    return bits
