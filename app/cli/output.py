"""Prints answers of the server for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from app.core.clock import format_time
from app.core.types import DEFAULT_COLLECTION
from app.encoder.catalogue import CATALOGUE, FIGURES, NAME_FORMS

if TYPE_CHECKING:
    from app.cli.local_files import Failure
    from app.encoder.int8 import Int8Report

SHADES = " ░▒▓█"
PLACES = {
    "good": "the dark part met the words",
    "weak": "perhaps the dark part met the words",
    "none": "the model does not know which part met the words",
}
MAX_SHOWN = 50  # items that failed
Row = Sequence[str]


def print_rows(console: Console, header: Sequence[str | Column], rows: Iterable[Row], piped: Iterable[Row]) -> None:
    """A table on a terminal; elsewhere a line for each row of `piped`, with tabs between, for other programs."""
    if not console.is_terminal:
        for row in piped:
            console.file.write("\t".join(clean(cell) for cell in row) + "\n")
        return
    table = Table(*header, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def clean(text: str) -> str:
    """A cell of a line: no tabs, ends of lines and other control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def short_id(id: str, console: Console) -> str:
    """An id as people see it: the first of many hexadecimal digits. A pipe gets the whole."""
    return id[:8] if console.is_terminal and re.fullmatch("[0-9a-f]{32}", id) else id


def escape(text: str) -> str:
    """Text of others without control characters, and without markup that rich would apply."""
    cleaned = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return cleaned.replace("[", "\\[")


def show_hits(found: dict[str, Any], console: Console) -> None:
    """The hits: base names first, whole paths and ids in a pipe."""
    rows = [hit_row(hit) for hit in found["hits"]]
    names = [name for name in ("name", "words", "folder", "found in") if any(row[name] for row in rows)]
    header: list[str | Column] = [
        "score",
        *(Column(name, overflow="fold") for name in names),
        Column("id", no_wrap=True),
    ]
    shown = ([row["score"], *(row[name] for name in names), short_id(row["id"], console)] for row in rows)
    piped = ([row[name] for name in ("score", "id", "path", "words")] for row in rows)
    print_rows(console, header, shown, piped)
    if console.is_terminal:
        took = found["took_ms"]["total"]
        console.print(f"{len(rows)} of {found['searched']} {found['target']} in {took:.1f} ms")


def hit_row(hit: dict[str, Any]) -> dict[str, str]:
    """The cells of a hit by their names."""
    image, text = hit["image"] or {}, hit["text"]
    path = image.get("source") or ""
    folder, _, name = path.rpartition("/")
    if isinstance(moment := image.get("t_ms"), int):
        name = f"{name} {format_time(moment / 1000)}"
    words = text["text"] if text is not None else image.get("caption") or ""
    return {
        "score": f"{hit['score']:.3f}",
        "id": hit["id"],
        "path": path,
        "name": name,
        "folder": folder,
        "words": words,
        "found in": ", ".join(hit.get("matched", ())),
    }


def print_paths(found: dict[str, Any]) -> None:
    """The paths of the pictures alone, as they were when these were loaded."""
    paths = [str(hit["image"]["source"]) for hit in found["hits"] if hit["image"] and hit["image"]["source"]]
    for path in paths:
        click.echo(clean(path))
    if nameless := len(found["hits"]) - len(paths):
        click.echo(f"{nameless} of the hits have no path", err=True)


def show_hint(hint: str | None) -> None:
    """What people should know of the model, on standard error."""
    if hint:
        click.echo(f"model: {clean(hint)}", err=True)


def show_warnings(found: dict[str, Any]) -> None:
    """What the server warns of, on standard error."""
    for warning in found.get("warnings", ()):
        click.echo(f"warning: {clean(warning['detail'])}", err=True)


def show_reading(answer: dict[str, Any]) -> None:
    """Say what is odd about the query, and which of its words were taken as a time."""
    show_warnings(answer)
    if time := answer["applied"].get("time"):
        days = f"from {time['from'] or 'the first'} to {time['to'] or 'the last'}"
        click.echo(f'"{time["text"]}" is taken as the time {days}; in quotes it is searched for', err=True)


def show_verdict(found: dict[str, Any]) -> None:
    """A line on standard error where nothing fits."""
    if (found.get("verdict") or {}).get("match") == "none":
        click.echo("nothing fits well; nearest:" if found["hits"] else "nothing fits", err=True)


def show_answers(found: dict[str, Any], console: Console) -> None:
    """The answers to a question, likeliest first; what has answered, and warnings, go to standard error."""
    rows = [(f"{one['probability']:.3f}", one["answer"]) for one in found["answers"]]
    print_rows(console, ("probability", "answer"), rows, rows)
    click.echo(f"answered by the {found['by']} {clean(found['model'])}", err=True)
    for warning in found.get("warnings", ()):
        click.echo(f"warning: {clean(warning['detail'])}", err=True)


def show_explanation(found: dict[str, Any], console: Console) -> None:
    """Where a picture met words, as shades, and the words with their weights; what it means goes to standard error."""
    if found["verdict"]["match"] != "none":
        for row in found["heat"]:
            click.echo("".join(SHADES[min(len(SHADES) - 1, int(max(0.0, heat) * len(SHADES)))] * 2 for heat in row))
    rows = [("" if one["weight"] is None else f"{one['weight']:+.3f}", one["text"]) for one in found["words"]]
    print_rows(console, ("weight", "word"), rows, rows)
    click.echo(PLACES.get(found["verdict"]["match"], ""), err=True)
    for warning in found.get("warnings", ()):
        click.echo(f"warning: {clean(warning['detail'])}", err=True)


def show_matches(matches: dict[str, Any], console: Console) -> None:
    """The number of pictures that match a filter, and some of them."""
    count = matches["matched"]
    console.print(f"{count} picture matches" if count == 1 else f"{count} pictures match")
    if matches["examples"]:
        rows = [
            (short_id(image["id"], console), image["created_at"], str(image["caption"] or image["source"] or ""))
            for image in matches["examples"]
        ]
        print_rows(console, ("id", "added", "what"), rows, rows)
        if count > len(matches["examples"]):
            console.print(f"and {count - len(matches['examples'])} more")


def show_jobs(found: list[dict[str, Any]], console: Console) -> None:
    rows = []
    for job in found:
        done = f"{job['done'] + job['duplicates']} of {job['total']}" if job["total"] or not job.get("result") else ""
        failed = f", {job['failed']} failed" if job["failed"] else ""
        begun = job["created_at"][5:16].replace("T", " ")
        name = job.get("name") or job["kind"]
        rows.append((name, job["state"], done + failed, begun, short_id(job["id"], console)))
    numbers = ("total", "done", "duplicates", "failed")
    piped = (
        (
            *(job[name] for name in ("id", "kind", "state")),
            *(str(job[name]) for name in numbers),
            job["created_at"],
            job.get("name") or "",
        )
        for job in found
    )
    header = (Column("name", overflow="fold"), "state", "done", "begun", Column("job", no_wrap=True))
    print_rows(console, header, rows, piped)


def show_result(job: dict[str, Any], console: Console) -> None:
    """What came of a task, and why it failed; nothing for an import."""
    if error := job.get("error"):
        console.print(f"failed  {error['detail']}", highlight=False, soft_wrap=True, markup=False)
    if job.get("result"):
        console.print_json(data=job["result"])


def show_failed_jobs(newest: Sequence[dict[str, Any]], console: Console) -> None:
    """How many items of the newest jobs failed: a file that is no picture is counted there alone."""
    failed = [job for job in newest if job["failed"]]
    if failed:
        count, id = sum(job["failed"] for job in failed), short_id(failed[0]["id"], console)
        items = "1 item" if count == 1 else f"{count} items"
        console.print(
            f"jobs    {items} failed; `sightline job {id} --failed` says why", highlight=False, soft_wrap=True
        )


def show_failed(items: Iterable[dict[str, Any]], count: int, console: Console) -> None:
    """The first items that failed, with the reasons."""
    shown = list(islice(items, MAX_SHOWN))
    if shown:
        show_failures(shown, console)
    if count > len(shown):
        console.print(f"and {count - len(shown)} more; --report writes all of them")


def show_failures(items: Sequence[Failure], console: Console) -> None:
    """Items that failed, with the reasons."""
    rows = [
        (item["name"], (item["error"] or {}).get("code", ""), (item["error"] or {}).get("detail", "")) for item in items
    ]
    print_rows(console, (Column("item", overflow="fold"), "code", "why"), rows, rows)


def show_collections(found: list[dict[str, Any]], console: Console) -> None:
    rows = [
        (
            one["name"],
            str(one["images"]),
            str(one["texts"]),
            one["space"]["model"] if one["space"] else "",
            one["description"],
        )
        for one in found
    ]
    print_rows(console, ("collection", "images", "texts", "model", "description"), rows, rows)


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
    for space in stats.get("spaces", ()):
        if space["state"] == "filling":
            done = f"{space['done']} of {space['total']}"
            console.print(f"next    {space['model']}: {done} encoded by the job {space['job']}", highlight=False)
    for kind, now in stats.get("enrichments", {}).items():
        given_up = f", {now['failed']} given up" if now["failed"] else ""
        console.print(f"{kind:7} {now['done']} pictures done, {now['waiting']} wait{given_up}", highlight=False)
    for member in stats.get("cluster") or ():
        duties = f", does {', '.join(member['duties'])}" if member["duties"] else ""
        line = f"{member['kind']:7} {member['host']}, process {member['pid']}, since {member['since']}{duties}"
        console.print(escape(line), highlight=False, soft_wrap=True)
    for target, index in (stats["index"] or {}).items():
        console.print(f"index   {target}: {index['ntotal']} vectors, {index['kind']}, lag {index['lag']}")


def show_watches(watches: Sequence[dict[str, Any]], console: Console) -> None:
    """Watched folders, a line each, and what somebody should look at."""
    for watch in watches:
        counts = f"{watch['files']} files" + (f", {watch['failed']} not accepted" if watch["failed"] else "")
        scanned = f", scanned {watch['scanned_at']}" if watch["scanned_at"] else ""
        line = f"watched {watch['source']}: {watch['state']}, {counts}{scanned} ({watch['id']})"
        console.print(escape(line), highlight=False, soft_wrap=True)
        if watch["fault"]:
            console.print(f"fault   {escape(watch['fault'])}", highlight=False, soft_wrap=True)


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
        figures = [f"{title} {value:.3f}" for field, title in FIGURES.items() if (value := getattr(model, field))]
        lines = [name, model.note, " · ".join(facts)]
        lines += [f"{' · '.join(figures)} ({model.source})"] if figures else []
        console.print("\n    ".join(lines), markup=False, highlight=False, soft_wrap=True)
    console.print(
        "\ntokens: how much of a text it reads; a short word is one. MiB: weights in bf16. d: width of a vector."
        " R@k: of the captions of a public set, the share whose picture is among the first k, as its source says.\n"
    )
    for form, meaning in NAME_FORMS:
        console.print(f"{form:24}{meaning}", markup=False)


def show_progress(console: Console) -> Callable[[Sequence[Any], str], Iterable[Any]]:
    """A bar that shows how much of some work is done."""
    return partial(track, console=console, transient=True)


def show_int8_report(report: Int8Report, console: Console) -> None:
    """How a model in int8 compares with the same in 16 bits, and what that means for an index."""
    table = Table("int8, calibrated on", report.calibrated_on)
    first = "captions whose own picture is among the first ten"
    table.add_row(f"judged by the captions of {report.judged_by}", f"{report.captions:,}")
    table.add_row(f"{first}, 16 bits", f"{report.recall_before:.3f}")
    table.add_row(f"{first}, int8", f"{report.recall:.3f} ({report.ratio:.3f} of it)")
    table.add_row(f"{first}, every other picture in int8", f"{report.recall_mixed:.3f}")
    table.add_row(
        "cosine of both vectors of a picture: mean, 5th percentile", f"{report.cosine_mean:.4f}, {report.cosine_p5:.4f}"
    )
    table.add_row("pictures a second, batches of 32", f"{report.speed:.2f} times as many")
    console.print(table)
    if report.is_same_space:
        console.print("an index made with the model in 16 bits stays valid: both give the same vectors")
    else:
        console.print("the vectors differ from those in 16 bits: an index must be made anew (`sightline reembed`)")


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
