"""`sightline teach`: has the server teach a collection a head, and shows what it brought."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from app.cli import ServerError
from app.cli.client import Client
from app.cli.evaluate import follow_task
from app.cli.evaluation_report import DIRECTIONS, cells, list_recalls
from app.cli.output import print_rows
from app.sources.pairs import CAPTIONS, PAIRS_PREFIX


def teach(client: Client, pairs: str | None, request: Mapping[str, Any], console: Console, *, as_json: bool) -> int:
    """Teach, show the figures, and return the exit code: 1 where the head was refused. Raises ServerError."""
    path: Path | None = None
    if pairs is None or pairs.startswith(PAIRS_PREFIX):
        request = {**request, "source": pairs or CAPTIONS}
    else:
        path = Path(pairs)
    job = follow_task(client, client.begin_task("/v1/heads", request, path), "teaching", Console(stderr=True))
    error, result = job.get("error"), job.get("result") or {}
    if error and error["code"] != "head_refused":
        raise ServerError(error["detail"])
    if as_json:
        click.echo(json.dumps({**result, "error": error}, ensure_ascii=False, indent=2))
    elif "text_to_image" in result:
        show_figures(result, console)
    if error:
        click.echo(f"sightline: {error['detail']}", err=True)
        return 1
    if not as_json:
        click.echo(describe_outcome(result, request))
    return 0


def show_figures(result: Mapping[str, Any], console: Console) -> None:
    """Both directions without and with the head, on the pairs that were held out."""
    ks = list_recalls(result["text_to_image"]["before"])
    console.print(
        f"{result['model']}: taught by {result['texts']} texts of {result['pictures']} pictures; on those held out:",
        markup=False,
        highlight=False,
    )
    rows = [
        [f"{title}, {when}", *cells(result[direction][name], ks)]
        for direction, title in DIRECTIONS.items()
        for name, when in (("before", "without"), ("after", "with it"))
    ]
    print_rows(console, ("", "held out", *ks, "median rank"), rows, rows)


def describe_outcome(result: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    low, high = result["confidence"]
    gain = f"R@10 of texts rises by {result['gain']:.1%} ({low:.1%} to {high:.1%} with 95 % confidence)"
    if request.get("dry_run"):
        return f"{gain}; no head was kept (--dry-run)"
    if not request.get("take_on", True):
        return f"{gain}; the head {result['head']} is kept, and not used yet"
    return f"{gain}; the collection uses the head {result['head']}"
