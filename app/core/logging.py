"""Logging: lines for people on a terminal, JSON elsewhere; neither holds secrets or control characters.

Records carry ids as fields: `request_id` of the request, `job` and `picture` of the work (`extra` of a logging call,
or `bind_log_fields` for all calls inside a `with`). Names, paths and errors may hold what a caller has sent; they are
escaped, so that they can neither start a new line nor control a terminal.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from app.core.imports import hide

with hide("rich"):  # structlog would import it for tracebacks of its own, a tenth of a start
    import structlog

MAX_VALUE_CHARS = 4_096
MAX_TRACEBACK_CHARS = 65_536

# These are removed from every line, whichever module wrote it. The first group of each pattern stays.
SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(sl_)[0-9a-f]{12}_[\w-]+",
        r"\b(sightline_\d+=)[^\s;,\"'\\]+",  # the cookie of a session
        r"\b((?:Bearer|Basic)\s+)[\w.~+/=-]{6,}",
        r"\b((?:set-)?cookie\\?[\"']?\s*[:=]\s*\\?[\"']?)[^\"'\\]+",
        r"((?:authorization|api[_-]?key|access[_-]?key|password|passwd|secret|token)"
        r"\\?[\"']?\s*[:=]\s*\\?[\"']?)(?!Bearer|Basic)[^\s;,&\"'\\]+",
        r"\b([a-z][a-z0-9+.-]{0,15}://)[^\s/?#\"'<>\\]+(?=@)",  # user and password of a URL
        r"\b([a-z][a-z0-9+.-]{0,15}://[^\s?\"'<>\\]*\?)[^\s\"'<>\\]+",  # a signed URL grants access
        r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    )
)


KNOWN_SECRETS: set[str] = set()  # of the settings: removed wherever they stand
MIN_SECRET_CHARS = 4  # a shorter one would also be removed from other words


class RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """Removes secrets from every line. Our code logs none, but a caller may put one into an address."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).replace("\x7f", "\\u007f")  # the one control character that JSON leaves
        for secret in KNOWN_SECRETS:
            line = line.replace(secret, "…")
        for pattern in SECRETS:
            line = pattern.sub(r"\1…", line)
        return line


def configure(level: str, *, json: bool, secrets: Iterable[str] = ()) -> None:
    """Send all log records of the process to stderr, each on one line; only tracebacks for people take more.

    No line holds one of the `secrets`.
    """
    KNOWN_SECRETS.update(secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        truncate_values,
        structlog.processors.format_exc_info,
    ]
    if json:
        final += [structlog.processors.JSONRenderer()]
    else:
        # Not rich's traceback, which prints all local variables: a request may hold 48 MiB of them.
        plain = structlog.dev.plain_traceback
        final += [escape_values, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # of libraries
    for name in ("app", "index", "sightline"):
        logging.getLogger(name).setLevel(level.upper())


def bind_log_fields(**ids: str) -> AbstractContextManager[None]:
    """Add these fields to every record inside the `with`, also in threads that take over the context."""
    return structlog.contextvars.bound_contextvars(**ids)


def truncate_values(_: Any, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name, value in fields.items():
        if isinstance(value, str) and len(value) > MAX_VALUE_CHARS:
            fields[name] = value[:MAX_VALUE_CHARS] + "…"
    return fields


def escape_values(_: Any, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters. A traceback keeps its lines, each behind a mark."""
    for name, value in fields.items():
        if name in ("exception", "stack") and isinstance(value, str):
            lines = value[:MAX_TRACEBACK_CHARS].split("\n")
            fields[name] = "\n".join(f"  | {escape_unprintable(line)}" for line in lines)
        elif isinstance(value, str):
            fields[name] = escape_unprintable(value)
    return fields


def escape_unprintable(text: str) -> str:
    """Escape whatever a terminal or a reader of lines would act on."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
