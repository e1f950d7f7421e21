"""Commands that measure how good the search is, and make it better."""

from __future__ import annotations

import sys
from copy import copy
from pathlib import Path
from typing import Any

import click

from app.cli.commands.common import CLIENT_OPTIONS, new_console, open_client, write_examples
from app.cli.options import Command, load_settings, setting_options


@click.command(
    cls=Command,
    short_help="Measure how good the search is.",
    epilog=write_examples(
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
alias.name = "eval"
alias.hidden = True


@click.command(
    cls=Command,
    short_help="Teach a collection the words of its captions.",
    epilog=write_examples(
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


COMMANDS = (evaluate, alias, teach)
