"""`sightline labels`: shows, sets and applies the labels of a collection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from app.cli import ServerError
from app.cli.client import Client
from app.cli.evaluate import follow_task
from app.cli.output import print_rows, show_warnings

BASES = {
    "pairs": "each label by itself",
    "shares": "the share of a label among all",
    "none": "nothing tells them yet, so nothing is tagged",
}


def read_labels(path: Path) -> dict[str, Any]:
    """The body of a call: that of a JSON file, or a label for each line. Raises ServerError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    if path.suffix.lower() == ".json":
        try:
            said = json.loads(text)
        except ValueError as error:
            raise ServerError(f"{path} is no JSON: {error}") from None
        return said if isinstance(said, dict) else {"labels": said}
    lines = [line.strip() for line in text.splitlines()]
    return {"labels": [{"label": line} for line in lines if line and not line.startswith("#")]}


def set_labels(client: Client, path: Path, threshold: float | None, console: Console) -> None:
    """Replace the labels by those of a file, and wait until what is there is tagged by them. Raises ServerError."""
    body = read_labels(path) | ({} if threshold is None else {"threshold": threshold})
    answer = client.set_labels(body)
    if answer["job"] is not None:
        follow(client, client.job(answer["job"]), console)
    show_labels(client.labels(), console)


def apply_labels(client: Client, console: Console) -> None:
    """Tag what is there again, and wait for the end. Raises ServerError."""
    follow(client, client.apply_labels(), console)


def follow(client: Client, job: dict[str, Any], console: Console) -> None:
    ended = follow_task(client, job, "tagging", Console(stderr=True))
    if error := ended.get("error"):
        raise ServerError(error["detail"])
    result = ended["result"]
    console.print(f"{result['tagged']} of {result['pictures']} pictures have auto-tags", markup=False, highlight=False)


def show_labels(found: dict[str, Any], console: Console) -> None:
    """A table of the labels; a pipe gets label, threshold and count, with tabs between."""
    rows = [[one["label"], f"{one['threshold']:g}", str(one["tagged"])] for one in found["labels"]]
    print_rows(console, ("label", "threshold", "pictures"), rows, rows)
    if found["basis"] is not None and console.is_terminal:
        console.print(f"probabilities: {BASES.get(found['basis'], found['basis'])}", markup=False, highlight=False)
    show_warnings(found)
