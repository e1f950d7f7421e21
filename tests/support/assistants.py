"""An assistant of the tests: the SDK's own MCP client, in either era of the protocol, and what it reads of answers."""

from __future__ import annotations

import io
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult
from PIL import Image

ERAS = ("legacy", "auto")  # with a handshake; without one, where the server can (2026-07-28)


@asynccontextmanager
async def connect_http(url: str, era: str, **headers: str) -> AsyncIterator[Client]:
    """A session with `/mcp` of a server, with these headers at each request."""
    async with (
        httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=era) as client,
    ):
        yield client


@asynccontextmanager
async def connect_stdio(url: str, era: str, *options: str) -> AsyncIterator[Client]:
    """A session with `sightline mcp`, which the client starts."""
    arguments = ["-m", "app", "mcp", "--server", url, *options]
    async with Client(StdioServerParameters(command=sys.executable, args=arguments), mode=era) as client:
        yield client


async def use(client: Client, tool: str, **arguments: Any) -> Any:
    """The structured content of a tool's answer, which must not be an error."""
    found = await client.call_tool(tool, arguments)
    assert not found.is_error, found.content
    return found.structured_content


async def be_refused(client: Client, tool: str, **arguments: Any) -> str:
    """The sentence of a tool that refuses."""
    found = await client.call_tool(tool, arguments)
    assert found.is_error, found.structured_content
    return read_text(found)


def read_text(found: CallToolResult) -> str:
    (block,) = found.content
    assert block.type == "text"
    return block.text


def look(found: CallToolResult) -> Sequence[tuple[str, Image.Image]]:
    """The pictures of an answer, each with its media type."""
    blocks = [block for block in found.content if block.type == "image"]
    return [(block.mime_type, Image.open(io.BytesIO(b64decode(block.data)))) for block in blocks]
