"""What a server's listening socket is. tests/acceptance starts, stops and kills whole servers."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn
from starlette.responses import Response

from app.api.server import ACCEPTED, BACKLOG, Server, format_address, is_on_loopback, listen
from app.core.errors import StartupError
from app.core.listeners import open_listeners
from app.core.settings import Settings

SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


def backlog(listener: socket.socket) -> int:
    """How many connections the system holds for it: `tcpi_sacked` of a socket that listens, see tcp(7)."""
    return int(struct.unpack_from("I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28)[0])


@pytest.mark.skipif(not SOMAXCONN.exists(), reason="only Linux tells")
def test_a_burst_waits_in_the_system_and_not_for_the_event_loop() -> None:
    async def start(listener: socket.socket) -> int:
        server = Server(uvicorn.Config(Response("here"), ws="none", lifespan="off", backlog=ACCEPTED))
        config = server.config
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        try:
            return backlog(listener)
        finally:
            await server.shutdown([listener])

    most = min(BACKLOG, int(SOMAXCONN.read_text()))
    (listener,) = open_listeners("127.0.0.1", 0, BACKLOG)
    with listener:
        assert backlog(listener) == most
        assert asyncio.run(start(listener)) == most


def test_an_address_in_use_is_told_with_what_to_do() -> None:
    with listen(Settings(host="127.0.0.1", port=0)) as (listener,):
        port = listener.getsockname()[1]
        with (
            pytest.raises(StartupError, match=rf"cannot listen on 127.0.0.1:{port}: .*choose another with --port"),
            listen(Settings(host="127.0.0.1", port=port)),
        ):
            pass


@pytest.mark.parametrize("host", ["http://127.0.0.1", "127.0.0.1:8000", "[::1]", "192.0.2.1"])
def test_a_host_that_is_no_address_of_this_machine_is_told_what_it_takes(host: str) -> None:
    with (
        pytest.raises(StartupError, match="--host takes an address or a name of this machine, alone"),
        listen(Settings(host=host, port=0)),
    ):
        pass


@pytest.mark.parametrize(("host", "alone"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)])
def test_a_loopback_address_is_known_as_one(host: str, alone: bool) -> None:
    try:
        (listener,) = open_listeners(host, 0)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with listener:
        assert is_on_loopback(listener) == alone


@pytest.mark.parametrize(
    ("host", "url"), [("localhost", "http://127.0.0.1:"), ("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
def test_the_url_that_is_printed_can_be_used(host: str, url: str) -> None:
    try:
        listeners = open_listeners(host, 0)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    assert format_address(host, listeners[0]) == f"{url}{listeners[0].getsockname()[1]}"
    for listener in listeners:
        listener.close()


def test_a_start_imports_nothing_that_only_other_commands_and_calls_need() -> None:
    """Each is a tenth of a second, of a processor that the model wants."""
    late = ("sightline_client", "httpx", "rich", "ftfy", "mcp", "obstore", "torch", "pyarrow", "openvino", "psycopg")
    code = f"import sys, app.api.server, app.api.app, app.api.timeouts; print([n for n in {late} if n in sys.modules])"
    code += "; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]


def test_the_application_is_imported_after_the_model_begins_to_load() -> None:
    code = "import sys, app.api.server; print('fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
