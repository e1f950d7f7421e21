"""Start and stop: which starts are refused and with which message, and that a stop loses nothing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from app.api.server import is_on_loopback
from app.core.listeners import open_listeners
from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.acceptance.commands import check_refused, sightline
from tests.app.encoder.small import make_model
from tests.support.pictures import picture
from tests.support.processes import descendants, is_running, is_unlocked, read_command_line
from tests.support.servers import RunningServer, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def serve(data_dir: Path, *arguments: str, **environment: Any) -> Any:
    return sightline("serve", "--data-dir", data_dir, "--port", "0", "--model", "colours", *arguments, **environment)


def test_a_second_server_is_refused_and_told_who_holds_the_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with RunningServer(data) as server:
        check_refused(serve(data), f"process {server.process.pid}", str(data))
        check_refused(sightline("reembed", "--data-dir", data, "--model", "colours"), f"process {server.process.pid}")
        assert server.upload(picture(seed=1)).json()["status"] == "ready"
        below = descendants(server.process.pid)
        assert below
        server.kill()
        wait_until(lambda: not [pid for pid in below if is_running(pid)], 30)
        assert is_unlocked(data)
        with RunningServer(data) as after:
            assert after.http.get("/v1/stats").json()["images"]["ready"] == 1


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        check_refused(serve(tmp_path / "data", "--port", port), port, "--port")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "nothing"), ("nothing", "sightline models")),
        (("--model", "local-dir:/nowhere"), ("/nowhere",)),
        (("--model", "ViT-B-32:/nowhere/x.safetensors"), ("x.safetensors",)),
        (("--model", "ViT-B-32:/nowhere/x.pt"), ("safetensors",)),
        (("--port", "99999"), ("--port",)),
        (("--workers", "-1"), ("--workers",)),
        (("--host", "no.such.host.invalid"), ("no.such.host.invalid",)),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_one_line(arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    check_refused(serve(tmp_path / "new" / "data", *arguments), *words)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_downloaded_are_one_line(tmp_path: Path) -> None:
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    check_refused(
        serve(tmp_path / "data", "--model", "ViT-B-32/laion2b_s34b_b79k", **hub), "model hub", "--model starter"
    )


def test_a_data_directory_that_is_none_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    check_refused(serve(file), str(file))
    check_refused(serve(file / "below"), str(file))


def test_a_setting_of_the_environment_that_is_wrong_is_one_line(tmp_path: Path) -> None:
    check_refused(serve(tmp_path / "data", SIGHTLINE_MAX_K="x"), "SIGHTLINE_MAX_K")


@pytest.fixture(scope="module")
def stopped_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a server that has stopped."""
    data = tmp_path_factory.mktemp("stopped") / "data"
    with RunningServer(data) as server:
        server.wait_job(server.bulk([(f"{n}.png", picture(seed=n)) for n in range(40)])["id"])
    return data


@pytest.mark.parametrize("damage", ["head", "middle", "text"])
def test_a_damaged_database_is_refused_and_left_alone(damage: str, stopped_dir: Path, tmp_path: Path) -> None:
    data = shutil.copytree(stopped_dir, tmp_path / "data")
    file = data / "sightline.db"
    content = bytearray(file.read_bytes())
    if damage == "head":
        content[:100] = os.urandom(100)
    elif damage == "middle":
        content[4096 : 4096 * 6] = os.urandom(4096 * 5)
    else:
        content = bytearray(b"not a database")
    file.write_bytes(content)
    for side in ("-wal", "-shm"):
        file.with_name(file.name + side).unlink(missing_ok=True)
    check_refused(serve(data), "sightline.db")
    assert file.read_bytes() == content
    check_refused(sightline("verify", "--data-dir", data), "sightline.db")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_directory_of_another_model_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with RunningServer(data) as server:
        for n in range(3):
            assert server.upload(picture(seed=n), id=f"p{n}", caption=f"c{n}").json()["status"] == "ready"
        server.http.post("/v1/texts", json={"texts": [{"id": "t", "text": "red"}]})
    other = make_model(tmp_path / "model")
    ended = sightline("serve", "--data-dir", data, "--port", "0", "--model", other)
    line = check_refused(ended, "colours", f"sightline reembed --model {other}")
    assert "60" in line

    mended = sightline("reembed", "--model", other, "--data-dir", data)
    assert mended.returncode == 0, mended.stderr
    with RunningServer(data, model=other, threads=1) as server:

        def search_red() -> dict[str, Any]:
            answered: dict[str, Any] = server.http.get("/v1/search", params={"q": "red"}).json()
            return answered

        wait_until(lambda: {hit["id"] for hit in search_red()["hits"]} == {"p0", "p1", "p2"}, 60, server.output)
        answer = search_red()
        assert {hit["image"]["caption"] for hit in answer["hits"]} == {"c0", "c1", "c2"}
        texts = server.http.get("/v1/search", params={"q": "red", "target": "texts"}).json()
        assert texts["hits"][0]["score"] > 0.99

        # Other weights of the same architecture under the same name, while it runs: its next worker is refused.
        make_model(tmp_path / "model", seed=1)
        (worker,) = [pid for pid in server.pids() if "worker" in read_command_line(pid)]
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: "the worker cannot start: the data directory belongs to model" in server.output(), 120)
        assert server.upload(picture(seed=9), id="late", wait=0).status_code == 202
        assert search_red()["hits"] == answer["hits"]
    ended = sightline("serve", "--data-dir", data, "--port", "0", "--model", other)
    line = check_refused(ended, f"sightline reembed --model {other}")
    assert "serve it with" not in line


@pytest.mark.timeout(400)
def test_ctrl_c_ends_a_first_conversion(tmp_path: Path) -> None:
    data, model = tmp_path / "data", make_model(tmp_path / "model")

    def list_conversions() -> list[int]:
        below = descendants(server.process.pid)
        return [pid for pid in below if "app.encoder.conversion" in read_command_line(pid) and is_running(pid)]

    server = RunningServer(data, model=model, ready=False, runtime="openvino", models_dir=data / "models")
    (child,) = wait_until(list_conversions, 60, server.output)
    os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does it, to all that belong to it
    assert server.process.wait(30) == 0
    server.stop()
    assert not (is_running(child) and "app.encoder.conversion" in read_command_line(child))
    assert "Traceback" not in server.output()
    assert "OpenVINO cannot run it" not in server.output()
    assert not list((data / "models" / "compiled").glob("*/card.json"))  # nobody waited for its end
    assert is_unlocked(data)


def test_sigterm_of_an_idle_server_is_quick_and_ends_with_0(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data")
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 30
    assert "warning" not in server.output()
    assert is_unlocked(tmp_path / "data")


@pytest.mark.parametrize(("host", "loopback"), [("127.0.0.1", True), ("0.0.0.0", False), ("localhost", True)])
def test_an_address_that_others_reach_is_known(host: str, loopback: bool) -> None:
    for listener in open_listeners(host, 0):
        with listener:
            assert is_on_loopback(listener) is loopback


def test_beyond_loopback_a_server_without_keys_does_not_start(tmp_path: Path) -> None:
    check_refused(serve(tmp_path / "data", "--host", "0.0.0.0"), "no API key", "sightline keys create", "--insecure")
    assert list(tmp_path.iterdir()) == []


def test_beyond_loopback_nobody_comes_in_without_a_key_though_they_are_cleared(tmp_path: Path) -> None:
    database = open_database(tmp_path / "sightline.db")
    access = ApiKeyService(database)
    _, key = access.create("me", KeyScope.SEARCH)
    with RunningServer(tmp_path, host="0.0.0.0", workers=0, ready=False) as server:
        at = server.url.replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(base_url=at, trust_env=False) as client:
            assert client.get("/v1/jobs").status_code == 401
            assert client.get("/v1/jobs", headers={"X-API-Key": key}).status_code == 200
            access.delete_all()
            assert client.get("/v1/jobs", headers={"X-API-Key": key}).status_code == 401
            assert client.get("/v1/jobs").status_code == 401
        assert "no key is needed" not in server.output()
    database.close()


def test_beyond_loopback_a_server_may_be_told_to_let_everybody_in(tmp_path: Path) -> None:
    with RunningServer(tmp_path, host="0.0.0.0", workers=0, ready=False, insecure=1) as server:
        at = server.url.replace("0.0.0.0", "127.0.0.1")
        told = httpx.get(at + "/v1/jobs", headers={"Host": "nas.example"}, trust_env=False)
        assert told.status_code == 200
        assert "no key is needed" in server.output()


def test_answers_do_not_wait_for_the_client_to_confirm_their_first_packet() -> None:
    (listener,) = open_listeners("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()) as client:
        served, _ = listener.accept()
        with served:
            assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert client.fileno() >= 0
