"""Commands on the pictures that a running server holds."""

from __future__ import annotations

import sys
from typing import Any

import click

from app.cli import ServerError
from app.cli.commands.common import CLIENT_OPTIONS, new_console, open_client, print_json
from app.cli.options import Command, parse_json, setting_options


@click.command(cls=Command, short_help="Delete the pictures that match a filter.")
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


@click.command(cls=Command, short_help="Find pictures that are the same, or nearly.")
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


@click.command("camera-data", cls=Command, short_help="Read when, where and with what stored pictures were taken.")
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


@click.command(cls=Command, short_help="Read the text in pictures again, or make their captions anew.")
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


COMMANDS = (delete, duplicates, camera_data, enrich)
