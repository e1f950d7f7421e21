"""The commands as people type them, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from app.cli.main import main
from tests.support.pictures import draw_two, picture
from tests.support.servers import RunningServer


@pytest.fixture(scope="module")
def loaded_folder(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a picture that the server has, in a collection of these tests."""
    folder = tmp_path_factory.mktemp("typed") / "trip"
    folder.mkdir()
    assert run(server, "collections", "make", "typed").exit_code == 0
    (folder / "purple.png").write_bytes(picture("purple", 95_001))
    assert run(server, "ingest", str(folder)).exit_code == 0
    yield folder
    assert run(server, "collections", "drop", "typed", "--yes").exit_code == 0


def run(server: RunningServer, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"SIGHTLINE_SERVER": server.url, "SIGHTLINE_COLLECTION": "typed"})


def test_a_word_that_is_a_picture_file_searches_by_the_picture(server: RunningServer, loaded_folder: Path) -> None:
    path = str(loaded_folder / "purple.png")
    found = run(server, "search", path, "-k", "1")
    assert found.stdout.split("\t")[0] == "1.000"
    assert f"searching by the picture {path}; --text searches by the words" in found.stderr
    for arguments in (("--text", path), (path, "purple")):
        by_words = run(server, "search", *arguments, "-k", "1")
        assert (by_words.exit_code, "searching by" in by_words.stderr) == (0, False)
        assert by_words.stdout.split("\t")[0] != "1.000"
    gone = run(server, "search", "gone.png", "-k", "1")
    assert gone.exit_code == 0
    assert "there is no file gone.png here" in gone.stderr


def test_paths_alone_are_printed_for_other_programs(server: RunningServer, loaded_folder: Path) -> None:
    assert run(server, "search", str(loaded_folder / "purple.png"), "-k", "1", "--paths").stdout == "trip/purple.png\n"


def test_a_question_is_answered_with_probabilities(server: RunningServer, loaded_folder: Path) -> None:
    id = run(server, "search", str(loaded_folder / "purple.png"), "-k", "1", "--json").stdout
    id = json.loads(id)["hits"][0]["id"]
    asked = run(server, "ask", id, "What colour is it?", "red", "purple", "green")
    assert asked.exit_code == 0, asked.output
    lines = [line.split("\t") for line in asked.stdout.splitlines()]
    assert lines[0][1] == "purple"
    assert sum(float(line[0]) for line in lines) == pytest.approx(1, abs=0.01)
    assert "answered by the encoder colours" in asked.stderr
    guessed = run(server, "ask", id, "Is it purple?", "yes", "no", "--by", "encoder", "--json")
    assert json.loads(guessed.stdout)["by"] == "encoder"
    assert "is a guess" in run(server, "ask", id, "Is it purple?", "yes", "no").stderr
    refused = run(server, "ask", id, "What colour is it?", "red")
    assert refused.exit_code != 0
    assert "at least 2" in refused.stderr
    shortened = run(server, "ask", "0123abcd", "What colour is it?", "red", "blue")
    assert "give all 32 digits" in shortened.stderr


def test_explain_shows_where_words_are_met(server: RunningServer, tmp_path: Path) -> None:
    id = server.upload(draw_two()).json()["id"]
    shown = run(server, "explain", "--collection", "default", id, "red", "sofa", "--save", str(tmp_path / "why.png"))
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert "█" in "".join(lines[:2])
    assert "█" not in "".join(lines[3:6])
    assert lines[6].split("\t")[1] == "red"
    assert "met the words" in shown.stderr
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    assert "does not know" in run(server, "explain", "--collection", "default", id, "xylophone").stderr
    assert len(json.loads(run(server, "explain", "--collection", "default", id, "red", "--json").stdout)["grid"]) == 6
    unwritable = run(
        server, "explain", "--collection", "default", id, "red", "--save", str(tmp_path / "no" / "why.png")
    )
    assert unwritable.exit_code != 0
    assert "cannot be written" in unwritable.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "--paths", "--json", "red"),
        ("search", "--paths", "--target", "texts", "red"),
        ("search", "--paths", "--batch", "-"),
        ("search", "--order-by", "width", "--batch", "-"),
        ("search", "--like", "a", "--image", __file__),
        ("search", "red", "--image", "pyproject.toml"),
        ("ingest", "--urls", "list.txt", "--exclude", "x"),
        ("ingest", "--urls", "list.txt", "folder"),
        ("ingest", "--urls", "list.txt", "--column", "url=x"),
        ("search", "--text", "--image", "pyproject.toml"),
        ("job", "abcd", "--pause", "--cancel"),
        ("job", "abcd", "--json", "--failed"),
        ("job", "abcd", "--json", "--report", "-"),
        ("status", "--key", "a", "--key-file", "b"),
        ("delete", "--dry-run", "--filter", '{"must": [], "must": []}'),
    ],
    ids=" ".join,
)
def test_options_that_contradict_each_other_are_refused(arguments: tuple[str, ...]) -> None:
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 2
    assert "Usage" in ran.stderr


@pytest.mark.usefixtures("loaded_folder")
def test_files_are_excluded_by_name(server: RunningServer, tmp_path: Path) -> None:
    for name in ("keep.png", "x_thumb.png", "raw/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture("purple", 95_100 + len(name)))
    ran = run(server, "ingest", str(tmp_path), "--exclude", "*_thumb.*", "--exclude", "raw")
    assert "1 loaded, 0 already there, 0 failed" in ran.stdout


@pytest.mark.usefixtures("loaded_folder")
def test_a_job_is_shown_by_the_beginning_of_its_id(server: RunningServer) -> None:
    id = run(server, "jobs").stdout.split("\t")[0]
    shown = run(server, "job", id[:16])
    assert (shown.exit_code, shown.stdout.split("\t")[0]) == (0, id)


@pytest.mark.usefixtures("loaded_folder")
def test_what_the_command_left_out_reaches_the_job(server: RunningServer, tmp_path: Path) -> None:
    for name, content in (("a.png", picture("purple", 95_200)), ("b.psd", b"x"), ("c.avi", b"x"), ("d.psd", b"x")):
        (tmp_path / name).write_bytes(content)
    ran = run(server, "ingest", str(tmp_path))
    assert "3 files of other kinds left out (2 .psd, 1 .avi)" in ran.stdout
    (job,) = json.loads(run(server, "jobs", "--json").stdout)["jobs"][:1]
    assert job["left_out"] == {".psd": 2, ".avi": 1}
    again = run(server, "ingest", str(tmp_path))  # which sends nothing, and so has no job
    assert "3 files of other kinds left out (2 .psd, 1 .avi)" in again.stdout


@pytest.mark.usefixtures("loaded_folder")
def test_status_tells_what_failed_although_it_is_no_picture(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert run(server, "ingest", str(tmp_path)).exit_code == 1
    id = run(server, "jobs").stdout.split("\t")[0]
    assert f"failed; `sightline job {id} --failed` says why" in run(server, "status").stdout


def test_every_command_has_a_short_help_that_fits_a_terminal() -> None:
    _, _, listed = CliRunner().invoke(main, ["--help"], terminal_width=80).output.partition("Commands:")
    assert "Examples:" in listed
    assert "..." not in listed
    assert all(isinstance(command, click.Command) and command.short_help for command in main.commands.values())
