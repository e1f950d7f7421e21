"""`sightline reembed --live`: has a running server change its model, and follows the job."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import Progress

from app.cli import ServerError
from app.cli.client import Client

POLL_SECONDS = 0.5
GIB = 1 << 30


def reembed_live(client: Client, model: str, precision: str | None, console: Console, *, dry_run: bool) -> None:
    """Follow the job to its end. Raises ServerError when it fails or is cancelled."""
    job = client.reembed(model, precision, dry_run=dry_run)
    console.print(f"job {job['id']}", markup=False, soft_wrap=True)
    has_plan = False
    with Progress(console=console, transient=True) as bar:
        encoding = bar.add_task("encoding", total=None)
        while job["state"] in ("queued", "running", "paused"):
            time.sleep(POLL_SECONDS)
            job = client.job(job["id"])
            if not has_plan and (has_plan := "vector_bytes" in (job.get("result") or {})):
                console.print(describe_plan(job["result"]), markup=False, soft_wrap=True)
            bar.update(encoding, total=job["total"] or None, completed=job["done"])
    if job["state"] != "succeeded":
        reason = (job.get("error") or {}).get("detail") or job["state"]
        raise ServerError(f"the model was not changed: {reason}")
    console.print(describe_end(job["result"], dry_run=dry_run), markup=False, soft_wrap=True)


def describe_plan(plan: Mapping[str, Any]) -> str:
    """What the change costs."""
    memory = plan["memory_bytes"]
    lines = [
        f"from {plan['present_model']} to {plan['model']} (d {plan['d']}): {plan['pictures']:,} pictures,"
        f" {plan['texts']:,} texts",
        f"disk: {format_bytes(plan['vector_bytes'])} of vectors, {format_bytes(plan['model_bytes'])} of the model;"
        f" {format_bytes(plan['free_bytes'])} are free",
    ]
    if memory is not None and plan["free_memory_bytes"] is not None:
        lines.append(f"memory: at least {format_bytes(memory)}; {format_bytes(plan['free_memory_bytes'])} are free")
    if plan["precomputed"]:
        lines.append(
            f"{plan['precomputed']:,} waiting pictures came with a vector of {plan['present_model']}, which is not used"
        )
    return "\n".join(lines)


def describe_end(result: Mapping[str, Any], *, dry_run: bool) -> str:
    if not dry_run:
        again = result.get("queued_again")
        more = f"; {again:,} pictures could not be encoded and wait for a worker" if again else ""
        return f"searches are answered by {result['model']} now{more}; set --model {result['model']} for the next start"
    rate, minutes = result.get("pictures_per_second"), result.get("minutes")
    if rate is None:
        why = "the model is not downloaded yet" if result["pictures"] else "there is no picture to measure it by"
        return f"time: unknown, as {why}; nothing was changed"
    return f"time: about {minutes:g} minutes, at {rate:.1f} pictures a second; nothing was changed"


def format_bytes(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.1f} MiB"
