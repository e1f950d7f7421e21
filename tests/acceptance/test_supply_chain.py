"""What an installation is made from: hashes of every package, digests of images, licences, a bill of materials."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "ab" * 32


def copy_tree(target: Path) -> Path:
    """What the scripts read and write, without what is built."""
    for name in ("scripts", "requirements", "docker", "deploy", "app/__init__.py", "docker-compose.yml"):
        source = ROOT / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target / name) if source.is_dir() else shutil.copy(source, target / name)
    return target


def write_program(path: Path, *lines: str) -> None:
    """A program of others, that the scripts call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=env)


def test_every_locked_package_has_hashes_and_no_index() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text("utf-8")
        packages = re.findall(r"^[a-z0-9][^ ]*==[^\n]+", text, re.MULTILINE)
        assert packages, lock
        assert "://" not in text, lock
        for entry in re.split(r"\n(?=[a-z0-9])", text):
            if re.match(r"[a-z0-9]", entry):
                assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_every_licence_of_the_locked_packages_is_allowed() -> None:
    checked = run(ROOT, "scripts/licences")
    assert checked.returncode == 0, checked.stdout
    count, wrong = re.findall(r"^(\d+) packages, (\d+) not allowed", checked.stdout, re.MULTILINE)[0]
    assert int(count) > 60
    assert wrong == "0"


def test_a_licence_that_is_not_allowed_is_named(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    (tree / ".venv").symlink_to(ROOT / ".venv")
    rules = tree / "requirements/licences.toml"
    rules.write_text(rules.read_text().replace('"MPL-2.0", ', "").replace("apsw = ", "apsw-not = "))
    checked = run(tree, "scripts/licences")
    assert checked.returncode == 1
    assert [line for line in checked.stdout.splitlines() if line.startswith("NOT ALLOWED")] == [
        "NOT ALLOWED  apsw  any-OSI",
        "NOT ALLOWED  tqdm  MPL-2.0 AND MIT",
    ]


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("hashes", ["", "all"])
def test_the_cpu_builds_of_torch_are_hashed_once_their_lock_is_there(locked: bool, hashes: str, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    venv, log = tree / "venv", tree / "log"
    write_program(venv / "bin/python", "exit 0")
    write_program(venv / "bin/uv", f'echo "$@" >> {log}')
    (tree / "requirements/torch-cpu.txt").unlink(missing_ok=True)
    if locked:
        (tree / "requirements/torch-cpu.txt").write_text(f"torch==1.0+cpu --hash={DIGEST}\n")
    ended = run(tree, "scripts/install", "packages", TORCH="cpu", HASHES=hashes, VENV=str(venv))
    called = log.read_text().splitlines()
    assert ended.returncode == (0 if locked or not hashes else 1), ended.stderr
    assert ("no hashes are locked" in ended.stderr) == (not locked)
    assert len([line for line in called if "--require-hashes" in line]) == len(called) - (not locked and not hashes)
    assert any("torch-cpu.txt" in line for line in called) == locked


def test_a_release_lacks_what_has_no_digest_and_gets_it(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    (tree / "requirements/torch-cpu.txt").unlink(missing_ok=True)
    dockerfile = tree / "docker/Dockerfile"
    dockerfile.write_text(re.sub(r"^(ARG PYTHON=[^@\n]+).*$", r"\1", dockerfile.read_text(), flags=re.MULTILINE))
    lacking = run(tree, "scripts/pin", "--check")
    assert lacking.returncode == 1
    assert "python:3.11-slim-bookworm has no digest" in lacking.stdout
    assert "torch-cpu.txt lacks the locked versions" in lacking.stdout
    assert "sightline:" not in lacking.stdout
    write_program(tree / "bin/docker", 'echo "$@" >> log', f"echo {DIGEST}")
    path = f"{tree / 'bin'}:{os.environ['PATH']}"
    pinned = run(tree, "scripts/pin", PATH=path)
    assert pinned.returncode == 0, pinned.stderr
    assert f"ARG PYTHON=python:3.11-slim-bookworm@{DIGEST}\n" in dockerfile.read_text()
    images = re.findall(r"image: (\S+)", (tree / "deploy/milvus.yml").read_text())
    assert len(images) == 3
    assert all(image.endswith(f"@{DIGEST}") for image in images)
    taken = re.findall(r"image: (\S+)", (tree / "docker-compose.yml").read_text())
    assert {image for image in taken if not image.endswith(f"@{DIGEST}")} == {"sightline:cpu", "sightline:cuda"}
    again = run(tree, "scripts/pin", PATH=path)
    assert again.returncode == 0
    assert dockerfile.read_text().count("@sha256") == 1
    torch = re.findall(r"^((?:torch|torchvision)==[\d.]+)", (tree / "requirements/run.txt").read_text(), re.MULTILINE)
    (tree / "requirements/torch-cpu.txt").write_text("".join(f"{one}+cpu --hash={DIGEST}\n" for one in torch))
    assert run(tree, "scripts/pin", "--check").returncode == 0


def test_a_registry_that_gives_no_digest_changes_nothing(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    before = (tree / "docker/Dockerfile").read_text()
    write_program(tree / "bin/docker", "echo not a digest")
    refused = run(tree, "scripts/pin", PATH=f"{tree / 'bin'}:{os.environ['PATH']}")
    assert refused.returncode == 1
    assert "no digest" in refused.stderr
    assert (tree / "docker/Dockerfile").read_text() == before


@pytest.mark.parametrize(
    ("report", "required", "code", "said"),
    [
        (None, False, 0, "skipped: pip-audit cannot reach its data: no network"),
        (None, True, 1, "skipped: pip-audit cannot reach its data: no network"),
        ([{"name": "a", "version": "1", "vulns": []}], True, 0, "1 packages, 0 known holes, 0 packages not looked up"),
        ([{"name": "a", "skip_reason": "a is not known"}], False, 0, "skipped: a is not known"),
        ([{"name": "a", "skip_reason": "a is not known"}], True, 1, "1 packages not looked up"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}],
            False,
            1,
            "a 1: PYSEC-1, mended in 2",
        ),
    ],
)
def test_an_audit_tells_a_hole_from_data_that_it_cannot_reach(
    report: list[dict[str, object]] | None, required: bool, code: int, said: str, tmp_path: Path
) -> None:
    tree = copy_tree(tmp_path)
    (tree / ".venv/bin").mkdir(parents=True)
    (tree / ".venv/bin/python").symlink_to(ROOT / ".venv/bin/python")
    if report is None:
        write_program(tree / ".venv/bin/uvx", "echo no network >&2", "exit 1")
    else:
        (tree / "report").write_text(json.dumps({"dependencies": report}))
        write_program(
            tree / ".venv/bin/uvx", 'while [ "$1" != --output ]; do shift; done', f'cp {tree / "report"} "$2"', "exit 1"
        )
    ended = run(tree, "scripts/audit", *(["--required"] if required else []))
    assert ended.returncode == code, ended.stderr
    assert said in ended.stdout
