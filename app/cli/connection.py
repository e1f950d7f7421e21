"""What lies between the command line and a server: addresses, proxies, certificates; and failures in one line."""

from __future__ import annotations

import re
import ssl
import urllib.request
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from socket import gaierror
from typing import TypeVar

import httpx

from app.cli import ServerError
from app.cli.answers import clean

C = TypeVar("C")
E = TypeVar("E", bound=BaseException)

TIMEOUT = httpx.Timeout(60.0, connect=15.0)

PLAIN_ADDRESS = re.compile(r"[\w.-]+(:\d+)?(/.*)?|\[[0-9a-fA-F:]+\](:\d+)?(/.*)?")  # without http://
EXPIRED, WRONG_NAME, WRONG_ADDRESS = 10, 62, 64  # OpenSSL's codes of certificates that no authority mends


def parse_server(text: str) -> httpx.URL:
    """The address of a server. Raises ServerError."""
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL as error:
        raise ServerError(f"{clean(text)} is not an address: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        plain = text.strip()
        hint = "an address looks like http://127.0.0.1:8000"
        if PLAIN_ADDRESS.fullmatch(plain):
            hint = f"did you mean http://{plain}?"
        raise ServerError(f"{clean(text)!r} is not an address; {hint}")
    return url.copy_with(query=None, fragment=None)


def find_proxy(server: httpx.URL) -> httpx.Proxy | None:
    """The proxy that the usual variables name for a server; none for one on this machine. Raises ServerError."""
    proxies = urllib.request.getproxies_environment()
    chosen = proxies.get(server.scheme) or proxies.get("all")
    if not chosen or is_loopback(server.host) or urllib.request.proxy_bypass(server.netloc.decode()):
        return None
    try:
        return httpx.Proxy(chosen if "://" in chosen else f"http://{chosen}")
    except (httpx.InvalidURL, ValueError) as error:
        raise ServerError(f"the proxy that the environment names cannot be used: {error}") from None


def open_connection(kind: Callable[..., C], server: httpx.URL, ca_file: Path | None) -> C:
    """A client of httpx (`kind`) for a server, with its proxy, certificates and password. Raises ServerError."""
    try:
        return kind(
            auth=(server.username, server.password) if server.userinfo else None,
            timeout=TIMEOUT,
            verify=load_certificates(ca_file) if server.scheme == "https" else True,
            proxy=find_proxy(server),
            trust_env=False,  # `find_proxy` and `load_certificates` read it
        )
    except (httpx.InvalidURL, ValueError, ImportError) as error:
        raise ServerError(f"the proxy that the environment names cannot be used: {error}") from None


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def load_certificates(ca_file: Path | None) -> ssl.SSLContext:
    """The authorities to trust: the usual ones, those of SSL_CERT_FILE, and those in `ca_file`. Raises ServerError."""
    try:
        context = httpx.create_ssl_context(trust_env=False)
        context.load_default_certs()  # of this machine, or of SSL_CERT_FILE and SSL_CERT_DIR
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except ssl.SSLError:
        raise ServerError(f"{ca_file} holds no certificate in PEM") from None
    except OSError as error:
        raise ServerError(f"the CA file {ca_file} cannot be read: {error.strerror}") from None
    return context


def describe_failure(error: httpx.HTTPError, server: str) -> tuple[str, bool]:
    """Why a request got no answer, and whether it may get one later."""
    if (refused := find_cause(error, ssl.SSLCertVerificationError)) is not None:
        return describe_certificate(refused, server), False
    if (broken := find_cause(error, ssl.SSLError)) is not None and isinstance(error, httpx.ConnectError):
        return f"the server at {server} does not speak TLS: {clean(broken.reason or str(broken))}; try http://", False
    if find_cause(error, gaierror) is not None:
        return f"there is no host of this name: {server}", False
    if isinstance(error, httpx.ProxyError):
        return f"the proxy refused the connection to {server}: {clean(str(error))}", False
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"no server answers at {server}; start one with `sightline serve`, or name it with --server", True
    return f"the connection to {server} failed: {clean(str(error)) or type(error).__name__}", True


def describe_certificate(error: ssl.SSLCertVerificationError, server: str) -> str:
    if error.verify_code in (EXPIRED, WRONG_NAME, WRONG_ADDRESS):
        return f"the certificate of {server} cannot be accepted: {clean(error.verify_message)}"
    remedy = "name its authority with --ca-file, SIGHTLINE_CA_FILE or SSL_CERT_FILE"
    return f"the certificate of {server} is not trusted: {clean(error.verify_message)}; {remedy}"


def describe_redirect(response: httpx.Response, server: str) -> str:
    """Where an answer sends the request, as the address to use instead."""
    if response.next_request is None:
        return f"the server at {server} is not Sightline: it answered {response.status_code}"
    asked = response.request.url
    target = response.next_request.url.copy_with(username=None, password=None, fragment=None)
    path = asked.path.removeprefix(httpx.URL(server).path.rstrip("/"))
    bare = str(target.copy_with(query=None))
    if bare.endswith(path) and bare.removesuffix(path) != server:
        return f"{server} redirects to {clean(bare.removesuffix(path))}; use that"
    return f"{server} redirects to {clean(bare)}, perhaps a login page; name the server itself with --server"


def find_cause(error: BaseException | None, kind: type[E]) -> E | None:
    """The first error of this kind among an error and its causes."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
