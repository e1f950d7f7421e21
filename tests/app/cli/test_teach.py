"""`sightline teach` against a server of pictures whose captions swap colours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.cli.main import main
from tests.support.lessons import fill_data_dir, make_captions, make_vectors
from tests.support.servers import RunningServer

CAPTIONS = make_captions(130)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("taught") / "data"
    fill_data_dir(folder, CAPTIONS, make_vectors(CAPTIONS))
    with RunningServer(folder, workers=0) as one:
        yield one


def run(server: RunningServer, *words: str) -> Result:
    return CliRunner().invoke(main, ["teach", *words, "--server", server.url])


def get_used(server: RunningServer) -> str | None:
    used: str | None = server.http.get("/v1/collections/default").json()["head"]
    return used


def test_captions_teach_and_the_head_is_kept_taken_on_and_off(server: RunningServer) -> None:
    tried = run(server, "--from-captions", "--dry-run", "--json")
    assert (tried.exit_code, get_used(server)) == (0, None), tried.output
    assert json.loads(tried.stdout)["gain"] > 0
    kept = run(server, "--from-captions", "--keep")
    assert (kept.exit_code, get_used(server)) == (0, None), kept.output
    (head,) = server.http.get("/v1/heads").json()["heads"]
    assert f"the head {head['id']} is kept, and not used yet" in kept.stdout
    assert "text → picture, without" in kept.stdout
    assert "text → picture, with it" in kept.stdout
    assert run(server, "--take-on", head["id"]).stdout == f"the collection uses the head {head['id']}\n"
    assert get_used(server) == head["id"]
    assert run(server, "--take-off").stdout == "the collection uses no head\n"
    assert get_used(server) is None


def test_a_set_teaches_and_bad_ones_are_refused(server: RunningServer, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("id,text\n" + "".join(f"p{n},{text}\n" for n, text in enumerate(CAPTIONS)), "utf-8")
    taught = run(server, str(pairs))
    assert taught.exit_code == 0, taught.output
    assert f"the collection uses the head {get_used(server)}" in taught.stdout
    pairs.write_text("id,text\n" + "".join(f"p{n},{text}\n" for n, text in enumerate(reversed(CAPTIONS))), "utf-8")
    refused = run(server, str(pairs))
    assert refused.exit_code == 1
    assert "the head was refused: of" in refused.stderr
    assert "without" in refused.stdout
    pairs.write_text("id,text\np0,red\n", "utf-8")
    few = run(server, str(pairs), "--json")
    assert (few.exit_code, json.loads(few.stdout)["error"]["code"]) == (1, "head_refused")
    pairs.write_text("a,b\n1,2\n", "utf-8")
    assert run(server, str(pairs)).exit_code == 2
    assert run(server, str(tmp_path / "none.csv")).exit_code == 2
    assert run(server, "--take-on", "0" * 16).exit_code == 2


@pytest.mark.parametrize(
    "words", [(), ("pairs.csv", "--from-captions"), ("--take-off", "--from-captions"), ("a.csv", "--dry-run", "--keep")]
)
def test_options_that_do_not_go_together_are_a_usage_error(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, ["teach", *words]).exit_code == 2
