"""The commands, against real servers."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.commands import check_refused, sightline
from tests.app.api.asking import fresh
from tests.support.servers import RunningServer

AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("cli") / "data") as running:
        yield running


def make_folder(path: Path, *colours: str) -> Path:
    """Make a folder with a picture of each colour, each in its own subfolder."""
    for n, colour in enumerate(colours):
        at = path / f"sub{n % 2}" / f"{n}-{colour}.png"
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(fresh(colour))
    return path


def test_a_folder_is_loaded_and_found_and_again_is_duplicates(server: RunningServer, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "album", "red", "blue", "green")
    (folder / "notes.txt").write_text("not sent")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.png").write_bytes(fresh())
    first = sightline("ingest", folder, "--server", server.url)
    assert first.returncode == 0, first.stderr
    assert "3 loaded, 0 already there, 0 failed" in first.stdout
    again = sightline("ingest", folder, SIGHTLINE_SERVER=server.url)
    assert again.returncode == 0, again.stderr
    assert "0 loaded, 3 already there, 0 failed" in again.stdout

    found = sightline("search", "blue", "-k", "1", "--server", server.url)
    assert found.returncode == 0, found.stderr
    assert "1-blue.png" in found.stdout
    odd = sightline("search", "красный", "--json", "--server", server.url)
    assert "warning: the model colours reads English and Chinese" in odd.stderr
    status = sightline("status", "--server", server.url)
    for ran in (first, found, odd, status):
        assert ran.stderr.count("model: colours sees colours only") == 1
        assert "model: " not in ran.stdout
    told = json.loads(sightline("search", "blue", "thing", "-k", "2", "--json", "--server", server.url).stdout)
    assert len(told["hits"]) == 2
    near = sightline("search", "--image", folder / "sub0" / "2-green.png", "--json", "--server", server.url)
    assert json.loads(near.stdout)["hits"][0]["image"]["source"].endswith("2-green.png")


def test_pictures_are_deleted_by_a_filter_after_a_look_at_them(server: RunningServer) -> None:
    for n in range(2):
        server.upload(fresh("red"), f"doomed-{n}.png", tags=["doomed"])
    doomed = '{"key": "tags", "match": {"value": "doomed"}}'
    told = sightline("search", "red", "--filter", doomed, "--json", "--server", server.url)
    assert len(json.loads(told.stdout)["hits"]) == 2
    dry = sightline("delete", "--filter", doomed, "--dry-run", "--server", server.url)
    assert (dry.returncode, "2 pictures match" in dry.stdout, "doomed-1.png" in dry.stdout) == (0, True, True)
    unasked = sightline("delete", "--filter", doomed, "--server", server.url)
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr
    done = sightline("delete", "--filter", doomed, "--yes", "--server", server.url)
    assert (done.returncode, "2 deleted" in done.stdout) == (0, True), done.stderr
    again = sightline("delete", "--filter", doomed, "--yes", "--server", server.url)
    assert (again.returncode, "0 pictures match" in again.stdout) == (0, True)
    check_refused(sightline("delete", "--filter", "{}", "--yes", "--server", server.url), "no condition")
    assert sightline("delete", "--filter", "{", "--yes", "--server", server.url).returncode == 2


def test_an_archive_and_a_list_of_paths_are_loaded(server: RunningServer, tmp_path: Path) -> None:
    packed = tmp_path / "x.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for n in range(3):
            archive.writestr(f"{n}.png", fresh("yellow"))
    loaded = sightline("ingest", packed, "--server", server.url)
    assert (loaded.returncode, "3 loaded" in loaded.stdout) == (0, True), loaded.stdout + loaded.stderr
    folder = make_folder(tmp_path / "listed", "red", "black")
    paths = "".join(f"{path}\n" for path in sorted(folder.rglob("*.png")))
    listed = sightline("ingest", "-", "--server", server.url, typed=paths)
    assert (listed.returncode, "2 loaded" in listed.stdout) == (0, True), listed.stdout + listed.stderr


def test_failures_are_a_table_and_exit_1(server: RunningServer, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "mixed", "red")
    (folder / "broken[bold].jpg").write_bytes(b"text")
    loaded = sightline("ingest", folder, "--server", server.url)
    assert loaded.returncode == 1
    assert "1 loaded, 0 already there, 1 failed" in loaded.stdout
    assert "broken[bold].jpg" in loaded.stdout
    assert "unsupported_media_type" in loaded.stdout


def test_a_file_name_that_is_not_utf8_is_loaded(server: RunningServer, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (Path(os.fsdecode(bytes(folder) + b"/\xff\xfe.png"))).write_bytes(fresh())
    (folder / "\x1b[31mred\n.png").write_bytes(fresh())
    loaded = sightline("ingest", folder, "--server", server.url)
    assert (loaded.returncode, "2 loaded" in loaded.stdout) == (0, True), loaded.stdout + loaded.stderr
    assert "\x1b[31m" not in loaded.stdout


def test_status_and_models_tell_what_there_is(server: RunningServer) -> None:
    status = sightline("status", "--server", server.url)
    assert status.returncode == 0, status.stderr
    assert status.stdout.startswith("ready")
    assert "colours" in status.stdout
    told = json.loads(sightline("status", "--json", "--server", server.url).stdout)
    assert told["reasons"] == []
    assert told["model"]["name"] == "colours"
    models = sightline("models")
    assert (models.returncode, "starter" in models.stdout, "ViT-B-32" in models.stdout) == (0, True, True)


def test_verify_names_what_is_gone_or_altered(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with RunningServer(data) as server:
        images = [server.upload(fresh(), id=f"picture-{n}").json() for n in range(4)]
        beside = sightline("verify", "--data-dir", data)
        assert (beside.returncode, "everything agrees" in beside.stdout) == (0, True), beside.stdout + beside.stderr
    gone, altered, *_ = (data / "media" / i["sha256"][:2] / i["sha256"][2:4] / i["sha256"] for i in images)
    gone.unlink()
    content = bytearray(altered.read_bytes())
    content[len(content) // 2] ^= 1
    altered.write_bytes(content)
    checked = sightline("verify", "--data-dir", data)
    assert checked.returncode == 1
    assert "blob_missing" in checked.stdout
    assert "picture-0" in checked.stdout
    assert "blob_altered" in checked.stdout
    assert "picture-1" in checked.stdout
    assert "picture-2" not in checked.stdout
    assert "2 faults" in checked.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "red", "--server", AWAY),
        ("status", "--server", AWAY),
        ("ingest", "pyproject.toml", "--server", AWAY),
        ("search", "red", "--server", "http://[nonsense"),
        ("search", "red", "--server", "nonsense"),
        ("search", "red", "--server", "http://127.0.0.1:99999"),
        ("verify", "--data-dir", "/nowhere"),
        ("reembed", "--data-dir", "/nowhere", "--model", "colours"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_what_cannot_be_done_is_one_line(arguments: tuple[str, ...]) -> None:
    check_refused(sightline(*arguments))


def test_what_a_server_refuses_is_one_line(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("text")
    check_refused(sightline("search", "red", "-k", "0", "--server", server.url), "validation")
    check_refused(sightline("search", " ", "--server", server.url), "validation")
    check_refused(sightline("search", "--image", tmp_path / "x.png", "--server", server.url), "unsupported_media_type")
    check_refused(sightline("ingest", tmp_path / "nothing", "--server", server.url), "nothing")
    listed = sightline("ingest", "-", "--server", server.url, typed="/no/such/file.png\n")
    assert (listed.returncode, "file.png\tunreadable\tNo such file" in listed.stdout) == (1, True), listed.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    check_refused(sightline("ingest", empty, "--server", server.url))


@pytest.mark.parametrize("arguments", [(), ("search",), ("nonsense",), ("ingest",), ("search", "--nonsense")], ids=str)
def test_a_wrong_use_is_told_without_a_traceback(arguments: tuple[str, ...]) -> None:
    ended = sightline(*arguments)
    assert ended.returncode == 2
    assert "Usage" in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


def test_keys_are_made_used_and_revoked_while_the_server_runs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder = make_folder(tmp_path / "album", "red")
    with RunningServer(data, workers=1) as server:
        made = sightline("keys", "create", "nightly", "--scope", "write", "--data-dir", data)
        assert made.returncode == 0, made.stderr
        key = made.stdout.strip()
        kept = tmp_path / "key"
        kept.write_text(key + "\n")
        check_refused(sightline("status", "--server", server.url), "unauthorized", "--key-file")
        told = sightline("status", "--server", server.url, SIGHTLINE_KEY=key)
        assert told.returncode == 0, told.stderr
        assert key not in told.stdout + told.stderr
        loaded = sightline("ingest", folder, "--server", server.url, "--key-file", kept)
        assert "1 loaded" in loaded.stdout, loaded.stderr
        assert sightline("keys", "revoke", key, "--data-dir", data).returncode == 0
        check_refused(sightline("search", "red", "--server", server.url, "--key-file", kept), "unauthorized")
        assert key.split("_", 2)[2] not in server.output()
