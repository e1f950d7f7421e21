"""The `sightline` command. Each command reads its settings and calls one function, which it imports only then."""

from __future__ import annotations

import json
import logging
import sys
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app import __version__
from app.cli import ServerError
from app.cli.options import load_settings, parse_json, parse_pairs, read_settings, setting_options
from app.core.errors import SightlineError, StartupError
from app.core.settings import Settings, find_unknown_variables

if TYPE_CHECKING:
    from rich.console import Console

    from app.cli.client import Client

log = logging.getLogger(__name__)

PLACE_OPTIONS = ("database", "media", "cache_dir", "shared_media")
DATA_OPTIONS = ("data_dir", "model", "precision", "runtime", "device", "threads", "decoders", "batch_size")
SOURCE_OPTIONS = ("embeddings_of", "pictures", "key_as_id", "columns")  # by their names in a request
CLIENT_OPTIONS = ("server", "key", "key_file", "ca_file")
LOG_OPTIONS = ("log_level", "log_format")
ARRANGED_OPTIONS = ("offset", "order_by", "group_by", "collapse", "like", "unlike")  # as the server calls them
WATCH_ACTIONS = ("pause", "resume", "scan", "confirm")
ACTIONS = ("pause", "resume", "cancel", "retry")


def examples(*lines: str) -> str:
    """The end of a help text: command lines with what they do."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class Commands(click.Group):
    """Prints every expected failure as one line on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SightlineError, ServerError) as error:
            click.echo(f"sightline: {getattr(error, 'detail', error)}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        "sightline serve --data-dir photos      serve a new or existing data directory",
        "sightline ingest ~/Pictures            load a folder into it",
        "sightline search red car               find pictures by words",
        "sightline search cat.jpg               find pictures like this one",
    ),
)
@click.version_option(__version__, prog_name="sightline")
def main() -> None:
    """Search pictures by words or by a picture, and texts by a picture.

    Start a server, load pictures, and search them from another terminal. Every option can also be set in the
    environment; `sightline COMMAND --help` names the variables.
    """


@main.command(short_help="Serve a data directory over HTTP.")
@setting_options(
    "host",
    "port",
    "immich_port",
    "immich_host",
    "insecure",
    "allowed_hosts",
    *PLACE_OPTIONS,
    *DATA_OPTIONS,
    "served_names",
    "index",
    "workers",
    "formats",
    "ocr",
    "captioner",
    "captioner_model",
    *LOG_OPTIONS,
)
def serve(**given: Any) -> None:
    """Serve a data directory over HTTP, with workers that import and embed pictures."""
    settings = start_logging(given)  # before the large imports: a wrong setting fails at once
    from app.api.server import serve as run
    from app.core.tracing import send_spans

    with send_spans("sightline", on=settings.is_tracing_on):
        run(settings)


@main.command(
    short_help="Run more workers on a data directory or a cluster.",
    epilog=examples(
        "sightline worker --data-dir photos                                     one more, beside a server",
        "sightline worker --database postgresql://... --workers 4 --device cuda    those of a GPU machine",
    ),
)
@setting_options(
    *PLACE_OPTIONS, *DATA_OPTIONS, "workers", "formats", "ocr", "captioner", "captioner_model", *LOG_OPTIONS
)
@click.option("--parent", type=int, default=None, hidden=True, help="End when this process ends.")
def worker(parent: int | None, **given: Any) -> None:
    """Import and embed pictures, beside a server or without one.

    With --workers N it keeps N processes running. In a cluster it also starts the processes of the second passes
    (--ocr, --captioner) that the servers have.
    """
    settings = start_logging(given, warn=parent is None)
    if not settings.is_cluster and given["workers"] is None:  # the variable is for the server of the data directory
        settings = settings.model_copy(update={"workers": 1})
    from app.core.tracing import send_spans
    from app.worker.main import needs_supervisor, run_worker, run_workers

    if parent is None and needs_supervisor(settings):
        run_workers(settings)
        return
    with send_spans("sightline-worker", on=settings.is_tracing_on):
        run_worker(settings, parent)


@main.command(
    short_help="Load pictures, folders, archives and tables.",
    epilog=examples(
        "sightline ingest ~/Pictures                         a folder with its subfolders",
        "sightline ingest cat.jpg trip.zip shop.csv          a picture, an archive, a table",
        "sightline ingest ~/Pictures --exclude '*_thumb.*'   without some files",
        "sightline ingest --urls list.txt                    URLs, which the server fetches",
    ),
)
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option(
    "--urls", type=click.Path(allow_dash=True), help="Load the URLs of this file, one on each line, or one JSON object."
)
@click.option("--embeddings-of", metavar="FINGERPRINT", help="clip-retrieval: the embedding space of its vectors.")
@click.option(
    "--pictures", metavar="FOLDER", help="clip-retrieval: the folder on the server where the pictures are now."
)
@click.option(
    "--key-as-id", is_flag=True, default=None, help="webdataset: use the key of a sample as the id of its picture."
)
@click.option(
    "--column", "columns", multiple=True, callback=parse_pairs, metavar="ROLE=NAME", help="table: the column of a role."
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Leave out files and folders of this name, as *_thumb.jpg or raw; may be repeated.",
)
@setting_options(*CLIENT_OPTIONS, "collection")
def ingest(paths: tuple[str, ...], urls: str | None, exclude: tuple[str, ...], **given: Any) -> None:
    """Load pictures, folders, archives and tables into a running server.

    A file cat.txt beside cat.jpg is its caption, and cat.json holds its metadata. The command counts what it leaves
    out, and does not send what the server already has, so that it can be run again at any time.

    PATH may be - to read paths from standard input, or name a place that the server reads itself (folder:/photos).
    The exit code is 0 when everything was loaded, 1 when something could not be read or loaded (a table says what and
    why), and 2 when the server cannot be reached or refuses.
    """
    from app.cli.output import show_hint
    from app.cli.upload import ingest_paths, ingest_urls

    if bool(paths) == (urls is not None):
        raise click.UsageError("give either paths or --urls")
    if exclude and urls is not None:
        raise click.UsageError("--exclude belongs to paths, not to --urls")
    options = {name: given[name] for name in SOURCE_OPTIONS if given[name] is not None}
    if options and urls is not None:
        raise click.UsageError(f"these options belong to paths, not to --urls: {', '.join(options)}")
    with open_client(given) as client:
        show_hint(client.model_hint())
        if urls is None:
            sys.exit(ingest_paths(client, paths, new_console(), options, exclude))
        try:
            with click.open_file(urls, "rb") as file:
                sys.exit(ingest_urls(client, file, new_console()))
        except OSError as error:
            raise ServerError(f"{urls} cannot be read: {error.strerror}") from None


@main.command(
    short_help="Keep a collection equal to folders.",
    epilog=examples(
        "sightline watch ~/Pictures                 until Ctrl-C",
        "sightline watch ~/Pictures --once          apply what differs now, as a cron job does",
        "sightline watch /mnt/nas --poll 60         a network drive: look every minute",
        "sightline watch folder:/photos             a folder that the server watches itself",
    ),
)
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True)
@click.option("--once", is_flag=True, help="Apply what differs now, and end; the exit code is 1 if something is left.")
@click.option("--keep", is_flag=True, help="Keep the pictures of files that are deleted.")
@click.option("--poll", type=click.FloatRange(1, 86_400), help="Scan every so many seconds; do not ask the kernel.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Leave out files and folders of this name, as *_thumb.jpg or raw; may be repeated.",
)
@click.option("--name", metavar="NAME", help="The name by which the server knows the folder (host and path).")
@click.option("--allow-mass-delete", is_flag=True, help="Delete the pictures of many files at once, too.")
@setting_options(*CLIENT_OPTIONS, "collection", "rescan_seconds")
def watch(
    folders: tuple[str, ...],
    once: bool,
    keep: bool,
    poll: float | None,
    exclude: tuple[str, ...],
    name: str | None,
    allow_mass_delete: bool,
    **given: Any,
) -> None:
    """Keep the pictures of a collection equal to folders: what is new, changed, renamed or deleted there is so here.

    A renamed file keeps the id, caption and tags of its picture. A folder that is not there, or is empty at once,
    deletes nothing: the server holds such deletions until --allow-mass-delete or `sightline watches --confirm` says
    that they are meant. The command can be killed and started again at any time. FOLDER may also name a folder that
    the server reads itself (folder:/photos); it watches that from now on.
    """
    from app.cli.upload import is_source
    from app.cli.watch import WatchCommand, watch_folders, watch_source
    from app.sources.watched_folder import WatchOptions

    rescan = load_settings(given).rescan_seconds
    options = WatchOptions(tuple(exclude), True, poll, rescan, allow_mass_delete)
    command = WatchCommand(options, name, "keep" if keep else "mirror", once)
    sources = [folder for folder in folders if is_source(folder)]
    with open_client(given) as client:
        for source in sources:
            watch_source(client, source, command)
    if local := [Path(folder) for folder in folders if folder not in sources]:
        sys.exit(watch_folders(lambda: open_client(given), local, command))


@main.command(short_help="List the watched folders, and act on one.")
@click.option("--pause", metavar="ID", help="Apply nothing of this folder until it is resumed.")
@click.option("--resume", metavar="ID", help="Go on with this folder.")
@click.option("--scan", metavar="ID", help="Let the server look at every file of this folder now.")
@click.option("--confirm", metavar="ID", help="Delete the pictures whose deletion is held.")
@click.option("--remove", metavar="ID", help="Watch this folder no more; its pictures stay.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
def watches(remove: str | None, as_json: bool, **given: Any) -> None:
    """List the watched folders of a collection; or pause, resume, scan, confirm or remove one."""
    from app.cli.output import show_watches

    actions = {name: given.pop(name) for name in WATCH_ACTIONS}
    asked = {name: id for name, id in actions.items() if id is not None}
    if len(asked) + (remove is not None) > 1:
        raise click.UsageError("do one thing at a time")
    with open_client(given) as client:
        if remove is not None:
            client.remove_watch(remove)
            return
        found = [client.control_watch(id, name) for name, id in asked.items()] or client.watches()
    if as_json:
        print_json({"watches": found})
    else:
        show_watches(found, new_console())


@main.command(
    short_help="Search by words, or by a picture.",
    epilog=examples(
        "sightline search red car                    ten pictures of red cars",
        "sightline search cat.jpg                    pictures like this one",
        "sightline search 'beach -people' -k 50      beaches without people",
        "sightline search cat --paths | xargs ls -l  what other programs can use",
    ),
)
@click.argument("words", metavar="WORDS|FILE", nargs=-1)
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Search by this picture.")
@click.option("--text", is_flag=True, help="Search by the words, even if they name a picture file.")
@click.option("-k", default=10, show_default=True, help="The number of hits.")
@click.option(
    "--target",
    type=click.Choice(["images", "texts"]),
    default="images",
    show_default=True,
    help="Search for pictures, or for stored texts.",
)
@click.option("--filter", callback=parse_json, help="Search only what matches this filter, as JSON.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "vector", "keyword"]),
    help="Rank by what pictures show (vector), by their captions, tags and names (keyword), or by both (the default).",
)
@click.option("--threshold", type=click.FloatRange(-1, 1), help="Leave out hits with a lower score.")
@click.option("--offset", type=click.IntRange(min=0), help="Skip so many hits, to see the next ones.")
@click.option(
    "--order-by",
    metavar="FIELD",
    help="Show the hits by taken_at, created_at, width, bytes or metadata.KEY; a leading - descends.",
)
@click.option(
    "--group-by", metavar="FIELD", help="Show one hit of each job_id, video_id, camera, day, month or metadata.KEY."
)
@click.option("--collapse", is_flag=True, default=None, help="Show one hit of pictures that are nearly the same.")
@click.option("--like", multiple=True, metavar="ID", help="Search more like this picture, too; may be repeated.")
@click.option("--unlike", multiple=True, metavar="ID", help="Search less like this picture; may be repeated.")
@click.option(
    "--batch",
    metavar="FILE",
    help="Search by each line of this file (`-`: standard input), and print a line of JSON for each.",
)
@click.option("--paths", is_flag=True, help="Print the paths of the pictures alone, one on each line.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
def search(
    words: tuple[str, ...],
    image: Path | None,
    text: bool,
    k: int,
    target: str,
    filter: dict[str, Any] | None,
    mode: str | None,
    threshold: float | None,
    batch: str | None,
    paths: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Search a running server by words, or by a picture.

    One word that names a picture file searches by that picture. A minus turns away ("beach -people", in quotes).
    Words of time ("beach July 2023") find pictures taken then, if the collection has pictures with a time.
    A terminal shows a table; a pipe gets a line for each hit: score, id, path and words, with tabs between.
    """
    from app.cli import output
    from app.cli.batch_search import print_answers
    from app.encoder.catalogue import find_facts

    if sum((bool(words), image is not None, batch is not None)) != 1:
        raise click.UsageError("give either words, a picture file, --image or --batch")
    if text and not words:
        raise click.UsageError("--text belongs to words, not to --image or --batch")
    if paths and (as_json or batch is not None or target == "texts"):
        raise click.UsageError("--paths belongs to pictures, and not to --json or --batch")
    if mode is not None and (image is not None or batch is not None):
        raise click.UsageError("--mode belongs to words")
    image = image or (None if text or batch is not None else find_picture(words))
    arranged = pop_arrangement(given, is_batch=batch is not None, is_picture=image is not None)
    with open_client(given) as client:
        if batch is not None:
            sys.exit(print_answers(client, batch, k, target, filter, threshold))
        if image is not None:
            answer = client.search_picture(image, k, target, filter, threshold, **arranged)
        else:
            answer = client.search(" ".join(words), k, target, filter, mode, threshold, **arranged)
    output.show_hint(find_facts(str(answer.get("model"))).hint)
    output.show_reading(answer)
    output.show_verdict(answer)
    if as_json:
        print_json(answer)
    elif paths:
        output.print_paths(answer)
    else:
        output.show_hits(answer, new_console())


@main.command(
    short_help="Measure how good the search is.",
    epilog=examples(
        "sightline evaluate                                        the captions that are stored",
        "sightline evaluate pairs.csv --report report.html         pairs of stored pictures and texts",
        "sightline evaluate dataset_coco.json --pictures /coco     a public set, which the server reads",
        "sightline evaluate pairs.csv --pictures . --model photos  another model, without a server",
    ),
)
@click.argument("set", metavar="[SET]", required=False)
@click.option("--pictures", metavar="FOLDER", help="The pictures of SET; without it they are those of the collection.")
@click.option("--split", default="test", show_default=True, help="Which part of a set of Karpathy's form.")
@click.option(
    "-k", "ks", multiple=True, type=click.IntRange(1, 100), help="Recall at this k; may be repeated (1 5 10)."
)
@click.option("--model", "models", multiple=True, help="Measure this model, too, in this command; may be repeated.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write a page of HTML with the worst misses."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
def evaluate(
    set: str | None,
    pictures: str | None,
    split: str,
    ks: tuple[int, ...],
    models: tuple[str, ...],
    report: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure how often a text finds its picture, and a picture one of its texts.

    SET is a table (CSV, TSV, JSONL) of pictures and texts, or a JSON file of Karpathy's splits of COCO or Flickr30k;
    without it the captions of the collection are the texts. A picture is named by its id, SHA-256 or file. With
    --pictures, a running server reads the pictures of a folder that it may read, and stores nothing.

    --model loads another model into this command and measures it on the same set: on the folder of --pictures, or on
    up to 1,000 stored pictures with captions.
    """
    from app.cli.evaluate import EvaluationOptions
    from app.cli.evaluate import evaluate as run

    settings = load_settings(given)
    options = EvaluationOptions(set, pictures, split, ks, models)
    run(settings, lambda: open_client(given), options, new_console(), report, as_json=as_json)


alias = copy(evaluate)
alias.hidden = True
main.add_command(alias, "eval")


@main.command(
    short_help="Teach a collection the words of its captions.",
    epilog=examples(
        "sightline teach --from-captions       by the captions that are stored",
        "sightline teach pairs.csv             by pairs of stored pictures and texts",
        "sightline teach pairs.csv --dry-run   only show what it would bring",
        "sightline teach --take-off            search as before",
    ),
)
@click.argument("pairs", metavar="[PAIRS]", required=False)
@click.option("--from-captions", is_flag=True, help="Teach by the captions of the collection.")
@click.option("--split", default="train", show_default=True, help="Which part of a set of Karpathy's form.")
@click.option("--dry-run", is_flag=True, help="Show the figures, and keep no head.")
@click.option("--keep", is_flag=True, help="Keep the head, and do not use it yet.")
@click.option("--take-on", metavar="HEAD", help="Use this head, which was taught before.")
@click.option("--take-off", is_flag=True, help="Use no head.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
def teach(
    pairs: str | None,
    from_captions: bool,
    split: str,
    dry_run: bool,
    keep: bool,
    take_on: str | None,
    take_off: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Teach a collection what its words mean: the server learns a small map of texts, a head, from pairs.

    PAIRS is a table (CSV, TSV, JSONL) of stored pictures and texts, or a JSON file of Karpathy's splits. A quarter
    of the pairs is held out; the head is refused (exit code 1) unless more of their texts find their picture among
    ten, with 95 % confidence. No vector of a picture changes, and searches follow at once.
    """
    if sum((pairs is not None, from_captions, take_on is not None, take_off)) != 1:
        raise click.UsageError("give one of PAIRS, --from-captions, --take-on and --take-off")
    if dry_run and keep:
        raise click.UsageError("--dry-run keeps no head; leave out --keep")
    from app.cli.teach import teach as run

    with open_client(given) as client:
        if take_off or take_on is not None:
            used = client.use_head(load_settings(given).collection, take_on)["head"]
            click.echo(f"the collection uses {f'the head {used}' if used else 'no head'}")
            return
        request = {"split": split, "dry_run": dry_run, "take_on": not keep}
        sys.exit(run(client, pairs, request, new_console(), as_json=as_json))


@main.command(
    short_help="Ask a question about a picture.",
    epilog=examples("sightline ask IMG_0815 'What colour is the car?' red blue white"),
)
@click.argument("id", metavar="ID")
@click.argument("question", metavar="QUESTION")
@click.argument("answers", metavar="ANSWER...", nargs=-1, required=True)
@click.option("--by", type=click.Choice(["encoder", "captioner"]), help="What is to answer.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
def ask(id: str, question: str, answers: tuple[str, ...], by: str | None, as_json: bool, **given: Any) -> None:
    """Ask a question about a picture of a running server, with the answers that there may be (2 to 26).

    Without --by the captioner answers, if the server has one that can, else the encoder.
    """
    from app.cli.output import show_answers

    with open_client(given) as client:
        found = client.ask(id, question, answers, by)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        show_answers(found, new_console())


@main.command(
    short_help="Say which part of a picture met words.",
    epilog=examples("sightline explain IMG_0815 red car --save why.png"),
)
@click.argument("id", metavar="ID")
@click.argument("words", metavar="WORDS", nargs=-1, required=True)
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture with a heat map (PNG)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
def explain(id: str, words: tuple[str, ...], save: Path | None, as_json: bool, **given: Any) -> None:
    """Say which part of a picture of a running server met words, and which of the words counted.

    The shades are the parts of the picture, from its upper left: the darker, the more the words are met there.
    """
    from app.cli.output import show_explanation

    with open_client(given) as client:
        found = client.explain(id, " ".join(words))
        if save is not None:
            try:
                save.write_bytes(client.draw_explanation(id, " ".join(words)))
            except OSError as error:
                raise click.ClickException(f"{save} cannot be written: {error.strerror}") from None
    if as_json:
        print_json(found)
    else:
        show_explanation(found, new_console())


@main.command(short_help="Delete the pictures that match a filter.")
@click.option(
    "--filter", callback=parse_json, required=True, help="Delete the pictures that match this filter, as JSON."
)
@click.option("--dry-run", is_flag=True, help="Show the pictures that match, and delete nothing.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@setting_options(*CLIENT_OPTIONS, "collection")
def delete(filter: dict[str, Any], dry_run: bool, yes: bool, **given: Any) -> None:
    """Delete the pictures that match a filter from a running server.

    The command shows how many match, and the newest of them, and asks before it deletes.
    """
    from app.cli.output import show_matches

    with open_client(given) as client:
        matches = client.delete(filter, dry_run=True)
        show_matches(matches, new_console())
        if dry_run or not matches["matched"]:
            return
        if not yes and not sys.stdin.isatty():
            raise click.UsageError("the command deleted nothing: it has no terminal to ask on; confirm with --yes")
        if not yes:
            click.confirm("Delete them?", abort=True)
        click.echo(f"{client.delete(filter, dry_run=False)['deleted']} deleted")


@main.command(short_help="Find pictures that are the same, or nearly.")
@click.option(
    "--kind",
    type=click.Choice(["near", "exact"]),
    default="near",
    show_default=True,
    help="Pictures that look nearly the same, or one picture that was saved or resized again.",
)
@click.option("--threshold", type=float, help="How far a picture may be from the best: 0 to 0.3 (near), bits (exact).")
@click.option("--scan", is_flag=True, help="Search the collection first, and wait for the end.")
@click.option("--delete-others", is_flag=True, help="Keep the best picture of each group, and delete the others.")
@click.option("--dry-run", is_flag=True, help="With --delete-others: delete nothing, and say how many would go.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the groups as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
def duplicates(
    kind: str,
    threshold: float | None,
    scan: bool,
    delete_others: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Find pictures of a running server that are the same, or nearly.

    The best picture of a group comes first: the one with the most pixels, then bytes, then the oldest. A terminal
    shows a table; a pipe gets a line for each picture: group, distance, width, height, bytes, id and name, with tabs
    between.
    """
    from app.cli import duplicates as commands
    from app.cli.output import show_warnings

    if (dry_run or yes) and not delete_others:
        raise click.UsageError("--dry-run and --yes belong to --delete-others")
    if as_json and delete_others:
        raise click.UsageError("--json lists the groups; it does not belong to --delete-others")
    with open_client(given) as client:
        if scan:
            commands.run_scan(client)
        found = client.all_duplicates(kind, threshold)
        groups = found["groups"]
        show_warnings(found)
        if as_json:
            print_json(found)
            return
        commands.show_groups(groups, new_console())
        if not delete_others:
            return
        if dry_run or not groups:
            click.echo(f"{sum(len(group['images']) - 1 for group in groups)} would be deleted")
            return
        commands.confirm_deletion(groups, yes=yes, is_interactive=sys.stdin.isatty())
        click.echo(f"{commands.delete_others(client, groups)} deleted")


@main.command("camera-data", short_help="Read when, where and with what stored pictures were taken.")
@click.option("--again", is_flag=True, help="Also of pictures that were read before, as after a change of a setting.")
@setting_options(*CLIENT_OPTIONS, "collection")
def camera_data(again: bool, **given: Any) -> None:
    """Read the camera data of pictures that a running server has stored.

    Older versions kept none. The pictures get time, camera and lens, and caption and tags where they have none;
    place and exposure as the settings of the server say.
    """
    from app.cli.camera_data import read_camera_data

    with open_client(given) as client:
        click.echo(read_camera_data(client, again=again))


@main.command(short_help="Read the text in pictures again, or make their captions anew.")
@click.argument("kind", type=click.Choice(["ocr", "caption"]))
@click.option("--all", "every", is_flag=True, help="Take every picture of the collection.")
@click.option("--filter", callback=parse_json, help="Take the pictures that match this filter, as JSON.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Take this picture; may be repeated.")
@click.option("--failed", is_flag=True, help="Take only the pictures that were given up.")
@setting_options(*CLIENT_OPTIONS, "collection")
def enrich(
    kind: str, every: bool, filter: dict[str, Any] | None, ids: tuple[str, ...], failed: bool, **given: Any
) -> None:
    """Let pictures of a running server wait for a second pass again, before all others.

    ocr reads the text in them, caption makes captions for them. `sightline status` shows how far the server is.
    """
    chosen: dict[str, Any] = {"all": every, "filter": filter, "ids": list(ids)}
    selection = {name: value for name, value in chosen.items() if value}
    if failed and not selection:
        selection = {"all": True}
    if len(selection) != 1:
        raise click.UsageError("give one of --all, --filter, --id and --failed")
    from app.cli.evaluate import follow_task

    with open_client(given) as client:
        begun = client.enrich(kind, selection, failed_only=failed)
        job = follow_task(client, begun, "queueing the pictures", new_console())
    if job.get("error"):
        raise ServerError(job["error"]["detail"])
    click.echo(f"{job['result']['queued']} pictures wait for {kind}")


@main.command(short_help="Show what a server holds, and its health.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
def status(as_json: bool, **given: Any) -> None:
    """Show what a running server holds, and its health; exits with 1 when it is not ready."""
    from app.cli.output import show_failed_jobs, show_hint, show_status, show_watches

    with open_client(given) as client:
        ready, stats, newest, watched = client.readiness(), client.stats(), client.jobs(), client.find_watches()
    show_hint((stats["model"] or {}).get("hint"))
    if as_json:
        print_json({**ready, **stats})
    else:
        show_status(ready, stats, new_console())
        show_failed_jobs(newest["jobs"], new_console())
        show_watches(watched, new_console())
    sys.exit(1 if ready["reasons"] else 0)


@main.command(short_help="List the newest jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
def jobs(as_json: bool, **given: Any) -> None:
    """List the newest jobs of a running server.

    A terminal shows a table; a pipe gets a line for each job: id, kind, state, total, done, duplicates, failed, the
    time when it was created, and its name, with tabs between.
    """
    from app.cli.output import show_jobs

    with open_client(given) as client:
        newest = client.jobs()
    if as_json:
        print_json(newest)
    else:
        show_jobs(newest["jobs"], new_console())


@main.command(short_help="Show, pause, resume, cancel or retry a job.")
@click.argument("id")
@click.option("--pause", is_flag=True, help="Begin no further item of the job.")
@click.option("--resume", is_flag=True, help="Go on with a paused job.")
@click.option("--cancel", is_flag=True, help="End the job; pictures that are ready stay.")
@click.option("--retry", is_flag=True, help="Try the items that failed again.")
@click.option("--failed", is_flag=True, help="Show the items that failed; with --report, write only those.")
@click.option(
    "--report",
    type=click.File("wb", lazy=True),
    help="Write a line of JSON for each item to this file (`-`: standard output).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options(*CLIENT_OPTIONS)
def job(id: str, failed: bool, report: Any, as_json: bool, **given: Any) -> None:
    """Show a job of a running server; or pause, resume, cancel or retry it."""
    from app.cli.output import show_failed, show_jobs, show_result

    actions = [name for name in ACTIONS if given[name]]
    if len(actions) > 1:
        raise click.UsageError("give one of --pause, --resume, --cancel and --retry")
    if as_json and (failed or report is not None):
        raise click.UsageError(
            "--json shows the job itself; --report FILE writes its items as JSON, --failed only some"
        )
    with open_client(given) as client:
        id = client.find_job(id)
        shown = client.control_job(id, actions[0]) if actions else client.job(id)
        if report is not None:
            for part in client.read_report(id, "failed" if failed else None):
                report.write(part)
        elif as_json:
            print_json(shown)
        else:
            show_jobs([shown], new_console())
            show_result(shown, new_console())
            if failed:
                show_failed(client.items(id, status="failed"), shown["failed"], new_console())


@main.group(short_help="List, make and drop collections.", invoke_without_command=True)
@setting_options(*CLIENT_OPTIONS)
@click.pass_context
def collections(ctx: click.Context, /, **given: Any) -> None:
    """List, make and drop the collections of a running server."""
    from app.cli.output import show_collections

    ctx.obj = given
    if ctx.invoked_subcommand is None:
        with open_client(given) as client:
            show_collections(client.collections(), new_console())


@collections.command("make")
@click.argument("name")
@click.option("--description", default="", help="What the collection is for.")
@setting_options(*CLIENT_OPTIONS)
@click.pass_obj
def make_collection(before: dict[str, Any], /, name: str, description: str, **given: Any) -> None:
    """Make an empty collection; its name has 1 to 64 characters of a-z, 0-9, _ and -."""
    with open_client(before | drop_missing(given)) as client:
        client.make_collection(name, description)


@collections.command("drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Drop without asking.")
@setting_options(*CLIENT_OPTIONS)
@click.pass_obj
def drop_collection(before: dict[str, Any], /, name: str, yes: bool, **given: Any) -> None:
    """Drop a collection with all its pictures and texts."""
    if not yes:
        click.confirm(f"Drop {name} with all its pictures and texts?", abort=True)
    with open_client(before | drop_missing(given)) as client:
        client.drop_collection(name)


@main.group(
    short_help="Tag pictures by labels, as they come.",
    invoke_without_command=True,
    epilog=examples(
        "sightline labels                 show the labels, and how many pictures have each",
        "sightline labels set labels.txt  replace them by those of a file, one a line",
        "sightline labels apply           tag what is there again",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options(*CLIENT_OPTIONS, "collection")
@click.pass_context
def labels(ctx: click.Context, /, as_json: bool, **given: Any) -> None:
    """Tag the pictures of a collection by labels: each gets those that fit it, marked as auto-tags.

    A terminal shows a table; a pipe gets a line for each label: its name, its threshold and how many pictures have it,
    with tabs between.
    """
    from app.cli.labels import show_labels

    ctx.obj = given
    if ctx.invoked_subcommand is None:
        with open_client(given) as client:
            found = client.labels()
        if as_json:
            print_json(found)
        else:
            show_labels(found, new_console())


@labels.command("set")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--threshold", type=float, help="The probability from which a picture gets a label (0.3).")
@setting_options(*CLIENT_OPTIONS, "collection")
@click.pass_obj
def set_labels(before: dict[str, Any], /, file: Path, threshold: float | None, **given: Any) -> None:
    """Replace the labels by those of FILE, one a line, or JSON as PUT /v1/collections/NAME/labels takes it.

    The command waits until the pictures that are there are tagged. An empty file takes all labels and tags away.
    """
    from app.cli.labels import set_labels as run

    with open_client(before | drop_missing(given)) as client:
        run(client, file, threshold, new_console())


@labels.command("apply")
@setting_options(*CLIENT_OPTIONS, "collection")
@click.pass_obj
def apply_labels(before: dict[str, Any], /, **given: Any) -> None:
    """Compare every picture with the labels again: after the collection has grown much, say."""
    from app.cli.labels import apply_labels as run

    with open_client(before | drop_missing(given)) as client:
        run(client, new_console())


@main.command(
    short_help="Offer the pictures to assistants, by MCP.",
    epilog=examples(
        "sightline mcp                           tools for an assistant on this machine, over stdin and stdout",
        "sightline mcp --folder ~/Pictures       which may also add pictures from this folder",
    ),
)
@click.option("--api-key", help="The same as --key.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the assistant may read pictures of this machine, to add them.",
)
@setting_options(*CLIENT_OPTIONS, "collection")
def mcp(api_key: str | None, folder: Path | None, **given: Any) -> None:
    """Serve the Model Context Protocol on standard input and output, over a running server.

    An assistant starts this command itself: its configuration names it. It needs
    pip install 'sightline-search[mcp]'. The server's own address for assistants is /mcp.
    """
    from app.cli.mcp import serve_stdio

    if api_key is not None:
        if given["key"] or given["key_file"]:
            raise click.UsageError("give either --api-key or --key or --key-file")
        given["key"] = api_key
    serve_stdio(load_settings(given), folder)


@main.command(short_help="List the models that have a name here.")
def models() -> None:
    """List the models that have a name here."""
    from app.cli.output import show_models

    load_settings({})
    show_models(new_console())


@main.command(short_help="Convert a model, for machines without torch.")
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--precision", type=click.Choice(["int8"]), help="Encode pictures with 8-bit numbers, if that is good enough."
)
@click.option("--force", is_flag=True, help="With --precision int8: write it even if it is not good enough.")
@setting_options("data_dir", "models_dir", "database", "media", "collection")
def convert(model: str, folder: Path, precision: str | None, force: bool, **given: Any) -> None:
    """Write MODEL into the new FOLDER with its towers converted for CPUs.

    A copy of the folder serves on any machine as `--model local-dir:FOLDER`, without torch and without a conversion at
    the first start. An index made with MODEL stays valid.

    With --precision int8, pictures are encoded faster and a little differently. Pictures and captions of the collection
    (the demo gallery, where it has fewer than 300) calibrate it, and decide: it is refused where captions find less
    than 0.97 of the pictures that they find in 16 bits. A table tells that, and whether an index made with MODEL stays
    valid.
    """
    console, settings = new_console(), load_settings(given)
    if force and precision is None:
        raise click.UsageError("--force goes with --precision int8")
    with console.status(f"converting {model}"):
        if precision is None:
            from app.encoder.portable import export_model

            export_model(model, settings.models, folder)
        else:
            from app.cli.output import show_int8_report
            from app.service.int8 import convert_to_int8

            show_int8_report(convert_to_int8(settings, model, folder, force=force), console)
    console.print(f"{model} is in {folder}; serve it by --model local-dir:{folder.absolute()}", soft_wrap=True)


@main.command(short_help="Check that files, rows and log agree.")
@setting_options("data_dir", "media")
def verify(**given: Any) -> None:
    """Check that files, rows and log agree; if not, print a table of faults and exit with 1."""
    from app.cli.output import show_faults, show_progress
    from app.storage.media_place import find_bucket
    from app.storage.verify import find_faults

    console = new_console()
    settings = load_sqlite_settings(given)
    faults = find_faults(settings.data_dir, show_progress(console), find_bucket(settings))
    show_faults(faults, console)
    sys.exit(1 if faults else 0)


@main.command(short_help="Copy all data into a folder.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@setting_options("data_dir", "media")
def backup(folder: Path, **given: Any) -> None:
    """Copy all acknowledged data into FOLDER, while a server runs or not; a second backup copies what is new."""
    from app.cli.output import show_progress
    from app.storage.backup import create_backup
    from app.storage.media_place import find_bucket

    console = new_console()
    settings = load_sqlite_settings(given)
    made = create_backup(settings.data_dir, folder, show_progress(console), find_bucket(settings))
    console.print(f"{made.pictures} pictures are in {folder}, as of {made.created_at}")


@main.command(short_help="Restore a backup.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@setting_options("data_dir", "media")
def restore(folder: Path, **given: Any) -> None:
    """Restore the backup in FOLDER into an empty data directory; a damaged backup changes nothing."""
    from app.cli.output import show_progress
    from app.storage.backup import restore_backup
    from app.storage.media_place import find_bucket

    console, settings = new_console(), load_sqlite_settings(given)
    held = restore_backup(settings.data_dir, folder, show_progress(console), find_bucket(settings))
    data_dir = settings.data_dir
    console.print(f"{data_dir} is what {folder} held at {held.created_at}: {held.pictures} pictures")


@main.command(
    short_help="Move all data to PostgreSQL and S3, or back.",
    epilog=examples(
        "sightline move --data-dir photos --to-database postgresql://... --to-media s3://...    to a cluster",
        "sightline move --database postgresql://... --media s3://... --to-data-dir photos       and back",
    ),
)
@click.option("--to-database", metavar="URL", help="Copy rows, log, keys and jobs into this PostgreSQL.")
@click.option("--to-media", metavar="URL", help="Copy pictures, videos and thumbnails into this s3://BUCKET/PREFIX.")
@click.option(
    "--to-data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Copy into this data directory what goes to no other place.",
)
@setting_options("data_dir", "database", "media", *LOG_OPTIONS)
def move(to_database: str | None, to_media: str | None, to_data_dir: Path | None, **given: Any) -> None:
    """Copy everything into another place: rows, log, pictures, keys, jobs. Nothing is embedded again.

    Stop every server and worker first. The source stays as it is. A move that was killed goes on when it is started
    again, and until it has ended no server starts on the target. It compares the SHA-256 of every file, and all rows.
    """
    from app.cli.move import move as run

    sys.exit(run(start_logging(given), new_console(), to_database, to_media, to_data_dir))


@main.command(
    short_help="Write the vectors of a collection to a file.",
    epilog=examples("sightline export --vectors photos.parquet --data-dir photos"),
)
@click.option(
    "--vectors",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Write a Parquet file with a row for each picture: what is known of it, and its vector.",
)
@setting_options("data_dir", "collection")
def export(out: Path, **given: Any) -> None:
    """Write the pictures of a collection with their vectors to a file, while a server runs or not."""
    from app.cli.export import export_vectors

    settings = load_sqlite_settings(given)
    count, space = export_vectors(settings.data_dir, settings.collection, out)
    new_console().print(f"{count} pictures are in {out}, with vectors of {space.d} numbers of {space.model}")


@main.command(
    short_help="Change the model of a data directory.",
    epilog=examples(
        "sightline reembed --data-dir photos --model ViT-B-32/openai    a directory that nobody serves",
        "sightline reembed --live --model photos --dry-run              what it would cost a running server",
        "sightline reembed --live --model photos                        change it while searches go on",
    ),
)
@click.option("--live", is_flag=True, help="Change the model of a running server, which goes on answering searches.")
@click.option("--dry-run", is_flag=True, help="With --live: only tell what it costs in disk, memory and time.")
@setting_options(*CLIENT_OPTIONS, *DATA_OPTIONS, *LOG_OPTIONS)
def reembed(live: bool, dry_run: bool, **given: Any) -> None:
    """Change the model of a data directory: embed its texts now, and its pictures when the next server starts.

    End the server first, and start the next one with the same --model. Pictures, captions and ids stay.

    With --live a running server does it: searches are answered in the space of the old model until that of the new one
    is filled, then both change places. It is a job: `sightline job ID --cancel` leaves the old model. Ctrl-C ends the
    command alone.
    """
    if live:
        from app.cli.live_reembed import reembed_live

        if not given["model"]:
            raise click.UsageError("name the new model with --model")
        with open_client(given) as client:
            reembed_live(client, given["model"], given["precision"], new_console(), dry_run=dry_run)
        return
    if dry_run:
        raise click.UsageError("--dry-run goes with --live")
    from app.cli.reembed import reembed as run

    run(start_logging(given), new_console())


@main.group(short_help="Manage the API keys of a data directory.")
def keys() -> None:
    """Manage the API keys of a data directory; a running server follows every change at once."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["search", "write", "admin"]),
    required=True,
    help="Each scope includes those before it.",
)
@click.option("--collection", "collections", multiple=True, help="Limit the key to this collection; may be repeated.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Let the key expire after so many days.")
@setting_options("data_dir", "database")
def create_key(name: str, scope: str, collections: tuple[str, ...], days: float | None, **given: Any) -> None:
    """Make a key and print it once: the server keeps only its hash.

    From the first key on, every call needs a key, on loopback too.
    """
    from app.cli.keys import create_key

    create_key(load_settings(given), name, scope, collections, days)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as JSON.")
@setting_options("data_dir", "database")
def list_keys(as_json: bool, **given: Any) -> None:
    """List the keys, and when a call last used each (to ten minutes)."""
    from app.cli.keys import show_keys

    show_keys(load_settings(given), new_console(), as_json=as_json)


@keys.command("revoke")
@click.argument("id")
@setting_options("data_dir", "database")
def revoke_key(id: str, **given: Any) -> None:
    """Revoke a key, by its id, and the sessions that browsers began with it.

    Calls need a key even after you have revoked the last one.
    """
    from app.cli.keys import revoke_key

    revoke_key(load_settings(given), id)


@keys.command("clear")
@click.confirmation_option(prompt="Remove every key, so that calls on loopback need none?")
@setting_options("data_dir", "database")
def clear_keys(**given: Any) -> None:
    """Remove every key, as if there had never been one."""
    from app.cli.keys import clear_keys

    clear_keys(load_settings(given))


@main.command(short_help="Try everything on the built-in gallery.")
@click.option("--once", is_flag=True, help="End after the example searches.")
@setting_options("port")
def demo(once: bool, **given: Any) -> None:
    """Serve the demo gallery from a temporary directory, and show example searches."""
    from app.cli.demo import demo as run

    run(load_settings(given), new_console(), once=once)


def pop_arrangement(given: dict[str, Any], *, is_batch: bool, is_picture: bool) -> dict[str, Any]:
    """The options that say how hits are arranged, as fields of a search; takes them out of `given`."""
    arranged = {name: value for name in ARRANGED_OPTIONS if (value := given.pop(name))}
    if arranged and is_batch:
        raise click.UsageError("--batch takes no offset, order, groups and feedback")
    if is_picture and arranged.keys() & {"like", "unlike"}:
        raise click.UsageError("--like and --unlike belong to words")
    return arranged


def drop_missing(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in given.items() if value is not None}


def find_picture(words: tuple[str, ...]) -> Path | None:
    """The picture file that the only word of a search names, if it does; says so."""
    from app.decode.headers import has_picture_suffix

    path = Path(words[0])
    if len(words) > 1 or not has_picture_suffix(path.name):
        return None
    if not path.is_file():
        click.echo(f"there is no file {path} here; searching by the words", err=True)
        return None
    click.echo(f"searching by the picture {path}; --text searches by the words", err=True)
    return path


def load_sqlite_settings(given: dict[str, Any]) -> Settings:
    """Load the settings of a command that works on a data directory. Raises StartupError where they name another
    database."""
    settings = load_settings(given)
    if settings.is_cluster:
        raise StartupError(
            "this command is for a data directory, and SIGHTLINE_DATABASE names a PostgreSQL: back that up with its own"
            " tools, or copy everything into a data directory with `sightline move`"
        )
    return settings


def open_client(given: dict[str, Any]) -> Client:
    """Make the client of the server, collection and key that the options name."""
    from app.cli.client import Client

    settings = load_settings(given)
    return Client(settings.server, settings.read_client_key(), settings.collection, settings.ca_file)


def new_console() -> Console:
    from rich.console import Console

    return Console()


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def start_logging(given: dict[str, Any], *, warn: bool = True) -> Settings:
    """Load the settings, configure logging by them, and log a warning for each variable that is no setting."""
    from app.core.connection_string import find_secrets
    from app.core.logging import configure

    settings = read_settings(given)
    on_terminal = settings.log_format == "auto" and sys.stderr.isatty()
    configure(
        settings.log_level,
        json=settings.log_format != "text" and not on_terminal,
        secrets=find_secrets(settings.database),
    )
    for text in find_unknown_variables() if warn else ():
        log.warning(text)
    return settings
