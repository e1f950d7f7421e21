"""The clients of other systems, as their packages are: each of their calls gets the vectors that searches have.

`tests/acceptance/callers/` has the calls; docs/howto/embeddings.md lists them with their results, and a test holds it
complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.types import KeyScope
from app.encoder.dummy import DummyEncoder
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.support.callers import ROOT, run_calls
from tests.support.pictures import picture
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parent / "callers"
TEXTS = ["a red car", "the blue sea"]
NAMES = "jina-clip-v2,voyage-multimodal-3,voyage-3,embed-v4.0,text-embedding-3-small"
JPEG_COSINE = 0.99  # a client that sends JPEG changes the pixels
# The errors that clients must raise, by the names of the calls.
ERRORS = {
    "openai: another model": "NotFoundError",
    "openai: tokens": "BadRequestError",
    "openai: dimensions": "BadRequestError",
    "openai: an empty text": "BadRequestError",
    "openai: 2,049 texts": "BadRequestError",
    "openai: another key": "AuthenticationError",
    "infinity_client: one bad picture": "UnexpectedStatus",
    "infinity_client: no picture (422)": "HTTPValidationError",
    "cohere v2: another model": "NotFoundError",
    "cohere v2: int8": "BadRequestError",
    "cohere v2: another key": "UnauthorizedError",
    "voyageai: one bad picture": "InvalidRequestError",
    "voyageai: another model": "InvalidRequestError",
    "voyageai: another key": "AuthenticationError",
}


@dataclass
class Served:
    """A server, the files of two pictures with their vectors, and a key once there is one."""

    server: RunningServer
    files: list[Path]
    seen: np.ndarray[Any, Any]

    def make_key(self) -> str:
        database = open_database(self.server.data_dir / "sightline.db")
        _, key = ApiKeyService(database).create("callers", KeyScope.SEARCH, (), None)
        database.close()
        return key


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("callers")
    with RunningServer(folder / "data", served_names=NAMES) as server:
        files, seen = [], []
        for colour in ("red", "blue"):
            files.append(folder / f"{colour}.png")
            files[-1].write_bytes(picture(colour))
            assert server.upload(files[-1].read_bytes(), id=colour).status_code == 200
            seen.append(server.http.get(f"/v1/images/{colour}/vector").json()["vector"])
        yield Served(server, files, np.asarray(seen, np.float32))


def check(call: str, got: dict[str, Any], seen: np.ndarray[Any, Any]) -> None:
    """Vectors are those of the encoder and of stored pictures; an error is the one that the client knows."""
    words = DummyEncoder().encode_texts(TEXTS)
    for name, expected in (("texts", words), ("pictures", seen)):
        if name in got:
            vectors = np.asarray(got[name], np.float32)
            assert len(vectors), call
            assert np.allclose(vectors, expected[: len(vectors)], atol=1e-6), call
    if "jpegs" in got:
        assert float(np.asarray(got["jpegs"][0], np.float32) @ seen[0]) > JPEG_COSINE, call
    if "mixed" in got:
        mean = words[0] + seen[0]
        assert np.allclose(got["mixed"][0], mean / np.linalg.norm(mean), atol=1e-6), call
    if "bits" in got:
        assert np.array_equal(got["bits"], np.packbits(words > 0, axis=1)), call
    if "signed" in got:
        assert np.array_equal(got["signed"], np.packbits(words > 0, axis=1).astype(int) - 128), call
    if "ids" in got:
        assert {"colours", *NAMES.split(",")} == set(got["ids"]), call
    assert got.get("tokens") in (None, 3, 6), call
    assert got.get("count") in (None, 2048), call
    assert got.get("pixels") in (None, 64 * 48), call
    assert got.get("error") == ERRORS.get(call), call


def test_frameworks_that_send_no_key_are_answered_where_none_is_needed(served: Served) -> None:
    told = run_calls("frameworks", SCRIPTS / "frameworks.py", served.server.url, "none", *served.files)
    assert list(told) == ["LangChain InfinityEmbeddings"]
    for call, got in told.items():
        check(call, got, served.seen)


def test_every_call_of_the_clients_has_its_result(served: Served) -> None:
    key, documented = served.make_key(), list_documented_calls()
    made = ["LangChain InfinityEmbeddings"]
    for name in ("clients", "frameworks"):
        told = run_calls(name, SCRIPTS / f"{name}.py", served.server.url, key, *served.files)
        for call, got in told.items():
            check(call, got, served.seen)
        made += told
    assert "unexpected error" not in served.server.output()
    assert documented == made


def list_documented_calls() -> list[str]:
    """The calls in the tables of the how-to."""
    page = (ROOT / "docs/howto/embeddings.md").read_text("utf-8")
    return re.findall(r"^\| ([^|`]+?) \| [^|]+ \|$", page.partition("## Certified callers")[2], re.MULTILINE)[1:]
