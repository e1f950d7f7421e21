"""Prints answers of the server for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from app.cli.upload import MAX_SHOWN, escape, failure_table
from app.core.types import DEFAULT_COLLECTION
from app.encoder.catalogue import CATALOGUE, NAME_FORMS


def show_hits(found: dict[str, Any], console: Console) -> None:
    table = Table("score", "id", "what")
    for hit in found["hits"]:
        table.add_row(f"{hit['score']:.3f}", hit["id"], escape(hit_text(hit)))
    console.print(table)
    took = found["took_ms"]["total"]
    console.print(f"{len(found['hits'])} of {found['searched']} {found['target']} in {took:.1f} ms")


def show_matches(matches: dict[str, Any], console: Console) -> None:
    """The number of pictures that match a filter, and some of them."""
    count = matches["matched"]
    console.print(f"{count} picture matches" if count == 1 else f"{count} pictures match")
    if matches["examples"]:
        table = Table("id", "added", "what")
        for image in matches["examples"]:
            table.add_row(image["id"], image["created_at"], escape(str(image["caption"] or image["source"] or "")))
        console.print(table)
        if count > len(matches["examples"]):
            console.print(f"and {count - len(matches['examples'])} more")


def hit_text(hit: dict[str, Any]) -> str:
    """The text of a hit, or the caption or source of its picture."""
    if hit["text"] is not None:
        return str(hit["text"]["text"])
    image = hit["image"] or {}
    return str(image.get("caption") or image.get("source") or "")


def show_jobs(found: list[dict[str, Any]], console: Console) -> None:
    id_column = Column("job", no_wrap=True, min_width=32)  # so that people can copy the id
    table = Table(id_column, "kind", "state", "done", "begun", box=SIMPLE_HEAD)
    for job in found:
        done = f"{job['done'] + job['duplicates']} of {job['total']}"
        failed = f", {job['failed']} failed" if job["failed"] else ""
        begun = job["created_at"][5:16].replace("T", " ")
        table.add_row(job["id"], escape(job["kind"]), job["state"], done + failed, begun)
    console.print(table)


def show_failed(items: Iterable[dict[str, Any]], count: int, console: Console) -> None:
    """A table of the first items that failed, with the reasons."""
    table = failure_table(islice(items, MAX_SHOWN))
    if table.row_count:
        console.print(table)
    if count > table.row_count:
        console.print(f"and {count - table.row_count} more; --report writes all of them")


def show_collections(found: list[dict[str, Any]], console: Console) -> None:
    table = Table("collection", "images", "texts", "model", "description")
    for one in found:
        model = one["space"]["model"] if one["space"] else ""
        table.add_row(one["name"], str(one["images"]), str(one["texts"]), model, escape(one["description"]))
    console.print(table)


def show_status(ready: dict[str, Any], stats: dict[str, Any], console: Console) -> None:
    """Health, counts, model and indexes, a line each."""
    if ready["reasons"]:
        console.print("not ready: " + escape("; ".join(ready["reasons"])))
    else:
        console.print("ready" if ready["status"] == "ok" else "ready, but a check fails")
    for check in ready["checks"]:
        if not check["ok"]:
            console.print(f"fault   {check['name']}: {escape(check['detail'])}")
    images = stats["images"]
    if stats["collection"] != DEFAULT_COLLECTION:
        console.print(f"of      {stats['collection']}")
    console.print(
        f"images  {images['total']} ({images['ready']} ready, {images['queued']} queued,"
        f" {images['processing']} processing, {images['failed']} failed)"
    )
    console.print(f"texts   {stats['texts']}")
    if stats["model"]:
        model = stats["model"]
        console.print(f"model   {model['name']} on {model['device']}, d {model['d']}, space {model['space']}")
    for target, index in (stats["index"] or {}).items():
        console.print(f"index   {target}: {index['ntotal']} vectors, {index['kind']}, lag {index['lag']}")


def show_models(console: Console) -> None:
    """The models of the catalogue, three lines each: a table of 80 columns is too narrow for them."""
    for model in CATALOGUE:
        name = f"{model.name}  (or {', '.join(model.names)})" if model.names else model.name
        facts = [f"knows {model.knows}"] if model.knows != "unknown" else []
        facts += [f"languages {model.languages}"]
        facts += [f"{model.max_tokens} tokens"] if model.max_tokens else []
        facts += [f"download {model.download} MB"] if model.download else []
        facts += [f"{model.parameters:g} M parameters", f"{model.memory} MiB"] if model.parameters else []
        facts += [f"d {model.d}", model.licence]
        facts += [f"recall {model.recall:.3f}"] if model.recall else []
        console.print(
            f"{name}\n    {model.note}\n    {' · '.join(facts)}", markup=False, highlight=False, soft_wrap=True
        )
    console.print(
        "\ntokens: how much of a text it reads; a short word is one. MiB: weights in bf16. d: width of a vector."
        " recall: of MS COCO's captions, the share whose picture is among the first five, as open_clip publishes it.\n"
    )
    for form, meaning in NAME_FORMS:
        console.print(f"{form:24}{meaning}", markup=False)


def show_progress(console: Console) -> Callable[[Sequence[Any], str], Iterable[Any]]:
    """A bar that shows how much of some work is done."""
    return partial(track, console=console, transient=True)


def show_faults(faults: list[tuple[str, str, str]], console: Console) -> None:
    """What `sightline verify` found, and what to do about each kind of it."""
    from app.storage.verify import REMEDIES

    if not faults:
        console.print("everything agrees: each picture has its bytes, each ready picture and text its vector")
        return
    table = Table("what", "which", "why")
    for fault in faults:
        table.add_row(*fault)
    console.print(table)
    console.print(f"{len(faults)} faults")
    for what in dict.fromkeys(what for what, _, _ in faults):
        console.print(f"[bold]{what}[/bold]: {REMEDIES[what]}", highlight=False)
