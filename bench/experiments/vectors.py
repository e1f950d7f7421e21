"""As many vectors as wanted, from the embeddings of rendered scenes, and texts as queries with their exact answers.

The first vectors are the pictures' own. Each further one is a picture's moved by noise and brought back to length 1:
half of the noise's energy is shaped like the pictures' own spread, half goes every way alike. Its length is such that
a copy lies from its picture as far as the median picture from its nearest neighbour. All is brought to 512 dimensions
by one random rotation, the same for pictures and texts.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from app.encoder.protocol import Embeddings
from bench.experiments.scenes import FOLDER, pictures, texts, write

D = 512
BLOCK = 20_000
K = 10
SAMPLE = 2_000


def rotation(d: int, wider: int = D) -> Embeddings:
    """[d, wider], rows orthonormal."""
    square: npt.NDArray[np.float64] = np.random.default_rng(0).standard_normal((wider, d))
    return np.asarray(np.linalg.qr(square).Q.T, np.float32)


def normalised(rows: npt.NDArray[np.floating]) -> Embeddings:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def nearest(rows: Embeddings, among: Embeddings, skip: int = 1) -> npt.NDArray[np.float32]:
    """The distance of each row to its nearest neighbour `among` which it is one of itself."""
    scores, _ = faiss.knn(rows, among, skip + 1, metric=faiss.METRIC_INNER_PRODUCT)
    return np.sqrt(np.maximum(0, 2 - 2 * scores[:, skip])).astype(np.float32)


class Enlarged:
    """Vectors by number: vector `i` is always the same, however many are asked for."""

    def __init__(self, originals: Embeddings, apart: float | None = None, wider: int = D) -> None:
        rng = np.random.default_rng(1)
        self.originals = originals[rng.permutation(len(originals))]
        self.turn = rotation(originals.shape[1], wider)
        sample = self.originals[: min(SAMPLE, len(originals))]
        self.apart = float(np.median(nearest(sample, self.originals))) if apart is None else apart
        cosine = 1 - self.apart**2 / 2
        self._step = np.sqrt(1 / cosine**2 - 1)  # at right angles to a picture, it leads so far away once normalised
        spread = np.cov(self.originals[:BLOCK].T)
        self._shape = np.linalg.cholesky(spread / np.trace(spread) + 1e-9 * np.eye(len(spread))).T.astype(np.float32)

    def block(self, start: int, stop: int) -> Embeddings:
        """The vectors `start` to `stop`, which lie in one block."""
        many = len(self.originals)
        rows = self.originals[np.arange(start, stop) % many] @ self.turn
        first = max(0, min(stop, many) - start)  # the pictures themselves
        if first < len(rows):
            rng = np.random.default_rng((2, start))
            shaped = rng.standard_normal((len(rows), self.turn.shape[0]), np.float32) @ self._shape @ self.turn
            even = rng.standard_normal(rows.shape, np.float32) / np.float32(np.sqrt(rows.shape[1]))
            noise = (shaped + even) * np.float32(self._step / np.sqrt(2))
            rows[first:] = normalised(rows[first:] + noise[first:])
        return rows

    def write(self, path: Path, count: int) -> None:
        """A .npy file of `count` vectors."""
        draft = path.with_suffix(".draft")
        out = np.lib.format.open_memmap(draft, "w+", np.float32, (count, self.turn.shape[1]))
        for start in range(0, count, BLOCK):
            stop = min(count, start + BLOCK)
            out[start:stop] = self.block(start, start + BLOCK)[: stop - start]
        out.flush()
        draft.rename(path)


def vectors(count: int, folder: Path = FOLDER) -> Embeddings:
    """[count, D], mapped from a file that is made once; a smaller count is the beginning of a larger."""
    larger = sorted(
        (int(path.stem.split("-")[1]), path)
        for path in folder.glob("vectors-*.npy")
        if int(path.stem.split("-")[1]) >= count
    )
    if not larger:
        path = folder / f"vectors-{count}.npy"
        Enlarged(pictures(folder)).write(path, count)
        larger = [(count, path)]
    return np.load(larger[0][1], mmap_mode="r")[:count]  # type: ignore[no-any-return]


def queries(folder: Path = FOLDER) -> Embeddings:
    """Texts, as they lie among the vectors: [n, D]."""
    return normalised(texts(folder) @ rotation(texts(folder).shape[1]))


def exact(count: int, asked: Embeddings, folder: Path = FOLDER, k: int = K) -> npt.NDArray[np.int64]:
    """Which of the first `count` vectors are each query's best, by comparing with all: [q, k]."""
    path = folder / f"exact-{count}-{len(asked)}-{k}.npy"
    if not path.exists():
        write(path, best(vectors(count, folder), asked, k))
    return np.load(path)  # type: ignore[no-any-return]


def best(rows: Embeddings, asked: Embeddings, k: int) -> npt.NDArray[np.int64]:
    """The exact answer of each query, block by block: [q, k]."""
    scores = np.full((len(asked), k), -np.inf, np.float32)
    ids = np.full((len(asked), k), -1, np.int64)
    for start in range(0, len(rows), 5 * BLOCK):
        part = np.ascontiguousarray(rows[start : start + 5 * BLOCK])
        found, where = faiss.knn(asked, part, min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([scores, found], axis=1)
        ids = np.concatenate([ids, where + start], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    return ids


def recall(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """The share of the true best that was found."""
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    return sum(len(set(one) & set(other)) for one, other in pairs) / truth.size


def neighbourhood(count: int, folder: Path = FOLDER) -> dict[str, float]:
    """How far vectors lie from their nearest neighbours: pictures among pictures, copies among all."""
    own = pictures(folder)
    large = Enlarged(own)
    rows = vectors(count, folder)
    copies = np.ascontiguousarray(rows[-SAMPLE:])
    part = np.ascontiguousarray(rows)
    made = {"picture to nearest picture, median": large.apart}
    if count > len(own):
        home = large.originals[np.arange(count - SAMPLE, count) % len(own)] @ large.turn
        made["copy to its picture, median"] = float(np.median(np.linalg.norm(copies - home, axis=1)))
        made[f"copy to nearest of {count:,}, median"] = float(np.median(nearest(copies, part)))
    texts_best, _ = faiss.knn(queries(folder)[:SAMPLE], part, 1, metric=faiss.METRIC_INNER_PRODUCT)
    made["text to its best, mean cosine"] = float(texts_best.mean())
    return made
