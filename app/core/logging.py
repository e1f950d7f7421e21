"""Logging: lines for people on a terminal, JSON for machines; no secrets and no control characters in either.

Records carry ids as fields: `request_id` of the request that is answered, `job` and `picture` of what is worked on
(`logging`'s `extra`, or `about` for everything inside a `with`). Whatever a caller may have put into a name, a path or
an error is escaped, so that it can neither begin a line nor move a cursor.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import AbstractContextManager
from typing import Any

import structlog

MAX_VALUE_CHARS = 4_096  # characters of a value; a traceback may have more
MAX_TRACEBACK_CHARS = 65_536

# What is left out of every line, whoever wrote it. The first group of each stays.
SECRETS = tuple(
    (re.compile(pattern, re.IGNORECASE), told)
    for pattern, told in (
        (r"\b(sl_)[0-9a-f]{12}_[\w-]+", r"\1…"),
        (r"\b(sightline_\d+=)[^\s;,\"'\\]+", r"\1…"),  # the cookie of a session
        (r"\b((?:Bearer|Basic)\s+)[\w.~+/=-]{6,}", r"\1…"),
        (r"\b((?:set-)?cookie\\?[\"']?\s*[:=]\s*\\?[\"']?)[^\"'\\]+", r"\1…"),
        (
            r"((?:authorization|api[_-]?key|access[_-]?key|password|passwd|secret|token)"
            r"\\?[\"']?\s*[:=]\s*\\?[\"']?)(?!Bearer|Basic)[^\s;,&\"'\\]+",
            r"\1…",
        ),
        (r"\b([a-z][a-z0-9+.-]{0,15}://)[^\s/?#\"'<>\\]+@", r"\1…@"),  # name and password of a URL
        (r"\b([a-z][a-z0-9+.-]{0,15}://[^\s?\"'<>\\]*\?)[^\s\"'<>\\]+", r"\1…"),  # a signed URL is a key, too
        (r"\b(AKIA|ASIA)[0-9A-Z]{16}\b", r"\1…"),
    )
)


class RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """Leaves secrets out of whatever is written: none should get here, but a caller may put one into an address."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).replace("\x7f", "\\u007f")  # the one control character that JSON leaves
        for pattern, told in SECRETS:
            line = pattern.sub(told, line)
        return line


def configure(level: str, *, json: bool) -> None:
    """Send every log record of the process to stderr, each on one line but for tracebacks for people."""
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
    ]
    # plain: the rich one prints every local variable, and a request may be 48 MiB of them
    final += [structlog.processors.format_exc_info]
    if json:
        final += [structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        final += [escape_values, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # libraries speak only when something is wrong
    for name in ("app", "index", "sightline"):
        logging.getLogger(name).setLevel(level.upper())


def bind_log_fields(**ids: str) -> AbstractContextManager[None]:
    """Give every record inside the `with` these fields, also in threads that take over the context."""
    return structlog.contextvars.bound_contextvars(**ids)


def truncate_values(_: Any, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut what is too long for a line."""
    for name, value in fields.items():
        if isinstance(value, str) and len(value) > MAX_VALUE_CHARS:
            fields[name] = value[:MAX_VALUE_CHARS] + "…"
    return fields


def escape_values(_: Any, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Write control characters as escapes; a traceback keeps its lines, each marked as one of it."""
    for name, value in fields.items():
        if name in ("exception", "stack") and isinstance(value, str):
            fields[name] = "\n".join(
                f"  | {escape_unprintable(line)}" for line in value[:MAX_TRACEBACK_CHARS].split("\n")
            )
        elif isinstance(value, str):
            fields[name] = escape_unprintable(value)
    return fields


def escape_unprintable(text: str) -> str:
    """The text with everything escaped that a terminal or a reader of lines would act on."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
