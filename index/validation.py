"""What a valid id, vector or query is: only this module decides."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from index.errors import InvalidId, InvalidVector
from index.types import Embeddings, Ids

UNIT_TOLERANCE = 0.01
"""How far a length may be from 1. Vectors normalised in half precision are off by about 0.001."""


def check_ids(ids: Ids) -> None:
    """Raise InvalidId unless `ids` is int64 [n] and nowhere negative."""
    if ids.dtype != np.int64 or ids.ndim != 1:
        raise InvalidId(f"ids are {ids.dtype} {list(ids.shape)}, expected int64 [n]")
    if ids.size and ids.min() < 0:
        raise InvalidId(f"id {ids.min()} is negative")


def check_vectors(vectors: Embeddings, d: int) -> None:
    """Raise InvalidVector unless `vectors` is float32 [n, d] of unit rows."""
    _check_shape(vectors, d)
    bad = np.flatnonzero(~has_unit_length(vectors))
    if bad.size:
        raise InvalidVector(f"{bad.size} of {len(vectors)} vectors are not of unit length, first: {bad[0]}")


def check_batch(ids: Ids, vectors: Embeddings, d: int) -> None:
    """Raise InvalidId or InvalidVector unless these can be added, and ValueError unless they are as many."""
    check_ids(ids)
    check_vectors(vectors, d)
    if len(ids) != len(vectors):
        raise ValueError(f"{len(ids)} ids for {len(vectors)} vectors")


def keep_last(ids: Ids) -> Ids:
    """The positions [m] of `ids` [n] at which an id occurs for the last time, in order of its first occurrence."""
    last = dict(zip(ids.tolist(), range(len(ids)), strict=True))
    return np.fromiter(last.values(), np.int64, len(last))


def check_search(queries: Embeddings, k: int, d: int) -> None:
    """Raise InvalidVector unless `queries` is float32 [n, d] of finite rows that are not zero, ValueError if k < 0.

    The length of a query is free: it scales the scores and leaves the order alone.
    """
    if k < 0:
        raise ValueError(f"k is {k}, expected 0 or more")
    _check_shape(queries, d)
    squares = _squares(queries)
    bad = np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))
    if bad.size:
        raise InvalidVector(f"{bad.size} of {len(queries)} queries are zero or not finite, first: {bad[0]}")


def has_unit_length(vectors: Embeddings) -> npt.NDArray[np.bool_]:
    """Which rows of `vectors` [n, d] are finite and of unit length: [n]."""
    low, high = (1 - UNIT_TOLERANCE) ** 2, (1 + UNIT_TOLERANCE) ** 2
    squares = _squares(vectors)
    return (squares >= low) & (squares <= high)  # NaN is neither


def _squares(rows: Embeddings) -> npt.NDArray[np.float32]:
    # One pass finds NaN, infinity and zero, and also what would overflow or vanish in a product.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares: npt.NDArray[np.float32] = np.vecdot(rows, rows)
    return squares


def _check_shape(rows: Embeddings, d: int) -> None:
    if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != d:
        raise InvalidVector(f"vectors are {rows.dtype} {list(rows.shape)}, expected float32 [n, {d}]")
