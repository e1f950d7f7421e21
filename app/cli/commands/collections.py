"""Commands on collections and their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from app.cli.commands.common import CLIENT_OPTIONS, drop_missing, new_console, open_client, print_json, write_examples
from app.cli.options import Group, setting_options


@click.group(cls=Group, short_help="List, make and drop collections.", invoke_without_command=True)
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


@click.group(
    cls=Group,
    short_help="Tag pictures by labels, as they come.",
    invoke_without_command=True,
    epilog=write_examples(
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


COMMANDS = (collections, labels)
