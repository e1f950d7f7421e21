"""`sightline camera-data`: read the camera data of pictures that are stored already."""

from __future__ import annotations

import time

from rich.console import Console

from app.cli import ServerError
from app.cli.client import Client

LOOK_SECONDS = 0.5  # between two looks at the job
UNFINISHED = ("queued", "running", "paused")


def read_camera_data(client: Client, *, again: bool) -> str:
    """Wait for the end of the job; returns what it did. Raises ServerError."""
    job = client.read_camera_data(again)
    with Console(stderr=True).status("reading camera data") as shown:
        while job["state"] in UNFINISHED:
            time.sleep(LOOK_SECONDS)
            job = client.job(job["id"])
            shown.update(f"reading camera data: {job['done']} of {job['total']}")
    if job["state"] != "succeeded":
        reason = (job.get("error") or {}).get("detail") or f"it is {job['state']}"
        raise ServerError(f"the camera data were not read to the end: {reason}")
    result = job["result"]
    lost = f", {result['unreadable']} of them unreadable" if result["unreadable"] else ""
    return f"{result['pictures']} pictures read{lost}"
