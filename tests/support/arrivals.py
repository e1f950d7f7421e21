"""Pictures that become ready in a service of this process, as if a worker had finished them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from app.core.settings import Settings
from app.core.types import Image, JobState
from app.encoder.protocol import Embeddings, normalise
from app.service.service import Service, open_service
from app.storage.tables import embeddings, heads, images
from tests.support.lessons import ENCODER, finish
from tests.support.makers import claim, image_of, insert
from tests.support.servers import wait_until

_numbers = count(1)


@contextmanager
def running_service(folder: Path, **settings: Any) -> Iterator[Service]:
    """A service that is ready, with a model of colours."""
    service = open_service(Settings(data_dir=folder, model="colours", decoders=1, **settings))
    try:
        service.start()
        wait_until(lambda: not service.search.reasons_not_ready(), 20.0, service.search.reasons_not_ready)
        yield service
    finally:
        service.close()


def clear(service: Service) -> None:
    """Take everything away again, so that the next test has an empty service."""

    def work(c: Any) -> None:
        for table in ("saved_searches", "label_sets"):
            c.execute(f"DELETE FROM {table}")
        for key in images.list_ready_keys(c, "default"):
            embeddings.remove(c, "images", key)
            images.delete(c, key)
        heads.use(c, "default", None)

    wait_until(lambda: all(job.finished_at for job in service.jobs.list_recent(50)), 20.0)
    service.library.database.write(work)
    service.search.searcher.profiles.forget("default")
    service.labels._taggers.clear()
    service.arrivals._prepared.clear()


def show(words: Sequence[str]) -> Embeddings:
    """Vectors of pictures that show these words, with some noise."""
    vectors = ENCODER.encode_texts(words)
    noise = np.random.default_rng(len(words)).standard_normal(vectors.shape)
    return normalise(vectors + 0.02 * noise)


def arrive(service: Service, words: Sequence[str], vectors: Embeddings | None = None, **said: Any) -> list[str]:
    """New pictures that are ready, one that shows each of the words; returns their ids."""
    database = service.library.database
    database.write(lambda c: embeddings.save_space(c, ENCODER.space))
    rows = show(words) if vectors is None else vectors
    ids = []
    for row in rows:
        n = next(_numbers)
        insert(database, n, f"p{n}", **said)
        (lease,) = claim(database)
        database.write(partial(finish, lease=lease, vector=row.astype("<f4").tobytes()))
        ids.append(f"p{n}")
    return ids


def picture_of(service: Service, id: str) -> Image:
    return image_of(service.library.database, id)


def tags_of(service: Service, ids: Sequence[str]) -> list[list[str]]:
    """The auto-tags of pictures."""
    return [list(picture_of(service, id).auto_tags) for id in ids]


def wait_job(service: Service, id: str) -> dict[str, Any]:
    """The result of a job once it has succeeded."""
    ended = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    wait_until(lambda: service.jobs.get(id).state in ended, 30.0, lambda: service.jobs.get(id))
    job = service.jobs.get(id)
    assert job.state is JobState.SUCCEEDED, job
    return dict(job.result or {})


def delete(service: Service, id: str) -> None:
    service.library.database.write(lambda c: images.delete(c, picture_of(service, id).key))
