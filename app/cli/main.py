"""The `sightline` command. Each command reads its settings and calls one function, which it imports only then."""

from __future__ import annotations

from typing import Any

import click

from app import __version__
from app.cli import ServerError
from app.cli.commands import collections, data, jobs, keys, loading, models, pictures, quality, searching, serving
from app.cli.commands.common import write_examples
from app.core.errors import SightlineError


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
    epilog=write_examples(
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


for _module in (collections, data, jobs, keys, loading, models, pictures, quality, searching, serving):
    for _command in _module.COMMANDS:
        main.add_command(_command)
