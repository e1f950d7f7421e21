"""`sightline duplicates`: search a collection for duplicates, list them, and delete all but the best of each group."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Column

from app.cli import ServerError
from app.cli.client import Client
from app.cli.output import print_rows, short_id

LOOK_SECONDS = 0.5  # between two looks at the job
MOST = 1_000  # ids of a filter
UNFINISHED = ("queued", "running", "paused")
Group = dict[str, Any]


def run_scan(client: Client) -> None:
    """Search for duplicates, and wait for the end; a search that runs already is followed. Raises ServerError."""
    running = client.duplicates("near", None, limit=1)["scan"]["job_id"]
    job = client.job(running) if running else client.find_duplicates()
    with Console(stderr=True).status("comparing the pictures") as shown:
        while job["state"] in UNFINISHED:
            time.sleep(LOOK_SECONDS)
            job = client.job(job["id"])
            shown.update(f"comparing the pictures: {job['done']} of {job['total']}")
    if job["state"] != "succeeded":
        reason = (job.get("error") or {}).get("detail") or f"it is {job['state']}"
        raise ServerError(f"the search for duplicates did not end: {reason}")


def show_groups(groups: Sequence[Group], console: Console) -> None:
    """A line for each picture: its group, its distance to the best one, which comes first, and its size."""
    rows, piped = [], []
    for n, group in enumerate(groups, 1):
        for one in group["images"]:
            image = one["image"]
            size, distance = f"{image['width']} x {image['height']}", f"{one['distance']:g}"
            kept = "best" if one is group["images"][0] else distance
            what = str(image["source"] or image["caption"] or "")
            rows.append((str(n), kept, size, str(image["bytes"]), what, short_id(one["id"], console)))
            measured = (str(image["width"]), str(image["height"]), str(image["bytes"]))
            piped.append((str(n), distance, *measured, one["id"], what))
    header = ("group", "distance", "size", "bytes", Column("what", overflow="fold"), Column("id", no_wrap=True))
    print_rows(console, header, rows, piped)


def merge_attributes(group: Group) -> dict[str, Any]:
    """What the best picture lacks and the others have: a caption, tags and metadata."""
    best, *others = [one["image"] for one in group["images"]]
    merged: dict[str, Any] = {}
    captions = [image["caption"] for image in others if image["caption"]]
    if not best["caption"] and captions:
        merged["caption"] = captions[0]
    tags = list(dict.fromkeys(tag for image in (best, *others) for tag in image["tags"]))
    if tags != best["tags"]:
        merged["tags"] = tags
    metadata: dict[str, Any] = {}
    for image in (best, *others):
        metadata = image["metadata"] | metadata
    if metadata != best["metadata"]:
        merged["metadata"] = metadata
    return merged


def delete_others(client: Client, groups: Sequence[Group]) -> int:
    """Keep the best of each group, which gets the attributes that it lacks; returns how many pictures were deleted."""
    for group in groups:
        if merged := merge_attributes(group):
            client.update_image(group["images"][0]["id"], merged)
    others = [one["id"] for group in groups for one in group["images"][1:]]
    parts = (others[start : start + MOST] for start in range(0, len(others), MOST))
    return sum(client.delete({"has_id": ids}, dry_run=False)["deleted"] for ids in parts)


def confirm_deletion(groups: Sequence[Group], *, yes: bool, is_interactive: bool) -> None:
    """Ask before the others are deleted, unless `yes`. Raises click.UsageError where nobody can be asked."""
    if not yes and not is_interactive:
        raise click.UsageError("the command deleted nothing: it has no terminal to ask on; confirm with --yes")
    if not yes:
        count = sum(len(group["images"]) - 1 for group in groups)
        click.confirm(f"Keep the best of {len(groups)} groups, and delete the other {count}?", abort=True)
