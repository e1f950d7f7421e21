"""Commands that run Sightline: servers, workers, the tools of assistants, the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from app.cli.commands.common import (
    CLIENT_OPTIONS,
    DATA_OPTIONS,
    LOG_OPTIONS,
    PLACE_OPTIONS,
    new_console,
    start_logging,
    write_examples,
)
from app.cli.options import Command, load_settings, setting_options


@click.command(cls=Command, short_help="Serve a data directory over HTTP.")
@setting_options(
    "host",
    "port",
    "immich_port",
    "immich_host",
    "insecure",
    "allowed_hosts",
    *PLACE_OPTIONS,
    *DATA_OPTIONS,
    "served_names",
    "index",
    "workers",
    "formats",
    "ocr",
    "captioner",
    "captioner_model",
    *LOG_OPTIONS,
)
def serve(**given: Any) -> None:
    """Serve a data directory over HTTP, with workers that import and embed pictures."""
    settings = start_logging(given)  # before the large imports: a wrong setting fails at once
    from app.api.server import serve as run
    from app.core.tracing import send_spans

    with send_spans("sightline", on=settings.is_tracing_on):
        run(settings)


@click.command(
    cls=Command,
    short_help="Run more workers on a data directory or a cluster.",
    epilog=write_examples(
        "sightline worker --data-dir photos                                     one more, beside a server",
        "sightline worker --database postgresql://... --workers 4 --device cuda    those of a GPU machine",
    ),
)
@setting_options(
    *PLACE_OPTIONS, *DATA_OPTIONS, "workers", "formats", "ocr", "captioner", "captioner_model", *LOG_OPTIONS
)
@click.option("--parent", type=int, default=None, hidden=True, help="End when this process ends.")
def worker(parent: int | None, **given: Any) -> None:
    """Import and embed pictures, beside a server or without one.

    With --workers N it keeps N processes running. In a cluster it also starts the processes of the second passes
    (--ocr, --captioner) that the servers have.
    """
    settings = start_logging(given, warn=parent is None)
    if not settings.is_cluster and given["workers"] is None:  # the variable is for the server of the data directory
        settings = settings.model_copy(update={"workers": 1})
    from app.core.tracing import send_spans
    from app.worker.main import needs_supervisor, run_worker, run_workers

    if parent is None and needs_supervisor(settings):
        run_workers(settings)
        return
    with send_spans("sightline-worker", on=settings.is_tracing_on):
        run_worker(settings, parent)


@click.command(
    cls=Command,
    short_help="Offer the pictures to assistants, by MCP.",
    epilog=write_examples(
        "sightline mcp                           tools for an assistant on this machine, over stdin and stdout",
        "sightline mcp --folder ~/Pictures       which may also add pictures from this folder",
    ),
)
@click.option("--api-key", help="The same as --key.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the assistant may read pictures of this machine, to add them.",
)
@setting_options(*CLIENT_OPTIONS, "collection")
def mcp(api_key: str | None, folder: Path | None, **given: Any) -> None:
    """Serve the Model Context Protocol on standard input and output, over a running server.

    An assistant starts this command itself: its configuration names it. It needs
    pip install 'sightline-search[mcp]'. The server's own address for assistants is /mcp.
    """
    from app.cli.mcp import serve_stdio

    if api_key is not None:
        if given["key"] or given["key_file"]:
            raise click.UsageError("give either --api-key or --key or --key-file")
        given["key"] = api_key
    serve_stdio(load_settings(given), folder)


@click.command(cls=Command, short_help="Try everything on the built-in gallery.")
@click.option("--once", is_flag=True, help="End after the example searches.")
@setting_options("port")
def demo(once: bool, **given: Any) -> None:
    """Serve the demo gallery from a temporary directory, and show example searches."""
    from app.cli.demo import demo as run

    run(load_settings(given), new_console(), once=once)


COMMANDS = (serve, worker, mcp, demo)
