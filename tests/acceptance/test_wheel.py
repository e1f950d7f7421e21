"""The wheel: its contents, and that the command works from it alone, in any folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from app import __version__
from app.cli.demo import SEARCHES

ROOT = Path(__file__).parent.parent.parent
FEW = 40
CLIENT = "clients/python/sightline_client"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this tree as pip does, with the locked build tools and no network."""
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--no-build-isolation", "--offline", "--python", sys.executable, "--out-dir", folder, ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed_command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel. It sees the packages that the wheel needs, but not this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv/bin/python"
    (site,) = (folder / "venv/lib").glob("python3*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    uv("pip", "install", "--offline", "--no-deps", "--python", python, wheel)
    return folder / "venv/bin/sightline"


def uv(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "uv", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "app", "index", CLIENT]
    told = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    needed = {name.removeprefix("clients/python/") for name in told if (ROOT / name).is_file()}
    if not needed:
        pytest.skip("git does not know this tree")
    assert {"app/web/index.html", "app/encoder/starter/open_clip_model.safetensors"} <= needed
    assert needed - held == set()
    assert {"app/gallery/gallery.zip", "app/gallery/texts.jsonl"} == held - needed - {
        name for name in held if ".dist-info/" in name
    }


def test_the_wheel_holds_the_licences_of_what_is_in_it(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel).namelist()
    for name in ("licenses/LICENSE", "licenses/NOTICE", "entry_points.txt"):
        assert f"sightline_search-{__version__}.dist-info/{name}" in held


def test_a_registry_would_take_the_metadata(wheel: Path) -> None:
    """The name `sightline` belongs to another project (docs/decisions/0040-the-name-of-the-package.md)."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"sightline_search-{__version__}.dist-info/METADATA").decode()
        tops = {name.partition("/")[0] for name in archive.namelist()}
    head, _, description = metadata.partition("\n\n")
    fields = {line.partition(": ")[0] for line in head.splitlines()}
    assert "Name: sightline-search\n" in head
    assert {"Summary", "License-Expression", "Requires-Python", "Keywords", "Classifier"} <= fields
    assert "Description-Content-Type: text/markdown" in head
    assert description.startswith("# Sightline")
    assert tops == {
        "app",
        "index",
        "sightline_client",
        f"sightline_search-{__version__}.dist-info",
    }  # docs/howto/install.md tells them


@pytest.mark.timeout(280)
def test_the_command_works_in_a_folder_with_an_app_of_its_own(installed_command: Path, tmp_path: Path) -> None:
    for name in ("app", "index"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    told = subprocess.run([installed_command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, f"sightline, version {__version__}\n"), told.stderr
    shorten_gallery(installed_command)
    demo = [str(installed_command), "demo", "--once", "--port", "0"]
    process = subprocess.Popen(demo, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, why = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # so that it ends its server
        pytest.fail("".join(process.communicate(timeout=40)))
    assert process.returncode == 0, said + why
    assert f"{FEW} loaded, 0 already there, 0 failed" in said
    assert all(words in said for words in SEARCHES)


def shorten_gallery(installed: Path) -> None:
    """Leave a few pictures in the installed gallery; tests/acceptance/test_demo.py loads the whole one."""
    (gallery,) = (installed.parent.parent / "lib").glob("python3*/site-packages/app/gallery")
    whole = (gallery / "gallery.zip").read_bytes()
    assert whole == (ROOT / "demo/gallery.zip").read_bytes()
    with zipfile.ZipFile(ROOT / "demo/gallery.zip") as archive:
        lines = archive.read("metadata.jsonl").decode().splitlines()[:FEW]
        with zipfile.ZipFile(gallery / "gallery.zip", "w") as few:
            few.writestr("metadata.jsonl", "\n".join(lines))
            for name in (json.loads(line)["file"] for line in lines):
                few.writestr(name, archive.read(name))
