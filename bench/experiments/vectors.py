"""Make any number of vectors from the embeddings of rendered scenes, and texts as queries with their exact answers.

The first vectors are those of the pictures. Each further one is the vector of a picture plus noise, normalised. Half of
the noise's energy has the covariance of the pictures, half is isotropic. Its length is chosen so that the distance
of a copy to its picture equals the median distance of a picture to its nearest neighbour. One random rotation brings
pictures and texts to 512 dimensions.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from app.encoder.protocol import Embeddings, normalise
from bench.experiments.scenes import FOLDER, load_generic, load_pictures, load_texts, save_array

D = 512
BLOCK = 20_000
K = 10
SAMPLE = 2_000


def make_rotation(d: int, wider: int = D) -> Embeddings:
    """[d, wider], rows orthonormal."""
    square: npt.NDArray[np.float64] = np.random.default_rng(0).standard_normal((wider, d))
    return np.asarray(np.linalg.qr(square).Q.T, np.float32)


def nearest_distances(rows: Embeddings, among: Embeddings, skip: int = 1) -> npt.NDArray[np.float32]:
    """The distance of each row to its nearest neighbour in `among`, which contains the row itself."""
    scores, _ = faiss.knn(rows, among, skip + 1, metric=faiss.METRIC_INNER_PRODUCT)
    return np.sqrt(np.maximum(0, 2 - 2 * scores[:, skip])).astype(np.float32)


class EnlargedSet:
    """Vectors by number: vector `i` is the same whatever the size of the set."""

    def __init__(self, originals: Embeddings, apart: float | None = None, wider: int = D) -> None:
        rng = np.random.default_rng(1)
        self.originals = originals[rng.permutation(len(originals))]
        self.turn = make_rotation(originals.shape[1], wider)
        sample = self.originals[: min(SAMPLE, len(originals))]
        self.apart = float(np.median(nearest_distances(sample, self.originals))) if apart is None else apart
        cosine = 1 - self.apart**2 / 2
        self._step = np.sqrt(
            1 / cosine**2 - 1
        )  # length of a noise vector orthogonal to the picture that gives this distance
        spread = np.cov(self.originals[:BLOCK].T)
        self._shape = np.linalg.cholesky(spread / np.trace(spread) + 1e-9 * np.eye(len(spread))).T.astype(np.float32)

    def block(self, start: int, stop: int) -> Embeddings:
        """The vectors from `start` to `stop`, which must be in one block."""
        many = len(self.originals)
        rows = self.originals[np.arange(start, stop) % many] @ self.turn
        first = max(0, min(stop, many) - start)  # the pictures themselves
        if first < len(rows):
            rng = np.random.default_rng((2, start))
            shaped = rng.standard_normal((len(rows), self.turn.shape[0]), np.float32) @ self._shape @ self.turn
            even = rng.standard_normal(rows.shape, np.float32) / np.float32(np.sqrt(rows.shape[1]))
            noise = (shaped + even) * np.float32(self._step / np.sqrt(2))
            rows[first:] = normalise(rows[first:] + noise[first:])
        return rows

    def write(self, path: Path, count: int) -> None:
        """Write `count` vectors to a .npy file."""
        draft = path.with_suffix(".draft")
        out = np.lib.format.open_memmap(draft, "w+", np.float32, (count, self.turn.shape[1]))
        for start in range(0, count, BLOCK):
            stop = min(count, start + BLOCK)
            out[start:stop] = self.block(start, start + BLOCK)[: stop - start]
        out.flush()
        draft.rename(path)


def load_vectors(count: int, folder: Path = FOLDER) -> Embeddings:
    """[count, D], mapped from a file that is made once; a smaller count is the beginning of a larger one."""
    larger = sorted(
        (int(path.stem.split("-")[1]), path)
        for path in folder.glob("vectors-*.npy")
        if int(path.stem.split("-")[1]) >= count
    )
    if not larger:
        path = folder / f"vectors-{count}.npy"
        EnlargedSet(load_pictures(folder)).write(path, count)
        larger = [(count, path)]
    return np.load(larger[0][1], mmap_mode="r")[:count]  # type: ignore[no-any-return]


def load_queries(folder: Path = FOLDER) -> Embeddings:
    """Embeddings of texts, rotated like the vectors: [n, D]."""
    return normalise(load_texts(folder) @ make_rotation(load_texts(folder).shape[1]))


def load_asked(folder: Path = FOLDER) -> list[Embeddings]:
    """What a service calibrates an index with, rotated like the vectors; no query is among them."""
    texts = load_generic(folder)
    return [normalise(texts @ make_rotation(texts.shape[1]))]


def load_exact(count: int, asked: Embeddings, folder: Path = FOLDER, k: int = K) -> npt.NDArray[np.int64]:
    """The best of the first `count` vectors for each query, by comparing with all: [q, k]."""
    path = folder / f"exact-{count}-{len(asked)}-{k}.npy"
    if not path.exists():
        save_array(path, find_exact(load_vectors(count, folder), asked, k))
    return np.load(path)  # type: ignore[no-any-return]


def find_exact(rows: Embeddings, asked: Embeddings, k: int) -> npt.NDArray[np.int64]:
    """The exact answer to each query, computed block by block: [q, k]."""
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
    """The share of the true best that a search found."""
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    return sum(len(set(one) & set(other)) for one, other in pairs) / truth.size


def measure_distances(count: int, folder: Path = FOLDER) -> dict[str, float]:
    """Distances to the nearest neighbours: pictures among pictures, copies among all."""
    own = load_pictures(folder)
    large = EnlargedSet(own)
    rows = load_vectors(count, folder)
    copies = np.ascontiguousarray(rows[-SAMPLE:])
    part = np.ascontiguousarray(rows)
    made = {"picture to nearest picture, median": large.apart}
    if count > len(own):
        home = large.originals[np.arange(count - SAMPLE, count) % len(own)] @ large.turn
        made["copy to its picture, median"] = float(np.median(np.linalg.norm(copies - home, axis=1)))
        made[f"copy to nearest of {count:,}, median"] = float(np.median(nearest_distances(copies, part)))
    texts_best, _ = faiss.knn(load_queries(folder)[:SAMPLE], part, 1, metric=faiss.METRIC_INNER_PRODUCT)
    made["text to its best, mean cosine"] = float(texts_best.mean())
    return made
