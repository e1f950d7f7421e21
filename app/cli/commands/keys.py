"""Commands on the API keys of a data directory."""

from __future__ import annotations

from typing import Any

import click

from app.cli.commands.common import new_console
from app.cli.options import Group, load_settings, setting_options


@click.group(cls=Group, short_help="Manage the API keys of a data directory.")
def keys() -> None:
    """Manage the API keys of a data directory; a running server follows every change at once."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["search", "write", "admin"]),
    required=True,
    help="Each scope includes those before it.",
)
@click.option("--collection", "collections", multiple=True, help="Limit the key to this collection; may be repeated.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Let the key expire after so many days.")
@setting_options("data_dir", "database")
def create_key(name: str, scope: str, collections: tuple[str, ...], days: float | None, **given: Any) -> None:
    """Make a key and print it once: the server keeps only its hash.

    From the first key on, every call needs a key, on loopback too.
    """
    from app.cli.keys import create_key

    create_key(load_settings(given), name, scope, collections, days)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as JSON.")
@setting_options("data_dir", "database")
def list_keys(as_json: bool, **given: Any) -> None:
    """List the keys, and when a call last used each (to ten minutes)."""
    from app.cli.keys import show_keys

    show_keys(load_settings(given), new_console(), as_json=as_json)


@keys.command("revoke")
@click.argument("id")
@setting_options("data_dir", "database")
def revoke_key(id: str, **given: Any) -> None:
    """Revoke a key, by its id, and the sessions that browsers began with it.

    Calls need a key even after you have revoked the last one.
    """
    from app.cli.keys import revoke_key

    revoke_key(load_settings(given), id)


@keys.command("clear")
@click.confirmation_option(prompt="Remove every key, so that calls on loopback need none?")
@setting_options("data_dir", "database")
def clear_keys(**given: Any) -> None:
    """Remove every key, as if there had never been one."""
    from app.cli.keys import clear_keys

    clear_keys(load_settings(given))


COMMANDS = (keys,)
