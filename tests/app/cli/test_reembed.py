from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from app.cli.main import main
from app.cli.reembed import reembed
from app.core.errors import StartupError
from app.core.locks import DataDirLock, LeaseOwner
from app.core.settings import Settings
from app.core.types import Status
from app.encoder.dummy import DummyEncoder
from app.storage.library import Library
from app.storage.model_check import check_space
from app.storage.tables import collections, embeddings
from tests.support.makers import FINGERPRINT, SPACE, VECTOR, add, claim, finish
from tests.support.pictures import picture


def run(tmp_path: Path, model: str = "colours") -> str:
    out = io.StringIO()
    reembed(Settings(data_dir=tmp_path, model=model), Console(file=out, width=300))
    return out.getvalue()


@pytest.fixture
def filled_library(library: Library, tmp_path: Path) -> Library:
    """A directory that another model has filled."""
    add(library, picture("red"), id="one")
    finish(library.database, claim(library.database)[0])
    library.put_texts("default", FINGERPRINT, [("t", "something blue", {})], [VECTOR])
    library.database.write(lambda c: collections.assign_space(c, "default", FINGERPRINT))
    (tmp_path / "snapshots" / "default").mkdir(parents=True)
    return library


def test_pictures_are_queued_and_texts_encoded_for_the_new_model(filled_library: Library, tmp_path: Path) -> None:
    encoder = DummyEncoder()
    with pytest.raises(StartupError, match="sightline reembed"):
        check_space(filled_library.database, encoder.space)
    assert "1 pictures are queued, and 1 texts are embedded by colours" in run(tmp_path)
    check_space(filled_library.database, encoder.space)
    image = filled_library.get("default", "one")
    assert (image.status, image.embedded_seq) == (Status.QUEUED, None)
    space = encoder.space.fingerprint
    ((_, op, _, vector),) = filled_library.database.read(
        lambda c: embeddings.list_after(c, "default", space, "texts", 0, 10)
    )
    assert op == "add"
    np.testing.assert_array_equal(np.frombuffer(vector, "<f4"), encoder.encode_texts(["something blue"])[0])
    assert filled_library.database.read(lambda c: embeddings.count_vectors(c, "default", FINGERPRINT, "images")) == 0
    assert not (tmp_path / "snapshots").exists()
    assert filled_library.get_text("default", "t").truncated is False


def test_it_may_be_repeated(filled_library: Library, tmp_path: Path) -> None:
    assert run(tmp_path) == run(tmp_path)


def test_it_is_refused_while_a_server_holds_the_directory(filled_library: Library, tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    with pytest.raises(StartupError, match="in use"):
        run(tmp_path)
    lock.close()
    assert filled_library.get_collection("default").space == SPACE


def test_a_model_that_cannot_be_loaded_changes_nothing(filled_library: Library, tmp_path: Path) -> None:
    with pytest.raises(StartupError):
        run(tmp_path, f"local-dir:{tmp_path}/nothing")
    assert filled_library.get_collection("default").space == SPACE
    assert filled_library.get("default", "one").status is Status.READY
    run(tmp_path)


def test_where_there_is_no_data_directory_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no data directory"):
        run(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_it_is_refused_while_a_worker_lives(filled_library: Library, tmp_path: Path) -> None:
    owner = LeaseOwner(tmp_path / "workers")
    with pytest.raises(StartupError, match="a worker runs"):
        run(tmp_path)
    owner.close()
    run(tmp_path)


def test_commands_of_a_data_directory_are_refused_where_the_environment_names_another_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_DATABASE", "postgresql://owner:hunter22@db/pictures")
    out = str(tmp_path / "out")
    for words in (["verify"], ["backup", out], ["restore", out], ["export", "--vectors", out], ["reembed"]):
        done = CliRunner().invoke(main, [*words, "--data-dir", str(tmp_path)])
        assert done.exit_code == 2
        assert "PostgreSQL" in done.output or "--live" in done.output
        assert "hunter22" not in done.output
