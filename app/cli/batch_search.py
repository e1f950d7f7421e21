"""Many queries of a file: asked as many in one call as a server takes, answered with one line each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click

from app.cli.client import Client, ServerError
from app.search.query_syntax import parse_weighted_query

MAX_SEARCHES = 100  # of one call, as the server bounds it
MAX_PARTS = 320
MAX_HITS = 10_000  # ten of the largest searches, as `SIGHTLINE_MAX_K` is by default
MIN_SEARCHES = 10  # searches of one call that every server takes, whatever its largest is


def search_lines(client: Client, lines: Iterable[str], k: int, target: str, filter: Any) -> Iterator[dict[str, Any]]:
    """For each line that says something: the `query` with the server's answer, or with the `error` why there is none.

    A minus turns away, as everywhere. Raises ServerError when a whole call is refused.
    """
    for group in group_lines(lines, k):
        searches = [search_body(parts, k, target, filter) for _, parts in group]
        for (line, _), answer in zip(group, client.search_batch(searches), strict=True):
            yield {"query": line, **answer}


def search_body(parts: list[dict[str, Any]], k: int, target: str, filter: Any) -> dict[str, Any]:
    """One search of a call."""
    return {"query": parts, "k": k, "target": target, **({} if filter is None else {"filter": filter})}


def group_lines(lines: Iterable[str], k: int) -> Iterator[list[tuple[str, list[dict[str, Any]]]]]:
    """The lines with their parts, as many together as one call may hold."""
    most = min(MAX_SEARCHES, max(MIN_SEARCHES, MAX_HITS // max(k, 1)))
    group: list[tuple[str, list[dict[str, Any]]]] = []
    size = 0
    for line in (line.strip() for line in lines):
        if not line:
            continue
        parts = [{"text": text, "weight": weight} for text, weight in parse_weighted_query(line)] or [{"text": line}]
        if group and (len(group) == most or size + len(parts) > MAX_PARTS):
            yield group
            group, size = [], 0
        group.append((line, parts))
        size += len(parts)
    if group:
        yield group


def print_answers(client: Client, file: str, k: int, target: str, only: str | None) -> int:
    """Print the answer of each line of a file as JSON; returns 1 if one was refused, else 0.

    Raises BadParameter for a filter that is not JSON, ServerError for a file that cannot be read.
    """
    try:
        filter = None if only is None else json.loads(only)
    except (ValueError, RecursionError):
        raise click.BadParameter("it is not JSON", param_hint="--filter") from None
    refused = False
    try:
        with click.open_file(file, encoding="utf-8") as lines:
            for answer in search_lines(client, lines, k, target, filter):
                refused |= "error" in answer
                click.echo(json.dumps(answer, ensure_ascii=False))
    except BrokenPipeError:  # who reads our answers has had enough
        raise
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ServerError(f"{file} cannot be read: {why}") from None
    return int(refused)
