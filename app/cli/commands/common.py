"""What the commands share."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import click

from app.cli.options import load_settings, read_settings
from app.core.errors import StartupError

if TYPE_CHECKING:
    from rich.console import Console

    from app.cli.client import Client
    from app.core.settings import Settings

log = logging.getLogger(__name__)

PLACE_OPTIONS = ("database", "media", "cache_dir", "shared_media")
DATA_OPTIONS = ("data_dir", "model", "precision", "runtime", "device", "threads", "decoders", "batch_size")
CLIENT_OPTIONS = ("server", "key", "key_file", "ca_file")
LOG_OPTIONS = ("log_level", "log_format")


def write_examples(*lines: str) -> str:
    """The end of a help text: command lines with what they do."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def drop_missing(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in given.items() if value is not None}


def load_sqlite_settings(given: dict[str, Any]) -> Settings:
    """Load the settings of a command that works on a data directory. Raises StartupError where they name another
    database."""
    settings = load_settings(given)
    if settings.is_cluster:
        raise StartupError(
            "this command is for a data directory, and SIGHTLINE_DATABASE names a PostgreSQL: back that up with its own"
            " tools, or copy everything into a data directory with `sightline move`"
        )
    return settings


def open_client(given: dict[str, Any]) -> Client:
    """Make the client of the server, collection and key that the options name."""
    from app.cli.client import Client

    settings = load_settings(given)
    return Client(settings.server, settings.read_client_key(), settings.collection, settings.ca_file)


def new_console() -> Console:
    from rich.console import Console

    return Console()


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def start_logging(given: dict[str, Any], *, warn: bool = True) -> Settings:
    """Load the settings, configure logging by them, and log a warning for each variable that is no setting."""
    from app.core.connection_string import find_secrets
    from app.core.logging import configure
    from app.core.settings import find_unknown_variables

    settings = read_settings(given)
    on_terminal = settings.log_format == "auto" and sys.stderr.isatty()
    configure(
        settings.log_level,
        json=settings.log_format != "text" and not on_terminal,
        secrets=find_secrets(settings.database),
    )
    for text in find_unknown_variables() if warn else ():
        log.warning(text)
    return settings
