"""The connection string of a database: what is wrong with one, and how to show one. Its password is never shown."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

SQLITE = "sqlite"
SCHEMES = ("postgresql", "postgres")
SECRET_OPTIONS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
HIDDEN = "…"
# One or several, with commas between them, as libpq takes them.
HOSTS = re.compile(r"(([^,:\[\]]*|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?)(,([^,:\[\]]*|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?)*")


def check_database_url(value: str) -> None:
    """Raise ValueError, without a part of the value, unless it names SQLite or a database of PostgreSQL."""
    if value == SQLITE:
        return
    scheme, separator, _ = value.partition("://")
    if scheme not in SCHEMES or not separator:
        raise ValueError("expected sqlite or postgresql://USER:PASSWORD@HOST:PORT/NAME")
    wrong = (
        "the URL of the database cannot be read: write / ? # @ : and % in a user or password as %2F %3F %23 %40 %3A"
        " and %25, and the port as a number"
    )
    try:
        parts = urlsplit(value)
    except ValueError:
        raise ValueError(wrong) from None
    if parts.fragment or not HOSTS.fullmatch(parts.netloc.rpartition("@")[2]):
        raise ValueError(wrong)


def describe_database(value: str) -> str:
    """The connection string for people, without what is secret in it."""
    if value == SQLITE:
        return value
    try:
        check_database_url(value)
    except ValueError:
        return f"postgresql://{HIDDEN}"
    parts = urlsplit(value)
    account, _, address = parts.netloc.rpartition("@")
    user = account.partition(":")[0]
    pairs = (pair.partition("=") for pair in parts.query.split("&") if pair)
    query = "&".join(f"{name}={HIDDEN if unquote(name) in SECRET_OPTIONS else text}" for name, _, text in pairs)
    return urlunsplit(("postgresql", f"{user}@{address}" if user else address, parts.path, query, ""))


def find_secrets(value: str) -> frozenset[str]:
    """The secret parts of a connection string, as they stand in it and as they are meant."""
    if value == SQLITE:
        return frozenset()
    try:
        parts = urlsplit(value)
    except ValueError:
        return frozenset({value})
    _, _, raw = parts.netloc.rpartition("@")[0].partition(":")
    found = {raw, unquote(raw)}
    for pair in parts.query.split("&"):
        name, _, text = pair.partition("=")
        if unquote(name) in SECRET_OPTIONS:
            found |= {text, unquote(text)}
    return frozenset(found - {""})
