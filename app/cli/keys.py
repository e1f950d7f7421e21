"""`sightline keys`: makes, lists and revokes the API keys of a data directory, while a server runs on it or not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console

from app.cli.output import print_rows
from app.core.errors import StartupError
from app.core.settings import Settings
from app.core.types import ApiKey, KeyScope
from app.service.auth import ApiKeyService, is_active
from app.service.data_dir import open_database


@contextmanager
def open_keys(settings: Settings, *, create: bool = False) -> Iterator[ApiKeyService]:
    """Open the keys of a data directory; `create` makes it where there is none. Raises StartupError."""
    if not create and not settings.is_cluster and not (settings.data_dir / "sightline.db").is_file():
        raise StartupError(f"there is no data directory at {settings.data_dir}")
    database = open_database(settings)
    try:
        yield ApiKeyService(database)
    finally:
        database.close()


def create_key(settings: Settings, name: str, scope: str, collections: Sequence[str], days: float | None) -> None:
    """Make a key. Only the key itself goes to standard output, so that a script can keep it."""
    with open_keys(settings, create=True) as api_keys:
        key, text = api_keys.create(name, KeyScope[scope.upper()], collections, days)
    where = f" in {', '.join(sorted(key.collections))}" if key.collections else ""
    until = f", until {key.expires_at}" if key.expires_at else ""
    click.echo(f"key {key.id} ({key.name}): {scope}{where}{until}; store it now: nothing can show it again", err=True)
    click.echo(text)


def show_keys(settings: Settings, console: Console, *, as_json: bool) -> None:
    """Print the keys, without their secrets, which nobody keeps."""
    with open_keys(settings) as api_keys:
        described = [describe_key(key) for key in api_keys.list_keys()]
    if as_json:
        click.echo(json.dumps(described, ensure_ascii=False, indent=2))
        return
    header = ("id", "name", "scope", "collections", "state", "expires", "last used")
    rows = [
        [", ".join(value) if isinstance(value, list) else value or "" for value in table_row(one)] for one in described
    ]
    print_rows(console, header, rows, rows)


def revoke_key(settings: Settings, key_id: str) -> None:
    with open_keys(settings) as api_keys:
        key = api_keys.revoke(key_id)
    click.echo(f"key {key.id} ({key.name}) is revoked", err=True)


def clear_keys(settings: Settings) -> None:
    with open_keys(settings) as api_keys:
        count = api_keys.delete_all()
    click.echo(f"{count} keys are removed", err=True)


def describe_key(key: ApiKey) -> dict[str, str | list[str] | None]:
    """The JSON object of a key."""
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


def table_row(described: dict[str, str | list[str] | None]) -> list[str | list[str] | None]:
    """The row of a key in the table; times to the minute."""
    minutes = [str(described[name] or "")[:16].replace("T", " ") for name in ("expires_at", "last_used_at")]
    return [
        described["id"],
        described["name"],
        described["scope"],
        described["collections"] or "all",
        described["state"],
        *minutes,
    ]
