"""deploy/Caddyfile.cluster: a real Caddy in front of two servers, of which one dies."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.support.servers import RunningServer, wait_until

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "deploy/Caddyfile.cluster"
# What a test must not do as the example does: administration, and other addresses than loopback.
WRAPPED = "{{\n\tadmin off\n\tstorage file_system {folder}\n\tdefault_bind 127.0.0.1\n}}\nimport {example}\n"

pytestmark = pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed (scripts/system)")


def run_caddy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["caddy", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_balancer_is_valid_and_formatted() -> None:
    checked = run_caddy("validate", "--adapter", "caddyfile", "--config", str(EXAMPLE))
    assert checked.returncode == 0, checked.stderr
    assert run_caddy("fmt", "--diff", str(EXAMPLE)).returncode == 0


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[RunningServer]]:
    """Two servers; that they share nothing does not matter here."""
    running = [RunningServer(tmp_path / str(n), workers=0, trusted_proxies="127.0.0.1") for n in range(2)]
    yield running
    for server in running:
        server.stop()


@pytest.fixture
def balancer(servers: list[RunningServer], tmp_path: Path) -> Iterator[str]:
    (tmp_path / "Caddyfile").write_text(WRAPPED.format(folder=tmp_path, example=EXAMPLE))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["caddy", "run", "--config", tmp_path / "Caddyfile", "--adapter", "caddyfile"],
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "SIGHTLINE_SITE": f"http://127.0.0.1:{port}",
            "SIGHTLINE_UPSTREAM": " ".join(server.url.removeprefix("http://") for server in servers),
        },
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(url), 30)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_browser_stays_with_its_server_until_that_dies(balancer: str, servers: list[RunningServer]) -> None:
    for n, server in enumerate(servers):
        server.http.post("/v1/collections", json={"name": f"of-{n}"}).raise_for_status()

    def which(client: httpx.Client) -> str:
        names: list[str] = [one["name"] for one in client.get("/v1/collections").json()["collections"]]
        return next(name for name in names if name.startswith("of-"))

    with httpx.Client(base_url=balancer, trust_env=False, timeout=30) as browser:
        mine = which(browser)
        assert {which(browser) for _ in range(8)} == {mine}
        seen = set()
        for _ in range(30):  # calls without cookies are spread
            with httpx.Client(base_url=balancer, trust_env=False, timeout=30) as other:
                seen.add(which(other))
        assert seen == {"of-0", "of-1"}
        servers[int(mine[-1])].kill()
        assert {which(browser) for _ in range(8)} == {f"of-{1 - int(mine[-1])}"}  # no request fails
