"""Commands that bring pictures into a running server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from app.cli import ServerError
from app.cli.commands.common import CLIENT_OPTIONS, new_console, open_client, print_json, write_examples
from app.cli.options import Command, load_settings, parse_pairs, setting_options

SOURCE_OPTIONS = ("embeddings_of", "pictures", "key_as_id", "columns")  # by their names in a request
WATCH_ACTIONS = ("pause", "resume", "scan", "confirm")


@click.command(
    cls=Command,
    short_help="Load pictures, folders, archives and tables.",
    epilog=write_examples(
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


@click.command(
    cls=Command,
    short_help="Keep a collection equal to folders.",
    epilog=write_examples(
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


@click.command(cls=Command, short_help="List the watched folders, and act on one.")
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


COMMANDS = (ingest, watch, watches)
