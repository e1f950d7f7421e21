"""The `sightline` command: parse, read Settings once, call one function."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from app import __version__
from app.cli.client import Client, ServerError
from app.cli.options import load_settings, parse_pairs, setting_options
from app.core.errors import SightlineError
from app.core.settings import Settings

DATA_OPTIONS = ("data_dir", "model", "precision", "runtime", "device", "threads", "decoders", "batch_size")
SOURCE_OPTIONS = ("embeddings_of", "pictures", "key_as_id", "columns")  # of a source, as a request names them
LOG_OPTIONS = ("log_level", "log_format")


class Commands(click.Group):
    """Turns every expected failure into one line on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SightlineError, ServerError) as error:
            click.echo(f"sightline: {getattr(error, 'detail', error)}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="sightline")
def main() -> None:
    """Find pictures by words or by a picture, and words for a picture."""


@main.command()
@setting_options("host", "port", "insecure", "allowed_hosts", *DATA_OPTIONS, "index", "workers", *LOG_OPTIONS)
def serve(**given: Any) -> None:
    """Serve a data directory over HTTP, with workers that take pictures in."""
    settings = start_logging(given)  # first: a wrong one is told before anything large is loaded
    from app.api.server import serve as run
    from app.core.tracing import send_spans

    with send_spans("sightline", on=settings.is_tracing_on):
        run(settings)


@main.command()
@setting_options(*DATA_OPTIONS, *LOG_OPTIONS)
@click.option("--parent", type=int, default=None, hidden=True, help="End when this process ends.")
def worker(parent: int | None, **given: Any) -> None:
    """Take pictures in, beside a server or without one."""
    settings = start_logging(given)
    from app.core.tracing import send_spans
    from app.worker.main import run_worker

    with send_spans("sightline-worker", on=settings.is_tracing_on):
        run_worker(settings, parent)


@main.command()
@click.argument("paths", nargs=-1)
@click.option("--urls", type=click.Path(allow_dash=True), help="Load what this file lists, a URL or an object a line.")
@click.option("--embeddings-of", metavar="FINGERPRINT", help="clip-retrieval: the space that its embeddings are in.")
@click.option("--pictures", metavar="FOLDER", help="clip-retrieval: where the pictures lie now, on the server.")
@click.option("--key-as-id", is_flag=True, default=None, help="webdataset: the key of a sample is its picture's id.")
@click.option(
    "--column", "columns", multiple=True, callback=parse_pairs, metavar="ROLE=NAME", help="table: a role's column."
)
@setting_options("server", "key", "key_file", "collection")
def ingest(paths: tuple[str, ...], urls: str | None, **given: Any) -> None:
    """Load pictures, folders and archives into a running server; - reads paths from standard input.

    What begins with a kind of source (folder:/photos) is a place that the server reads by itself.
    Exits with 1, and a table of why, when an item failed.
    """
    from app.cli.upload import ingest as run
    from app.cli.upload import ingest_urls

    if bool(paths) == (urls is not None):
        raise click.UsageError("give either paths or --urls")
    said = {name: given[name] for name in SOURCE_OPTIONS if given[name] is not None}
    with open_client(given) as client:
        if urls is None:
            sys.exit(run(client, paths, Console(), said))
        try:
            with click.open_file(urls, encoding="utf-8") as listed:
                sys.exit(ingest_urls(client, listed, Console()))
        except OSError as error:
            raise ServerError(f"{urls} cannot be read: {error.strerror}") from None


@main.command()
@click.argument("words", nargs=-1)
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Search by this picture.")
@click.option("-k", default=10, show_default=True, help="How many hits.")
@click.option("--target", type=click.Choice(["images", "texts"]), default="images", show_default=True)
@click.option("--filter", "only", help="Only what this lets through, as JSON.")
@click.option(
    "--batch", metavar="FILE", help="Search by each line of it (`-`: stdin); answers are a line of JSON each."
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options("server", "key", "key_file", "collection")
def search(
    words: tuple[str, ...],
    image: Path | None,
    k: int,
    target: str,
    only: str | None,
    batch: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Search a running server by words, or by a picture.

    Words after a minus are turned away from: "beach -people", in quotes because of the minus.
    """
    from app.cli.batch_search import print_answers
    from app.cli.output import show_hits

    if sum((bool(words), image is not None, batch is not None)) != 1:
        raise click.UsageError("give either words, --image or --batch")
    if batch is not None:
        with open_client(given) as client:
            sys.exit(print_answers(client, batch, k, target, only))
    with open_client(given) as client:
        if image:
            found = client.search_picture(image, k, target, only)
        else:
            found = client.search(" ".join(words), k, target, only)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        show_hits(found, Console())


@main.command()
@click.option("--filter", "only", required=True, help="Which pictures, as JSON.")
@click.option("--dry-run", is_flag=True, help="Delete nothing, and show what would be.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@setting_options("server", "key", "key_file", "collection")
def delete(only: str, dry_run: bool, yes: bool, **given: Any) -> None:
    """Delete the pictures that a filter lets through from a running server.

    Shows how many there are, and the newest of them, and asks first.
    """
    from app.cli.output import show_matches

    try:
        filter = json.loads(only)
    except (ValueError, RecursionError):
        raise click.BadParameter("it is not JSON", param_hint="--filter") from None
    with open_client(given) as client:
        meant = client.delete(filter, dry_run=True)
        show_matches(meant, Console())
        if dry_run or not meant["matched"]:
            return
        if not yes and not sys.stdin.isatty():
            raise click.UsageError("nothing is deleted: nobody can be asked here, so say --yes")
        if not yes:
            click.confirm("Delete them?", abort=True)
        click.echo(f"{client.delete(filter, dry_run=False)['deleted']} deleted")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options("server", "key", "key_file", "collection")
def status(as_json: bool, **given: Any) -> None:
    """What a running server holds and whether it is well; exits with 1 when it is not ready."""
    from app.cli.output import show_status

    with open_client(given) as client:
        ready, stats = client.readiness(), client.stats()
    if as_json:
        click.echo(json.dumps({**ready, **stats}, ensure_ascii=False, indent=2))
    else:
        show_status(ready, stats, Console())
    sys.exit(1 if ready["reasons"] else 0)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options("server", "key", "key_file", "collection")
def jobs(as_json: bool, **given: Any) -> None:
    """The newest jobs of a running server."""
    from app.cli.output import show_jobs

    with open_client(given) as client:
        found = client.jobs()
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        show_jobs(found, Console())


@main.command()
@click.argument("id")
@click.option("--pause", "action", flag_value="pause", help="Begin nothing more of it.")
@click.option("--resume", "action", flag_value="resume", help="Go on with it.")
@click.option("--cancel", "action", flag_value="cancel", help="End it; what is ready stays.")
@click.option("--retry", "action", flag_value="retry", help="Take up what failed once more.")
@click.option("--failed", is_flag=True, help="Show the items that failed; of a report, only those.")
@click.option(
    "--report", type=click.File("wb", lazy=True), help="Write what became of each item, a JSON object a line."
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@setting_options("server", "key", "key_file")
def job(id: str, action: str | None, failed: bool, report: Any, as_json: bool, **given: Any) -> None:
    """Show a job of a running server; pause, resume or cancel it, or retry what failed of it."""
    from app.cli.output import show_failed, show_jobs

    with open_client(given) as client:
        told = client.steer(id, action) if action else client.job(id)
        if report is not None:
            for part in client.report(id, "failed" if failed else None):
                report.write(part)
        elif as_json:
            click.echo(json.dumps(told, ensure_ascii=False, indent=2))
        else:
            show_jobs([told], Console())
            if failed:
                show_failed(client.failed_items(id), told["failed"], Console())


@main.group(invoke_without_command=True)
@setting_options("server", "key", "key_file")
@click.pass_context
def collections(ctx: click.Context, /, **given: Any) -> None:
    """List the collections of a running server; make and drop them."""
    from app.cli.output import show_collections

    ctx.obj = given
    if ctx.invoked_subcommand is None:
        with open_client(given) as client:
            show_collections(client.collections(), Console())


@collections.command("make")
@click.argument("name")
@click.option("--description", default="", help="What it is for.")
@click.pass_obj
def make_collection(given: dict[str, Any], name: str, description: str) -> None:
    """Make an empty collection; its name has 1 to 64 of a-z, 0-9, _ and -."""
    with open_client(given) as client:
        client.make_collection(name, description)


@collections.command("drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def drop_collection(given: dict[str, Any], name: str, yes: bool) -> None:
    """Drop a collection with all its pictures and texts."""
    if not yes:
        click.confirm(f"Drop {name} with all its pictures and texts?", abort=True)
    with open_client(given) as client:
        client.drop_collection(name)


@main.command()
def models() -> None:
    """The models that are known."""
    from app.cli.output import show_models

    show_models(Console())


@main.command()
@setting_options("data_dir")
def verify(**given: Any) -> None:
    """Check that files, rows and log agree; exits with 1 and a table of faults when they do not."""
    from app.cli.output import show_faults, show_progress
    from app.storage.verify import find_faults

    console = Console()
    faults = find_faults(load_settings(given).data_dir, show_progress(console))
    show_faults(faults, console)
    sys.exit(1 if faults else 0)


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@setting_options("data_dir")
def backup(folder: Path, **given: Any) -> None:
    """Copy everything that was acknowledged into FOLDER, beside a server or without one; again, what is new."""
    from app.cli.output import show_progress
    from app.storage.backup import create_backup

    console = Console()
    made = create_backup(load_settings(given).data_dir, folder, show_progress(console))
    console.print(f"{made.pictures} pictures are in {folder}, as of {made.created_at}")


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@setting_options("data_dir")
def restore(folder: Path, **given: Any) -> None:
    """Make an empty data directory what the backup in FOLDER holds; a damaged one is refused before that."""
    from app.cli.output import show_progress
    from app.storage.backup import restore_backup

    console, data_dir = Console(), load_settings(given).data_dir
    held = restore_backup(data_dir, folder, show_progress(console))
    console.print(f"{data_dir} is what {folder} held at {held.created_at}: {held.pictures} pictures")


@main.command()
@setting_options(*DATA_OPTIONS, *LOG_OPTIONS)
def reembed(**given: Any) -> None:
    """Give a data directory to another model: its pictures are encoded anew by the next server."""
    from app.cli.reembed import reembed as run

    run(start_logging(given), Console())


@main.group()
def keys() -> None:
    """API keys of a data directory; a running server heeds every change at once."""


@keys.command("create")
@click.argument("name")
@click.option("--scope", type=click.Choice(["search", "write", "admin"]), required=True, help="Each has those before.")
@click.option("--collection", "collections", multiple=True, help="Bind the key to this one; may be repeated.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="End the key after so many days.")
@setting_options("data_dir")
def create_key(name: str, scope: str, collections: tuple[str, ...], days: float | None, **given: Any) -> None:
    """Make a key and print it, once: only its hash is kept.

    From the first key on, every call needs one, on loopback too.
    """
    from app.cli.keys import create_key

    create_key(load_settings(given), name, scope, collections, days)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as JSON.")
@setting_options("data_dir")
def list_keys(as_json: bool, **given: Any) -> None:
    """The keys there are, and when each was last used, to ten minutes."""
    from app.cli.keys import show_keys

    show_keys(load_settings(given), Console(), as_json=as_json)


@keys.command("revoke")
@click.argument("id")
@setting_options("data_dir")
def revoke_key(id: str, **given: Any) -> None:
    """End a key, named by its id, and the sessions that were begun with it.

    Keys are needed even after the last one was revoked.
    """
    from app.cli.keys import revoke_key

    revoke_key(load_settings(given), id)


@keys.command("clear")
@click.confirmation_option(prompt="Remove every key, so that on loopback none is needed any more?")
@setting_options("data_dir")
def clear_keys(**given: Any) -> None:
    """Remove every key, as if there had never been one."""
    from app.cli.keys import clear_keys

    clear_keys(load_settings(given))


@main.command()
@click.option("--once", is_flag=True, help="End after the example searches.")
@setting_options("port")
def demo(once: bool, **given: Any) -> None:
    """Serve the demo gallery from a scratch directory and show example searches."""
    from app.cli.demo import demo as run

    run(load_settings(given), Console(), once=once)


def open_client(given: dict[str, Any]) -> Client:
    """A client of the server and for the collection that are named, with the key that is given."""
    settings = load_settings(given)
    return Client(settings.server, settings.read_client_key(), settings.collection)


def start_logging(given: dict[str, Any]) -> Settings:
    """The settings of a process that logs."""
    from app.core.logging import configure

    settings = load_settings(given)
    on_terminal = settings.log_format == "auto" and sys.stderr.isatty()
    configure(settings.log_level, json=settings.log_format != "text" and not on_terminal)
    return settings


if __name__ == "__main__":
    main()
