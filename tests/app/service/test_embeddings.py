"""What embeddings for other systems rest on: widths, truncation, names, and tokens that are counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.errors import ModelUnavailable, UrlNotAllowed, Validation
from app.core.settings import Settings
from app.encoder.batcher import Batcher
from app.encoder.dummy import DummyEncoder
from app.encoder.loader import CONFIG, STARTER, load_encoder, read_trained_widths
from app.encoder.protocol import Encoder
from app.service.embeddings import (
    CHARS_PER_TOKEN,
    EmbeddingPart,
    EmbeddingService,
    ModelNotServed,
    average,
    choose_width,
    cut_text,
    require_whole,
)
from app.service.search_service import LoadedModel
from app.service.service import Service, open_service
from tests.support.servers import RunningServer


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder("starter", tmp_path_factory.mktemp("models"))


def load_model(encoder: Encoder, *widths: int) -> Iterator[LoadedModel]:
    batcher = Batcher(encoder)
    unused: Any = None
    yield LoadedModel(encoder, batcher, unused, unused, Path(), widths)
    batcher.close()


@pytest.fixture
def model() -> Iterator[LoadedModel]:
    yield from load_model(DummyEncoder(), 8, 32, 60, 128)


@pytest.fixture
def unloaded(tmp_path: Path) -> Iterator[Service]:
    service = open_service(Settings(data_dir=tmp_path / "data", model="colours", workers=0))
    yield service
    service.close()


def test_vectors_are_cut_where_the_model_was_trained_for_it_alone(model: LoadedModel) -> None:
    assert [choose_width(model, width) for width in (None, 0, 60, 8, 32)] == [60, 60, 60, 8, 32]
    with pytest.raises(Validation, match=r"can be cut to 8, 32$"):
        choose_width(model, 9)
    model.widths = ()
    with pytest.raises(Validation, match="was not trained to be cut; leave dimensions out"):
        choose_width(model, 8)


def test_trained_widths_come_from_the_configuration_of_a_folder(tmp_path: Path) -> None:
    for content, widths in (
        ('{"matryoshka_dimensions": [128, 64]}', (64, 128)),
        ('{"matryoshka_dimensions": 64}', ()),
        ("{}", ()),
        ("[]", ()),
        ("", ()),
    ):
        (tmp_path / CONFIG).write_text(content)
        assert read_trained_widths(f"local-dir:{tmp_path}", tmp_path) == widths
    assert read_trained_widths("local-dir:/nowhere", tmp_path) == ()
    assert read_trained_widths("hf-hub:none/none", tmp_path) == ()
    assert read_trained_widths("starter", tmp_path) == ()


def test_a_model_that_is_not_loaded_has_no_names(unloaded: Service) -> None:
    with pytest.raises(ModelUnavailable):
        unloaded.embeddings.require_model("colours")


def test_names_are_the_models_and_those_that_were_given(model: LoadedModel, unloaded: Service) -> None:
    unloaded.search.loaded = model
    service = EmbeddingService(unloaded.search, unloaded.pool, None, "jina-clip-v2, , clip")
    assert service.list_names() == ["colours", "jina-clip-v2", "clip"]
    for name in (None, "", "default", "default/not-specified", "COLOURS", "clip"):
        service.require_model(name)
    with pytest.raises(ModelNotServed, match="'starter' is not served here; this server has 'colours'"):
        service.require_model("starter")
    with pytest.raises(UrlNotAllowed, match=r"^input.0: this server does not fetch"):
        service.fetch([[EmbeddingPart("input.0", url="http://a/b.png")]], Path())
    unloaded.search.loaded = None


def test_cut_vectors_have_length_1(model: LoadedModel, unloaded: Service) -> None:
    unloaded.search.loaded = model
    made = unloaded.embeddings.embed([[EmbeddingPart("input.0", text="red")], [EmbeddingPart("input.1", text="x")]], 32)
    assert made.vectors.shape == (2, 32)
    assert np.linalg.norm(made.vectors, axis=1) == pytest.approx(1.0)
    whole = DummyEncoder().encode_texts(["red", "x"])[:, :32]
    assert np.allclose(made.vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True))
    unloaded.search.loaded = None


def test_parts_without_a_common_direction_are_refused() -> None:
    vector = np.array([1, 0], np.float32)
    with pytest.raises(Validation, match=r"^inputs.3.content.0: the parts of this input cancel each other out"):
        average([vector, -vector], "inputs.3.content.0")


def test_a_text_is_cut_or_refused_where_the_model_does_not_read_it_whole(starter: Encoder) -> None:
    assert starter.max_tokens == 40
    short, long, longest = "a red car", "red car " * 30, "x" * 9_000
    assert [cut_text(text, starter) for text in (short, long)] == [short, long]
    assert len(cut_text(longest, starter)) == 40 * CHARS_PER_TOKEN
    require_whole([EmbeddingPart("input.0", text=short)], [short], starter)
    for text in (long, longest):
        with pytest.raises(Validation, match=r"^input.7: the text has more than the 40 tokens"):
            require_whole([EmbeddingPart("input.7", text=text)], [cut_text(text, starter)], starter)
    assert cut_text(longest, DummyEncoder()) == longest


def test_tokens_are_those_that_the_model_reads(starter: Encoder) -> None:
    alone, twice = starter.count_tokens(["red"]), starter.count_tokens(["red", "red"])
    assert 2 <= alone <= 4
    assert twice == 2 * alone
    assert starter.count_tokens(["red car " * 99]) == 40
    assert starter.count_tokens([]) == 0


@pytest.mark.slow
def test_a_model_that_was_trained_for_it_is_cut_over_http(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(STARTER, folder)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "matryoshka_dimensions": [64, 128]}))
    with RunningServer(tmp_path / "data", model=f"local-dir:{folder}", workers=0) as server:
        body = {"input": ["a red car"], "model": "default"}
        whole = server.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
        answer = server.http.post("/v1/embeddings", json={**body, "dimensions": 64})
        short = np.array(answer.json()["data"][0]["embedding"], np.float32)
        assert short == pytest.approx(np.array(whole[:64]) / np.linalg.norm(whole[:64]), abs=1e-6)
        assert server.http.post("/v1/embeddings", json={**body, "dimensions": 65}).status_code == 400
        cut = {"input": ["red car " * 50], "truncation": False}
        assert server.http.post("/v1/embeddings", json=cut).json()["detail"].startswith("input.0: the text has more")
