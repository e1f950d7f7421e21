"""`sightline mcp`: the tools of `app.api.mcp_tools` on standard input and output, over a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from sightline_client import AsyncClient

from app.cli.connection import open_connection, parse_server
from app.core.errors import StartupError
from app.core.settings import Settings

if TYPE_CHECKING:  # an extra
    from mcp.server.mcpserver import Context

EXTRA = "sightline mcp needs the package mcp: pip install 'sightline-search[mcp]'"


def serve_stdio(settings: Settings, folder: Path | None) -> None:
    """Answer on standard output until standard input ends. Raises StartupError, ServerError."""
    if find_spec("mcp") is None:
        raise StartupError(EXTRA)
    from app.api.mcp_tools import PATIENCE_SECONDS, PictureServer

    client = make_client(settings, PATIENCE_SECONDS)

    @asynccontextmanager
    async def connect(context: Context[Any, Any]) -> AsyncIterator[AsyncClient]:
        yield client

    PictureServer(connect, folder).run("stdio")


def make_client(settings: Settings, patience: float) -> AsyncClient:
    """The client of the server, key and collection that the settings name. Raises ServerError."""
    url = parse_server(settings.server)
    server = str(url.copy_with(username=None, password=None))  # as messages name it
    http = open_connection(httpx.AsyncClient, url, settings.ca_file)
    return AsyncClient(
        server,
        key=settings.read_client_key() or "",
        collection=settings.collection,
        patience=patience,
        http=http,
    )
