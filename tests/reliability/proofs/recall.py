"""Recall after a restart equals recall before it.

A process opens an index with a sealed segment (approximate codes) of 20,000 vectors, answers 50 queries, and is killed
with -9. A second process opens the files on the disk and is killed too. A third opens the index after every file of it
was deleted. The proof compares the ten best of each with the true ones.

Failing: recall@10 is more than 0.001 lower than before.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.reliability import indexed
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.servers import wait_until

PROMISE = Promise(6, "recall", "Recall after a restart equals recall before.")
D = 64
OFF = 0.001


def run(scale: Scale) -> Outcome:
    """Measure before a kill, after it, and after the files of the index were deleted."""
    count = scale.pick(5_000, 20_000)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        _, best = indexed.search_exactly(indexed.fill(data, count, D))
        before = recall(data, best, "before", count // 2)
        after = recall(data, best, "after", 0)
        shutil.rmtree(data / "snapshots")
        anew = recall(data, best, "anew", 0)
    figure = f"recall@10 {before:.4f} before kill -9, {after:.4f} after; {anew:.4f} without the index's files"
    return Outcome(figure, after >= before - OFF and anew >= before - OFF)


def recall(data: Path, best: indexed.Ids, name: str, least: int) -> float:
    """The share of the true ten that a new process finds before it is killed."""
    out = data / f"{name}.npy"
    process = subprocess.Popen([sys.executable, "-m", "tests.reliability.indexed", str(data), str(out), str(least)])
    try:
        wait_until(lambda: out.exists() or process.poll() is not None, 2 * indexed.SECONDS)
    finally:
        process.kill()
        process.wait()
    found = np.load(out)
    return float(np.mean([len(set(a) & set(b)) / indexed.K for a, b in zip(found, best, strict=True)]))
