"""Shows evaluations: a table on a terminal, and a page of HTML that holds its pictures itself."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from rich.console import Console

from app.cli.output import print_rows

Result = Mapping[str, Any]
FindThumbnail = Callable[[Mapping[str, str]], bytes | None]
"""The thumbnail of a picture, which is named by its `id` or its `name`; None if there is none."""

DIRECTIONS = {"text_to_image": "text → picture", "image_to_text": "picture → text"}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
body { color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left; white-space: pre }
.miss { display: flex; gap: 1rem; align-items: center; margin: 1rem 0 }
.miss img { max-width: 10rem; max-height: 10rem }
.miss div { flex: 1; overflow-wrap: anywhere }
figure { margin: 0; text-align: center; max-width: 12rem }
figcaption, small { color: #666; font-size: .8rem; overflow-wrap: anywhere }
.warning { background: #fff3cd; padding: .5rem 1rem }
"""


def show_results(results: Sequence[Result], console: Console) -> None:
    """A line for each direction and language of each model, and for each way to search."""
    for result in results:
        ks = list_recalls(result["text_to_image"])
        head = f" with the head {result['head']}" if result.get("head") else ""
        console.print(
            f"{result['model']}{head}: {result['n']} pictures and {result['texts']} texts",
            markup=False,
            highlight=False,
        )
        rows = [[name, *cells(figures, ks)] for name, figures in iter_lines(result)]
        print_rows(console, ("", "texts", *ks, "median rank"), rows, rows)
        if searches := result.get("searches"):
            console.print(f"the texts searched among the {searches[0]['searched']} pictures of the collection:")
            rows = [[name_search(line), *cells(line, ks)] for line in searches]
            print_rows(console, ("search", "texts", *ks, "median rank"), rows, rows)


def iter_lines(result: Result) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for direction, title in DIRECTIONS.items():
        yield title, result[direction]
        for language, both in result.get("languages", {}).items():
            yield f"  {language}: {title}", both[direction]


def name_search(line: Mapping[str, Any]) -> str:
    """A way to search, with what the server applied of itself."""
    applied = [name for name in ("normalised", "templates") if line.get(name)]
    return str(line["name"]) + (f" ({', '.join(applied)})" if applied else "")


def list_recalls(figures: Mapping[str, Any]) -> list[str]:
    """The names `R@k` of what was measured."""
    return [name for name in figures if name.startswith("R@")]


def cells(figures: Mapping[str, Any], ks: Sequence[str]) -> list[str]:
    median = figures["median_rank"]
    return [
        str(figures["n"]),
        *(format_recall(figures, k) for k in ks),
        "" if median is None else f"{median:g}",
    ]


def format_recall(figures: Mapping[str, Any], k: str) -> str:
    """A recall with its confidence, as 0.437 (0.41–0.46)."""
    ends = figures["confidence"].get(k)
    return f"{figures[k]:.3f}" + (f" ({ends[0]:.2f}–{ends[1]:.2f})" if ends else "")


def render_report(results: Sequence[Result], title: str, find_thumbnail: FindThumbnail) -> str:
    """A page without scripts that loads nothing; every text in it is escaped."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        "<p>R@k is the share of texts whose picture is among the first k (of pictures, the share that finds one of its "
        "texts); in brackets are the ends of its 95 % confidence interval.</p>",
    ]
    for result in results:
        parts.append(f"<h2>{escape(result['model'])}</h2>")
        parts += [f'<p class="warning">{escape(one["detail"])}</p>' for one in result.get("warnings", ())]
        ks = list_recalls(result["text_to_image"])
        parts.append(render_table("", ks, [(name, figures) for name, figures in iter_lines(result)]))
        if searches := result.get("searches"):
            count = searches[0]["searched"]
            parts.append(f"<h3>Searched among the {count} pictures of the collection</h3>")
            parts.append(render_table("search", ks, [(name_search(line), line) for line in searches]))
        parts += render_misses(result["misses"], find_thumbnail)
    return "\n".join([*parts, "</body></html>\n"])


def render_table(first: str, ks: Sequence[str], rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in (first, "n", *ks, "median rank"))
    lines = (
        f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(figures, ks)) + "</tr>"
        for name, figures in rows
    )
    return f"<table><tr>{names}</tr>{''.join(lines)}</table>"


def render_misses(misses: Mapping[str, Sequence[Mapping[str, Any]]], find_thumbnail: FindThumbnail) -> Iterator[str]:
    """The worst misses: what was looked for on the left, what came first on the right."""

    def figure(picture: Mapping[str, str], caption: str) -> str:
        name = escape(picture.get("id") or picture.get("name") or "")
        data = find_thumbnail(picture)
        shown = "" if data is None else f'<img alt="{name}" src="{data_uri(data)}">'
        return f"<figure>{shown}<figcaption>{escape(caption)}<br>{name}</figcaption></figure>"

    if misses["text_to_image"]:
        yield "<h3>Texts that find their picture last</h3>"
    for miss in misses["text_to_image"]:
        words = f"<div>“{escape(miss['text'])}” <small>finds its picture at rank {miss['rank']}</small></div>"
        pictures = figure(miss["image"], "its picture") + figure(miss["first"], "found first")
        yield f'<div class="miss">{words}{pictures}</div>'
    if misses["image_to_text"]:
        yield "<h3>Pictures that find their texts last</h3>"
    for miss in misses["image_to_text"]:
        own = "<br>".join(f"“{escape(text)}”" for text in miss["texts"])
        first = f"<small>found first: “{escape(miss['first'])}”, its own at rank {miss['rank']}</small>"
        yield f'<div class="miss">{figure(miss["image"], "the picture")}<div>{own}<br>{first}</div></div>'


def data_uri(data: bytes) -> str:
    kind = "webp" if data[8:12] == b"WEBP" else "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
