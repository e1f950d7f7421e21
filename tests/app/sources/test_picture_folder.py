"""The walk through a folder: pictures with what stands beside them, and a word on everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.decode.left_out import LeftOut
from app.sources.picture_folder import FoundFile, walk_pictures
from tests.support.pictures import picture

PNG = picture("red")


def write(root: Path, *names: str, content: bytes = PNG) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def walk(root: Path, *exclude: str) -> tuple[list[FoundFile], LeftOut]:
    left_out = LeftOut()
    return list(walk_pictures(root, left_out, exclude)), left_out


def test_pictures_of_every_name_come_and_other_kinds_are_counted(tmp_path: Path) -> None:
    write(
        tmp_path, "p1.jfif", "p2.jpe", "p3.pjpeg", "p4.JPG", "p5.jpg", "IMG_0001", "Photo 2019.07.04", "cat.jpg_large"
    )
    write(tmp_path, "a.psd", "b/c.psd", "d.XCF", "archive.zip", "words.txt", "x.json", content=b"x")
    write(tmp_path, "README", "text.jpg_large", content=b"words")
    write(tmp_path, "@eaDir/p5.jpg", ".hidden.jpg", "Thumbs.db")
    found, left_out = walk(tmp_path)
    assert {file.name for file in found} == {
        *("p1.jfif", "p2.jpe", "p3.pjpeg", "p4.JPG", "p5.jpg", "IMG_0001", "Photo 2019.07.04", "cat.jpg_large")
    }
    assert left_out.kinds == {
        ".psd": 2,
        ".xcf": 1,
        ".zip": 1,
        ".txt": 1,
        ".json": 1,
        "no extension": 1,
        ".jpg_large": 1,
    }


def test_a_picture_has_the_caption_and_the_metadata_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png", "c.png", "d.png", "hf/0.png")
    (tmp_path / "a.txt").write_text("a red square\n")
    (tmp_path / "b.png.json").write_text('{"tags": ["x"], "n": 1}')
    (tmp_path / "c.txt").write_text("\n".join(f"a word of language {n}" for n in range(30)))
    (tmp_path / "hf" / "metadata.jsonl").write_text(
        '{"file_name": "0.png", "text": "zero"}\n{"file_name": "gone.png"}\n'
    )
    found, left_out = walk(tmp_path)
    fields = {file.name: file.read_fields() for file in found}
    assert fields["a.png"] == {"caption": "a red square"}
    assert fields["b.png"] == {"tags": ["x"], "metadata": {"n": 1}}
    assert [warning["field"] for warning in fields["c.png"].pop("warnings")] == ["caption"]
    assert fields["c.png"] == fields["d.png"] == {}
    assert fields["hf/0.png"] == {"caption": "zero"}
    assert not left_out.kinds
    (warning,) = left_out.warnings
    assert "gone.png" in warning.detail


def test_folders_behind_links_are_named_and_patterns_exclude(tmp_path: Path) -> None:
    write(tmp_path / "root", "a.png", "b/c.png", "thumbs/d.png")
    (tmp_path / "root" / "linked").symlink_to(tmp_path, target_is_directory=True)
    found, left_out = walk(tmp_path / "root", "thumbs", "c.*")
    assert [file.name for file in found] == ["a.png"]
    (warning,) = left_out.warnings
    assert warning.code == "link"
    assert "linked" in warning.detail


CODE = """
import json, os, sys
from pathlib import Path
from app.decode.left_out import LeftOut
from app.sources.local_files import walk_files
from app.sources.picture_folder import walk_pictures
os.setgid(65534)
os.setuid(65534)
found = walk_pictures(Path(sys.argv[1]), LeftOut())
errors = []
walked = [path.name for path in walk_files(Path(sys.argv[1]), on_error=errors.append)]
print(json.dumps([walked, [error.strerror for error in errors]]))
print(json.dumps([[file.name, file.error and file.error.detail] for file in found]))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_every_place_that_cannot_be_read_is_an_item(open_folder: Path) -> None:
    root = open_folder / "root"
    write(root, "a/1.png", "half/2.png", "shut/3.png", "z/4.png", "locked")
    for path, mode in ((root / "half", 0o744), (root / "shut", 0o700), (root / "locked", 0o600)):
        path.chmod(mode)
    command = [sys.executable, "-c", CODE, str(root)]
    walked, out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert json.loads(walked) == [["1.png", "2.png", "4.png"], ["Permission denied"]]
    assert json.loads(out) == [
        ["locked", "Permission denied"],
        ["a/1.png", None],
        ["half/2.png", None],
        ["shut", "Permission denied"],
        ["z/4.png", None],
    ]
    root.chmod(0o700)
    _, out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert json.loads(out) == [[".", "Permission denied"]]
