"""Commands that search, and explain what a search finds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from app.cli.commands.common import CLIENT_OPTIONS, new_console, open_client, print_json, write_examples
from app.cli.options import Command, parse_json, setting_options

ARRANGED_OPTIONS = ("offset", "order_by", "group_by", "collapse", "like", "unlike", "effort")  # as in a request


@click.command(
    cls=Command,
    short_help="Search by words, or by a picture.",
    epilog=write_examples(
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
    "--effort",
    type=click.Choice(["fast", "normal", "exact"]),
    help="Search a large index less far, as far as it is set to (the default), or everywhere.",
)
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
            sys.exit(print_answers(client, batch, k, target, filter, threshold, **arranged))
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


@click.command(
    cls=Command,
    short_help="Ask a question about a picture.",
    epilog=write_examples("sightline ask IMG_0815 'What colour is the car?' red blue white"),
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


@click.command(
    cls=Command,
    short_help="Say which part of a picture met words.",
    epilog=write_examples("sightline explain IMG_0815 red car --save why.png"),
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


def pop_arrangement(given: dict[str, Any], *, is_batch: bool, is_picture: bool) -> dict[str, Any]:
    """The options that say how hits are arranged, as fields of a search; takes them out of `given`."""
    arranged = {name: value for name in ARRANGED_OPTIONS if (value := given.pop(name))}
    if arranged.keys() - {"effort"} and is_batch:
        raise click.UsageError("--batch takes no offset, order, groups and feedback")
    if is_picture and arranged.keys() & {"like", "unlike"}:
        raise click.UsageError("--like and --unlike belong to words")
    return arranged


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


COMMANDS = (search, ask, explain)
