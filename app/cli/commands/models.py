"""Commands on models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from app.cli.commands.common import (
    CLIENT_OPTIONS,
    DATA_OPTIONS,
    LOG_OPTIONS,
    new_console,
    open_client,
    start_logging,
    write_examples,
)
from app.cli.options import Command, load_settings, setting_options


@click.command(cls=Command, short_help="List the models that have a name here.")
def models() -> None:
    """List the models that have a name here."""
    from app.cli.output import show_models

    load_settings({})
    show_models(new_console())


@click.command(cls=Command, short_help="Convert a model, for machines without torch.")
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


@click.command(
    cls=Command,
    short_help="Change the model of a data directory.",
    epilog=write_examples(
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


COMMANDS = (models, convert, reembed)
