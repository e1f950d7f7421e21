"""The image: docker/Dockerfile executed without an engine (image.py says what that cannot show), and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.dockerfile import is_sent, list_context, read_steps
from tests.acceptance.image import ROOT, Container, Stage, build, check_success, starting
from tests.support.pictures import picture

SITE = "/opt/sightline/lib/python3*/site-packages"


def why_not() -> str:
    """Why this machine cannot make a root file system; empty if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "making a root file system takes root on Linux"
    for tool in ("unshare", "nsenter", "chroot", "setpriv", "useradd"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--net", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "no namespaces can be made here"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    if reason := why_not():
        pytest.skip(reason)
    return build(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def container(image: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The image running, with a key, and with two pictures in a folder beside its volume."""
    folder = tmp_path_factory.mktemp("container")
    pictures = folder / "pictures"
    pictures.mkdir()
    for colour in ("red", "blue"):
        (pictures / f"{colour}.png").write_bytes(picture(colour))
    volume = folder / "volume"
    refused = subprocess.run(
        starting(image, volume, pictures, image.said["CMD"].words()), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "no API key" in refused.stderr
    first = ["keys", "create", "me", "--scope", "admin"]
    made = subprocess.run(starting(image, volume, pictures, first), capture_output=True, text=True, check=False)
    running = Container(image, volume, pictures, folder / "log", check_success(made).strip())
    try:
        yield running
    finally:
        running.remove()


def test_the_build_is_sent_what_it_needs_and_nothing_else() -> None:
    names = {str(name) for name in list_context(ROOT, ROOT / ".dockerignore")}
    assert {"pyproject.toml", "LICENSE", "app/cli/main.py", "index/flat.py", "demo/gallery.zip"} <= names
    assert {Path(name).parts[0] for name in names} == {
        *(
            "LICENSE",
            "NOTICE",
            "README.md",
            "app",
            "clients",
            "demo",
            "index",
            "pyproject.toml",
            "requirements",
            "scripts",
        ),
    }
    assert "demo/evaluation.zip" not in names
    assert not any("__pycache__" in name for name in names)


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("a/b", ["*", "!a"], True),
        ("a/b", ["*", "!a", "**/b"], False),
        ("a/b/c", ["*", "!a", "**/b"], False),
        ("a/c", ["*", "!a/b"], False),
        ("a/b", ["*", "!a/b"], True),
        ("b", ["*", "!a"], False),
    ],
)
def test_the_reading_of_patterns_is_that_of_the_engines(name: str, patterns: list[str], expected: bool) -> None:
    assert is_sent(Path(name), patterns) == expected


def test_the_image_is_made_by_the_scripts_that_a_checkout_is_made_by() -> None:
    steps = read_steps(ROOT / "docker/Dockerfile")
    last = max(n for n, step in enumerate(steps) if step.word == "FROM")
    assert [step.rest for step in steps[:last] if step.word == "RUN"] == [
        "scripts/install packages",
        "scripts/install project",
    ]
    assert [step.rest for step in steps if step.word == "FROM"][-1] == "${PYTHON}"


def test_the_image_holds_the_project_and_no_tools(image: Stage) -> None:
    (site,) = image.root.glob(SITE.lstrip("/"))
    for name in (
        *(
            "app/web/index.html",
            "app/web/main.js",
            "app/storage/migrations/0001_initial.sql",
            "app/gallery/gallery.zip",
        ),
        *("app/gallery/texts.jsonl", "app/encoder/starter/open_clip_model.safetensors", "index/flat.py"),
    ):
        assert (site / name).is_file(), name
    (licences,) = site.glob("sightline_search-*.dist-info/licenses")
    assert {path.name for path in licences.iterdir()} == {"LICENSE", "NOTICE"}
    assert not [name for name in ("tests", "training", "bench", "uv", "hatchling", "pip") if (site / name).exists()]
    assert not (image.root / "opt/sightline/bin/uv").exists()
    assert (site / "app/__pycache__").is_dir()  # compiled beforehand: nothing can be written at run time
    assert not (image.root / "build").exists()


def test_nothing_in_the_image_belongs_to_the_user_it_runs_as_but_the_volume(image: Stage) -> None:
    uid, gid = map(int, image.user.split(":"))
    assert uid >= 1000
    owned = {
        str(path.relative_to(image.root))
        for folder, folders, files in os.walk(image.root)
        for path in (Path(folder) / name for name in (*folders, *files))
        if uid == (stat := path.lstat()).st_uid or gid == stat.st_gid
    }
    volume = image.said["VOLUME"].rest.lstrip("/")
    assert owned == {volume}
    assert (image.root / volume).stat().st_uid == uid


def test_a_container_that_does_not_serve_is_not_healthy(image: Stage) -> None:
    check = read_steps(ROOT / "docker/Dockerfile")
    (command,) = [step.rest.removeprefix("CMD ") for step in check if step.word == "HEALTHCHECK"]
    asked = image.run(json.loads(command))
    assert asked.returncode == 1
    assert "ConnectionRefusedError" in asked.stderr


@pytest.mark.timeout(280)
def test_a_container_takes_pictures_in_and_finds_them(container: Container) -> None:
    while not container.is_healthy():  # the time limit of every test bounds it
        assert container.process.poll() is None, container.log.read_text()
        time.sleep(0.5)
    assert "unauthorized" in container.execute(["sightline", "ingest", "/pictures"]).stderr
    loaded = check_success(container.command("ingest", "/pictures"))
    assert "2 loaded, 0 already there, 0 failed" in loaded
    found = json.loads(check_success(container.command("search", "--json", "--image", "/pictures/red.png")))
    assert found["model"] == "starter"
    assert found["hits"][0]["image"]["source"].endswith("red.png")
    assert check_success(container.command("status")).startswith("ready")


def test_a_container_writes_to_its_volume_alone(container: Container) -> None:
    for place in ("/", "/opt/sightline", "/etc", "/usr/local", "/var", "/root"):
        tried = container.execute(["touch", f"{place}/written"])
        assert tried.returncode == 1, place
    assert check_success(container.execute(["ls", "/data/sightline.db"]))
    assert (
        check_success(container.execute(["sh", "-c", "touch /tmp/written && id -u"]))
        == container.image.user.split(":")[0] + "\n"
    )


def test_a_container_has_no_privilege(container: Container) -> None:
    status = check_success(container.execute(["cat", "/proc/1/status"]))
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in status


def test_a_container_ends_with_0_when_it_is_told_to(container: Container) -> None:
    assert container.stop() == 0, container.log.read_text()
    assert "Traceback" not in container.log.read_text()
