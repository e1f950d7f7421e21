from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from app.cli.output import (
    escape,
    hit_row,
    print_paths,
    show_collections,
    show_failed,
    show_hint,
    show_hits,
    show_jobs,
    show_matches,
    show_models,
    show_reading,
    show_status,
    show_verdict,
    show_warnings,
)
from app.encoder.catalogue import CATALOGUE


def render(show: Any, *args: Any, on_terminal: bool = True) -> str:
    out = io.StringIO()
    show(*args, Console(file=out, width=200, force_terminal=on_terminal, color_system=None))
    return out.getvalue()


ID = "0123456789abcdef" * 2
HIT: dict[str, Any] = {"id": ID, "score": 0.71828, "image": None, "text": None}
PICTURE = {"caption": "a [bold]cat[/bold]\x1b[31m", "source": "trip/day\t1/IMG_0001.jpg"}
FOUND = {"took_ms": {"total": 12.345}, "searched": 1500, "target": "images"}


def test_text_from_outside_is_shown_without_what_a_terminal_would_act_on() -> None:
    assert escape("\x1b[31mred\x1b[0m\r\n") == "�\\[31mred�\\[0m��"
    out = io.StringIO()
    Console(file=out, width=80).print(escape("[bold]x[/bold] 笑脸"))
    assert out.getvalue() == "[bold]x[/bold] 笑脸\n"


def test_a_terminal_shows_the_base_name_first_and_the_beginning_of_the_id() -> None:
    out = render(show_hits, {**FOUND, "hits": [{**HIT, "image": PICTURE}]})
    header, _, row = out.splitlines()[1:4]
    assert header.split() == ["score", "name", "words", "folder", "id"]
    assert row.split()[:2] == ["0.718", "IMG_0001.jpg"]
    assert row.split()[-1] == ID[:8]
    assert "a [bold]cat[/bold]" in row  # as it is: what others wrote is no markup
    assert "\x1b" not in out
    assert "1 of 1500 images in 12.3 ms" in out
    nameless = render(show_hits, {**FOUND, "hits": [{**HIT, "image": {"caption": None, "source": None}}]})
    assert nameless.splitlines()[1].split() == ["score", "id"]
    assert "own-id" in render(show_hits, {**FOUND, "hits": [{**HIT, "id": "own-id-of-more-than-8"}]})


def test_a_pipe_gets_a_line_for_each_hit_with_whole_path_and_id() -> None:
    hits = [{**HIT, "image": PICTURE}, {**HIT, "id": "t", "text": {"text": "red\ncar"}}]
    out = render(show_hits, {**FOUND, "hits": hits}, on_terminal=False)
    assert [line.split("\t") for line in out.splitlines()] == [
        ["0.718", ID, "trip/day 1/IMG_0001.jpg", "a [bold]cat[/bold] [31m"],
        ["0.718", "t", "", "red car"],
    ]
    assert "\x1b" not in out


def test_paths_are_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    print_paths({"hits": [{**HIT, "image": {"source": "a/b c.jpg"}}, {**HIT, "image": {"source": None}}]})
    assert capsys.readouterr() == ("a/b c.jpg\n", "1 of the hits have no path\n")


def test_warnings_of_an_answer_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    show_hint("knows\x1b drawings")
    show_hint(None)
    show_warnings({"warnings": [{"code": "x", "detail": "this model reads\x1b English"}]})
    show_warnings({})
    assert capsys.readouterr() == ("", "model: knows  drawings\nwarning: this model reads  English\n")


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({"verdict": {"match": "none"}, "hits": [HIT]}, "nothing fits well; nearest:\n"),
        ({"verdict": {"match": "none"}, "hits": []}, "nothing fits\n"),
        ({"verdict": {"match": "weak"}, "hits": [HIT]}, ""),
        ({"verdict": None, "hits": [HIT]}, ""),
        ({"hits": [HIT]}, ""),
    ],
)
def test_where_nothing_fits_standard_error_says_so(
    found: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_verdict(found)
    assert capsys.readouterr() == ("", line)


WELL: dict[str, Any] = {"status": "ok", "reasons": [], "checks": []}
STATS: dict[str, Any] = {
    "collection": "default",
    "images": {"total": 5, "ready": 1, "queued": 1, "processing": 1, "failed": 2},
    "texts": 7,
    "model": None,
    "index": None,
}


def test_status_before_the_model_is_there_tells_why_and_the_counts() -> None:
    checks = [{"name": "disk", "ok": False, "detail": "3 MiB are free"}, {"name": "queue", "ok": True, "detail": "x"}]
    ready = {"status": "not ready", "reasons": ["the model is still loading"], "checks": checks}
    out = render(show_status, ready, STATS)
    assert "not ready: the model is still loading" in out
    assert "fault   disk: 3 MiB are free" in out
    assert "queue:" not in out
    assert render(show_status, WELL | {"status": "degraded"}, STATS).startswith("ready, but a check fails\n")
    assert "images  5 (1 ready, 1 queued, 1 processing, 2 failed)" in out
    assert "texts   7" in out
    assert "model " not in out.replace("the model", "")


def test_status_tells_model_and_index() -> None:
    model = {"name": "colours", "device": "cpu", "d": 60, "space": "abc"}
    index = {"images": {"ntotal": 3, "kind": "exact", "lag": 1}}
    out = render(show_status, WELL, {**STATS, "model": model, "index": index})
    assert out.startswith("ready\n")
    assert "model   colours on cpu, d 60, space abc\n" in out
    assert "index   images: 3 vectors, exact, lag 1" in out


def test_status_tells_of_the_space_that_fills() -> None:
    filling = {"model": "new", "state": "filling", "job": "abc", "done": 3, "total": 9}
    out = render(show_status, WELL, {**STATS, "spaces": [{"model": "old", "state": "serving"}, filling]})
    assert "next    new: 3 of 9 encoded by the job abc\n" in out
    assert "old" not in out


def test_status_of_another_collection_says_which() -> None:
    assert "of      birds\n" in render(show_status, WELL, {**STATS, "collection": "birds"})


def test_collections_are_shown_with_counts_model_and_what_was_said_of_them() -> None:
    birds = {"name": "birds", "description": "what [i]flies", "images": 3, "texts": 1, "space": {"model": "starter"}}
    lines = render(show_collections, [birds, {**birds, "name": "empty", "space": None}]).splitlines()
    assert [word for word in lines[3].split() if word.isalnum()] == ["birds", "3", "1", "starter", "what"]
    assert "[i]flies" in lines[3]
    assert "starter" not in lines[4]


def test_every_listed_model_is_shown() -> None:
    out = render(show_models)
    flat = "".join(out.split())
    assert all("".join(model.note.split()) in flat or model.alias in out for model in CATALOGUE)
    assert all(model.alias in out for model in CATALOGUE)
    assert "local-dir:FOLDER" in out


def test_what_would_be_deleted_is_counted_and_a_few_of_it_shown() -> None:
    image = {"id": "cat-1", "created_at": "2026-01-31T12:00:00.000Z", "caption": None, "source": "a\x1b[31m.png"}
    out = render(show_matches, {"matched": 7, "deleted": 0, "examples": [image]})
    assert "7 pictures match" in out
    assert "cat-1" in out
    assert "2026-01-31" in out
    assert "and 6 more" in out
    assert "\x1b" not in out
    out = render(show_matches, {"matched": 1, "deleted": 0, "examples": [image]})
    assert "1 picture matches" in out
    assert "more" not in out
    assert render(show_matches, {"matched": 0, "deleted": 0, "examples": []}) == "0 pictures match\n"


def test_jobs_are_shown_with_their_counts_and_what_failed_with_why() -> None:
    job = {"id": "j1", "kind": "bulk", "state": "paused", "created_at": "2026-01-01T00:00:00Z", "name": "trip.zip"}
    out = render(show_jobs, [{**job, "total": 60, "done": 1, "duplicates": 2, "failed": 57}])
    assert [word for word in ("name", "trip.zip", "j1", "paused", "3 of 60, 57 failed") if word not in out] == []
    items = [{"name": f"{n}[red].png", "error": {"code": "image_corrupt", "detail": "cut"}} for n in range(57)]
    out = render(show_failed, iter(items), 57)
    assert "49[red].png" in out
    assert "50[red].png" not in out
    assert "and 7 more" in out
    assert render(show_failed, iter(()), 0) == ""
    (line,) = render(
        show_jobs, [{**job, "total": 60, "done": 1, "duplicates": 2, "failed": 57}], on_terminal=False
    ).splitlines()
    assert line.split("\t") == ["j1", "bulk", "paused", "60", "1", "2", "57", "2026-01-01T00:00:00Z", "trip.zip"]


def test_a_frame_of_a_video_says_where_it_is() -> None:
    hit = {"id": "x", "score": 0.5, "text": None, "image": {"source": "trip/clip.mp4", "caption": None, "t_ms": 83_500}}
    row = hit_row(hit)
    assert (row["name"], row["path"]) == ("clip.mp4 1:23", "trip/clip.mp4")


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (None, ""),
        ({"text": "July 2023", "from": "2023-07-01", "to": "2023-07-31"}, "from 2023-07-01 to 2023-07-31"),
        ({"text": "before 2020", "from": None, "to": "2019-12-31"}, "from the first to 2019-12-31"),
    ],
)
def test_words_of_time_are_told(time: dict[str, Any] | None, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_reading({"warnings": [], "applied": {"mode": "hybrid"} | ({"time": time} if time else {})})
    assert said in (err := capsys.readouterr().err)
    assert bool(err) is bool(time)


def test_status_tells_who_is_alive_in_a_cluster() -> None:
    member = {
        "kind": "server",
        "host": "a[1]",
        "pid": 7,
        "since": "2026-01-01T00:00:00Z",
        "duties": ["garbage", "tasks"],
    }
    worker = {**member, "kind": "worker", "pid": 8, "duties": []}
    out = render(show_status, WELL, {**STATS, "cluster": [member, worker]})
    assert "server  a[1], process 7, since 2026-01-01T00:00:00Z, does garbage, tasks\n" in out
    assert "worker  a[1], process 8, since 2026-01-01T00:00:00Z\n" in out
