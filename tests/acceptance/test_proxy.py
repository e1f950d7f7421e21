"""The reverse proxy of deploy/Caddyfile: a real Caddy, with TLS, in front of a real server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.support.pictures import picture
from tests.support.processes import read_command_line
from tests.support.servers import RunningServer, wait_until

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "deploy/Caddyfile"
USER, PASSWORD = "someone", "a long password"
# What a test must not do as the example does: listen on port 80, keep certificates in the home, trust them.
WRAPPED = """{{
	admin off
	skip_install_trust
	auto_https disable_redirects
	storage file_system {folder}
}}
import {example}
"""

pytestmark = pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed (scripts/system)")


def caddy(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["caddy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("proxy") / "data", trusted_proxies="127.0.0.1,::1") as running:
        yield running


@pytest.fixture
def pause_worker(server: RunningServer) -> Iterator[Callable[[], None]]:
    """Stop the worker, so that jobs wait; the value lets it continue."""

    def workers() -> list[int]:
        return [pid for pid in server.pids() if "worker" in read_command_line(pid)]

    (worker,) = wait_until(workers, 30)
    os.kill(worker, signal.SIGSTOP)
    yield lambda: os.kill(worker, signal.SIGCONT)
    os.kill(worker, signal.SIGCONT)


@pytest.fixture(scope="module")
def proxy_client(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client that reaches the server through Caddy, trusts only Caddy's authority, and has the password."""
    folder = tmp_path_factory.mktemp("caddy")
    (folder / "Caddyfile").write_text(WRAPPED.format(folder=folder, example=EXAMPLE))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        site = f"localhost:{probe.getsockname()[1]}"
    hashed = caddy("hash-password", "--plaintext", PASSWORD).stdout.strip()
    process = subprocess.Popen(
        ["caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"],
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "HOME": str(folder),
            "SIGHTLINE_SITE": site,
            "SIGHTLINE_USER": USER,
            "SIGHTLINE_PASSWORD_HASH": hashed,
            "SIGHTLINE_UPSTREAM": server.url.removeprefix("http://"),
        },
    )
    root = folder / "pki/authorities/local/root.crt"
    certificate = folder / "certificates/local/localhost/localhost.crt"
    try:
        wait_until(lambda: certificate.is_file() or process.poll() is not None, 30)
        assert process.poll() is None
        trusted = ssl.create_default_context(cafile=root)
        with httpx.Client(
            base_url=f"https://{site}", verify=trusted, auth=(USER, PASSWORD), timeout=30, trust_env=False
        ) as client:
            wait_until(lambda: answers(client), 30)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_the_example_is_valid_and_formatted() -> None:
    hashed = caddy("hash-password", "--plaintext", PASSWORD).stdout.strip()
    checked = caddy(
        *("validate", "--adapter", "caddyfile", "--config", str(EXAMPLE)),
        SIGHTLINE_SITE="photos.example.org",
        SIGHTLINE_USER=USER,
        SIGHTLINE_PASSWORD_HASH=hashed,
    )
    assert checked.returncode == 0, checked.stderr
    assert caddy("fmt", "--diff", str(EXAMPLE)).returncode == 0


def test_nobody_comes_in_without_the_password(proxy_client: httpx.Client) -> None:
    for path in ("/", "/v1/stats", "/v1/images", "/metrics", "/readyz", "/docs"):
        assert proxy_client.get(path, auth=("someone", "wrong")).status_code == 401
    assert proxy_client.get("/").status_code == 200
    assert proxy_client.get("/v1/stats").json()["model"]["name"] == "colours"


def test_a_large_picture_goes_through_and_comes_back_whole(proxy_client: httpx.Client) -> None:
    content = picture("red", size=(600, 400)) + os.urandom(20 << 20)
    image = proxy_client.post("/v1/images", files={"file": ("red.png", content)})
    assert image.status_code == 202, image.text
    assert proxy_client.get(f"/v1/images/{image.json()['id']}/file").content == content


def test_a_refusal_keeps_its_shape(proxy_client: httpx.Client) -> None:
    problem = proxy_client.get("/v1/images/nothing")
    assert (problem.status_code, problem.json()["code"]) == (404, "not_found")
    assert problem.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize("encodings", ["identity", "gzip"])
def test_events_arrive_when_they_happen(
    proxy_client: httpx.Client, pause_worker: Callable[[], None], encodings: str
) -> None:
    job = proxy_client.post("/v1/images/bulk", files={"files": ("a.png", picture("blue", seed=len(encodings)))}).json()
    with proxy_client.stream(
        "GET", f"/v1/jobs/{job['id']}/events", headers={"Accept-Encoding": encodings}, timeout=20
    ) as response:
        events = (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))
        assert next(events)["state"] == "queued"  # and the job stays so until:
        pause_worker()
        assert [event["state"] for event in events][-1] == "succeeded"
