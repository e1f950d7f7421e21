"""`sightline keys`: API keys of a data directory, made and ended whether a server runs on it or not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console
from rich.table import Table

from app.core.errors import StartupError
from app.core.settings import Settings
from app.core.types import ApiKey, KeyScope
from app.service.auth import ApiKeyService, is_active
from app.service.data_dir import open_database


@contextmanager
def open_keys(settings: Settings, *, made: bool = False) -> Iterator[ApiKeyService]:
    """The keys of the data directory, which is `made` where there is none. Raises StartupError."""
    if not made and not (settings.data_dir / "sightline.db").is_file():
        raise StartupError(f"there is no data directory at {settings.data_dir}")
    database = open_database(settings)
    try:
        yield ApiKeyService(database)
    finally:
        database.close()


def create_key(settings: Settings, name: str, scope: str, collections: Sequence[str], days: float | None) -> None:
    """Print a new key alone on standard output, so that a script can keep it."""
    with open_keys(settings, made=True) as kept:
        key, text = kept.create(name, KeyScope[scope.upper()], collections, days)
    where = f" in {', '.join(sorted(key.collections))}" if key.collections else ""
    until = f", until {key.expires_at}" if key.expires_at else ""
    click.echo(f"key {key.id} ({key.name}): {scope}{where}{until}; it is shown this once", err=True)
    click.echo(text)


def show_keys(settings: Settings, console: Console, *, as_json: bool) -> None:
    """Print the keys; nothing of their secrets is known."""
    with open_keys(settings) as kept:
        found = [describe_key(key) for key in kept.list_keys()]
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    table = Table("id", "name", "scope", "collections", "state", "expires", "last used")
    for one in found:
        table.add_row(*(", ".join(value) if isinstance(value, list) else value or "" for value in table_row(one)))
    console.print(table)


def revoke_key(settings: Settings, named: str) -> None:
    """End a key."""
    with open_keys(settings) as kept:
        key = kept.revoke(named)
    click.echo(f"key {key.id} ({key.name}) is revoked", err=True)


def clear_keys(settings: Settings) -> None:
    """Remove every key."""
    with open_keys(settings) as kept:
        count = kept.delete_all()
    click.echo(f"{count} keys are removed", err=True)


def describe_key(key: ApiKey) -> dict[str, str | list[str] | None]:
    """What is told of a key."""
    return {
        "id": key.id,
        "name": key.name,
        "scope": key.right.name.lower(),
        "collections": None if key.collections is None else sorted(key.collections),
        "state": "live" if is_active(key) else "revoked" if key.revoked_at else "expired",
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def table_row(told: dict[str, str | list[str] | None]) -> list[str | list[str] | None]:
    """The line of the table; times to the minute."""
    minutes = [str(told[name] or "")[:16].replace("T", " ") for name in ("expires_at", "last_used_at")]
    return [told["id"], told["name"], told["scope"], told["collections"] or "all", told["state"], *minutes]
