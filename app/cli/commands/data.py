"""Commands on a data directory: check, copy and move it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from app.cli.commands.common import LOG_OPTIONS, load_sqlite_settings, new_console, start_logging, write_examples
from app.cli.options import Command, setting_options


@click.command(cls=Command, short_help="Check that files, rows and log agree.")
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


@click.command(cls=Command, short_help="Copy all data into a folder.")
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


@click.command(cls=Command, short_help="Restore a backup.")
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


@click.command(
    cls=Command,
    short_help="Move all data to PostgreSQL and S3, or back.",
    epilog=write_examples(
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


@click.command(
    cls=Command,
    short_help="Write the vectors of a collection to a file.",
    epilog=write_examples("sightline export --vectors photos.parquet --data-dir photos"),
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


COMMANDS = (verify, backup, restore, move, export)
