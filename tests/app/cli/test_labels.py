"""`sightline labels` against a server: labels of a file are set, shown and applied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.cli.main import main
from tests.support.lessons import fill_data_dir, make_captions, make_vectors
from tests.support.servers import RunningServer

COUNT = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("labels")
    captions = make_captions(COUNT)
    fill_data_dir(folder / "data", captions, make_vectors(captions, swapped=False))
    with RunningServer(folder / "data", workers=0) as one:
        yield one


def run(server: RunningServer, *words: str) -> Result:
    return CliRunner().invoke(main, ["labels", *words, "--server", server.url])


def test_labels_of_a_file_are_set_shown_and_applied(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("# colours\nred\n\ngreen\nblue\n", "utf-8")
    done = run(server, "set", str(tmp_path / "labels.txt"), "--threshold", "0.4")
    assert done.exit_code == 0, done.output
    assert f"of {COUNT} pictures have auto-tags" in done.output
    shown = run(server)
    lines = [line.split("\t") for line in shown.stdout.splitlines()]
    assert [(name, threshold) for name, threshold, _ in lines] == [("red", "0.4"), ("green", "0.4"), ("blue", "0.4")]
    assert all(int(count) > 0 for *_, count in lines)
    assert "share of a label" in shown.stderr
    assert run(server, "apply").exit_code == 0
    (tmp_path / "labels.json").write_text(json.dumps([{"label": "pink", "threshold": 0.9}]), "utf-8")
    assert run(server, "set", str(tmp_path / "labels.json")).exit_code == 0
    found = json.loads(run(server, "--json").stdout)
    assert [(one["label"], one["threshold"]) for one in found["labels"]] == [("pink", 0.9)]
    (tmp_path / "none.txt").write_text("", "utf-8")
    assert run(server, "set", str(tmp_path / "none.txt")).exit_code == 0
    assert run(server).stdout == ""


@pytest.mark.parametrize(
    ("name", "text", "detail"),
    [
        ("many.txt", "\n".join(f"label {n}" for n in range(10_000)), "at most 1000"),
        ("twice.txt", "red\nred\n", "there twice"),
        ("broken.json", "{", "is no JSON"),
        ("odd.json", '{"label": []}', "labels"),
    ],
)
def test_bad_files_are_one_line(server: RunningServer, tmp_path: Path, name: str, text: str, detail: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    done = run(server, "set", str(tmp_path / name))
    assert done.exit_code != 0
    assert detail in done.output
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    assert "is no text" in run(server, "set", str(tmp_path / "bytes.txt")).output
