"""Addresses, proxies and certificates between the command line and a server."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from app.cli import ServerError
from app.cli.client import Client
from app.cli.connection import find_proxy, is_loopback, load_certificates, parse_server

JOBS = json.dumps({"jobs": []}).encode()
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *map(str.upper, PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


class Jobs(BaseHTTPRequestHandler):
    """Answers that there are no jobs, whatever is asked; as a proxy, too."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(JOBS)))
        self.end_headers()
        self.wfile.write(JOBS)

    def do_CONNECT(self) -> None:
        self.send_error(407)

    def log_message(self, *_: object) -> None:
        pass


def serve(tls: ssl.SSLContext | None = None) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Jobs)
    server.asked = []  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that trusts it not
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    yield server
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def proxy() -> Iterator[ThreadingHTTPServer]:
    yield from serve()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of localhost, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*new, "-keyout", path, "-out", path.with_name("c.pem")], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_name("c.pem").read_text())
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[ThreadingHTTPServer]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    yield from serve(tls)


def failure(server: str, ca_file: Path | None = None) -> str:
    with pytest.raises(ServerError) as refused, Client(server, ca_file=ca_file) as client:
        client.jobs()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_private_authority_is_trusted_when_it_is_named(
    secure: ThreadingHTTPServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"https://localhost:{secure.server_port}"
    told = failure(url)
    assert "is not trusted" in told
    for way in ("--ca-file", "SIGHTLINE_CA_FILE", "SSL_CERT_FILE"):
        assert way in told
    with Client(url, ca_file=certificate) as client:
        assert client.jobs() == {"jobs": []}
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Client(url) as client:
        assert client.jobs() == {"jobs": []}
    assert "cannot be accepted" in failure(f"https://127.0.0.1:{secure.server_port}")


def test_tls_and_plain_http_are_not_mixed_up(proxy: ThreadingHTTPServer) -> None:
    assert "does not speak TLS" in failure(f"https://localhost:{proxy.server_port}")


def test_a_ca_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("words")
    for path, told in ((tmp_path / "words", "no certificate in PEM"), (tmp_path / "gone", "No such file")):
        with pytest.raises(ServerError, match=told):
            load_certificates(path)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_server_elsewhere_is_asked_through_the_proxy_of_the_environment(
    variable: str, proxy: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"127.0.0.1:{proxy.server_port}")
    with Client("http://photos.example.org/base") as client:
        assert client.jobs() == {"jobs": []}
    assert proxy.asked == ["http://photos.example.org/base/v1/jobs"]  # type: ignore[attr-defined]


def test_a_proxy_that_fails_is_named(proxy: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{proxy.server_port}")
    told = failure("https://photos.example.org")
    assert "the proxy refused" in told
    assert f"127.0.0.1:{proxy.server_port}" in told
    assert "secret" not in told
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert "through the proxy http://127.0.0.1:9" in failure("http://photos.example.org")
    for wrong in ("gopher://x", "http://x:abc", "socks5://127.0.0.1:9"):
        monkeypatch.setenv("HTTP_PROXY", wrong)
        assert "cannot be used" in failure("http://photos.example.org")


def test_this_machine_and_names_of_no_proxy_are_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org,10.0.0.7")
    direct = (
        "http://localhost:8000",
        "http://127.0.0.2",
        "http://[::1]:1",
        "http://photos.example.org",
        "http://10.0.0.7",
    )
    assert [find_proxy(httpx.URL(one)) for one in direct] == [None] * 5
    assert find_proxy(httpx.URL("http://example.com")) is not None
    assert [is_loopback(host) for host in ("a.localhost", "localhost.org", "::1")] == [True, False, True]


@pytest.mark.parametrize("wrong", ["nonsense", "localhost:8000", "ftp://x", "http://", "http://x:y"])
def test_an_address_is_http_with_a_host(wrong: str) -> None:
    with pytest.raises(ServerError, match="is not an address"):
        parse_server(wrong)


def test_a_password_of_the_address_is_not_shown() -> None:
    assert "secret" not in failure("http://me:secret@127.0.0.1:9")


def test_a_host_that_no_name_server_knows_is_told() -> None:
    assert "no host of this name" in failure("http://no-such-host.invalid")
