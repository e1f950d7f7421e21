"""Logging: lines for people on a terminal, JSON for machines."""

from __future__ import annotations

import logging
import re
import sys

import structlog

KEY = re.compile(r"\bsl_[0-9a-f]{12}_[\w-]+")


class Redacted(structlog.stdlib.ProcessorFormatter):
    """Leaves API keys out of whatever is written: none should get here, but a caller may put one into an address."""

    def format(self, record: logging.LogRecord) -> str:
        return KEY.sub("sl_…", super().format(record))


def configure(level: str, *, json: bool) -> None:
    """Send every log record of the process to stderr, each on one line."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if json:
        final += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # plain: the rich one prints every local variable, and a request may be 48 MiB of them
        plain = structlog.dev.plain_traceback
        final += [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler()
    handler.setFormatter(Redacted(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)  # libraries speak only when something is wrong
    for name in ("app", "index", "sightline"):
        logging.getLogger(name).setLevel(level.upper())
