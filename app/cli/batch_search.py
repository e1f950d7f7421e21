"""Searches by each line of a file, many lines in one call, and prints one line of JSON for each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click

from app.cli import ServerError
from app.cli.client import Client
from app.search.query_syntax import parse_weighted_query

MAX_SEARCHES = 100  # the server's bounds on one call
MAX_PARTS = 320
MAX_HITS = 10_000  # ten of the largest searches that SIGHTLINE_MAX_K allows by default
MIN_SEARCHES = 10  # a server takes this many at once, whatever their k

Parts = list[dict[str, Any]]


def search_lines(
    client: Client, lines: Iterable[str], k: int, target: str, filter: Any, threshold: float | None = None, **more: Any
) -> Iterator[dict[str, Any]]:
    """For each line that is not empty, the `query` with the server's answer, or with an `error`.

    Raises ServerError when the server refuses a whole call.
    """
    options = {"k": k, "target": target, **({} if filter is None else {"filter": filter})}
    options |= more | ({} if threshold is None else {"score_threshold": threshold})
    for group in group_lines(lines, k):
        answers = client.search_batch([{"query": parts, **options} for _, parts in group])
        for (line, _), answer in zip(group, answers, strict=True):
            yield {"query": line, **answer}


def group_lines(lines: Iterable[str], k: int) -> Iterator[list[tuple[str, Parts]]]:
    """The lines with the parts of their queries, as many together as one call may hold."""
    max_searches = min(MAX_SEARCHES, max(MIN_SEARCHES, MAX_HITS // max(k, 1)))
    group: list[tuple[str, Parts]] = []
    size = 0
    for line in (line.strip() for line in lines):
        if not line:
            continue
        parts = [{"text": text, "weight": weight} for text, weight in parse_weighted_query(line)] or [{"text": line}]
        if group and (len(group) == max_searches or size + len(parts) > MAX_PARTS):
            yield group
            group, size = [], 0
        group.append((line, parts))
        size += len(parts)
    if group:
        yield group


def print_answers(
    client: Client, file: str, k: int, target: str, filter: Any, threshold: float | None = None, **more: Any
) -> int:
    """Print the answer to each line of a file as JSON; returns the exit status, 1 if the server refused a line.

    Raises ServerError for a file that cannot be read.
    """
    status = 0
    try:
        with click.open_file(file, encoding="utf-8") as lines:
            for answer in search_lines(client, lines, k, target, filter, threshold, **more):
                if "error" in answer:
                    status = 1
                click.echo(json.dumps(answer, ensure_ascii=False))
    except BrokenPipeError:  # the reader of our output has ended
        raise
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ServerError(f"{file} cannot be read: {reason}") from None
    return status
