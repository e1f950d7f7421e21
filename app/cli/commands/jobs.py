"""Commands that show what a running server does."""

from __future__ import annotations

import sys
from typing import Any

import click

from app.cli.commands.common import CLIENT_OPTIONS, new_console, open_client, print_json
from app.cli.options import Command, setting_options

ACTIONS = ("pause", "resume", "cancel", "retry")


@click.command(cls=Command, short_help="Show what a server holds, and its health.")
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


@click.command(cls=Command, short_help="List the newest jobs.")
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


@click.command(cls=Command, short_help="Show, pause, resume, cancel or retry a job.")
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


COMMANDS = (status, jobs, job)
