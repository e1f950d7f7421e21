from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from app.core.logging import bind_log_fields, configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in ("app", "index", "sightline")}
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_json_lines_hold_level_logger_time_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", json=True)
    logging.getLogger("app.worker.embed").info("took back %d pictures", 3)
    captured = capsys.readouterr()
    assert captured.out == ""
    record = json.loads(captured.err)
    assert (record["event"], record["level"], record["logger"]) == ("took back 3 pictures", "info", "app.worker.embed")
    assert record["timestamp"].endswith("Z")


def test_a_traceback_stays_within_its_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", json=True)
    try:
        1 // 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("app").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_lines_for_people_have_no_colours_when_nobody_is_at_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", json=False)
    logging.getLogger("index.follower").warning("fell behind")
    (line,) = capsys.readouterr().err.splitlines()
    assert "fell behind" in line
    assert "index.follower" in line
    assert "\x1b" not in line


def test_libraries_speak_only_when_something_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug", json=False)
    logging.getLogger("httpx").info("GET /")
    logging.getLogger("app").debug("ours")
    logging.getLogger("httpx").warning("trouble")
    told = capsys.readouterr().err
    assert "GET" not in told
    assert "ours" in told
    assert "trouble" in told


def test_the_level_is_the_least_that_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    configure("error", json=False)
    logging.getLogger("app").warning("quiet")
    logging.getLogger("app").error("loud")
    told = capsys.readouterr().err
    assert "quiet" not in told
    assert "loud" in told


@pytest.mark.parametrize("json_lines", [True, False])
def test_what_looks_like_a_key_is_left_out(json_lines: bool, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", json=json_lines)
    key = "sl_0123456789ab_" + "Ab-_" * 10 + "xyz"
    try:
        raise ValueError(key)
    except ValueError:
        logging.getLogger("app").exception("asked for %s twice: %s", key, key)
    captured = capsys.readouterr().err
    assert key not in captured
    assert "Ab-_" not in captured
    assert captured.count("sl_\u2026") + captured.count("sl_\\u2026") == 3


@pytest.mark.parametrize("json_lines", [True, False])
@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("GET https://bucket.example/a.jpg?X-Amz-Signature=SECRET&x=1 failed", "https://bucket.example/a.jpg?"),
        ("postgres://ann:SECRET@db.example/x", "postgres://\u2026@db.example/x"),
        ("Authorization: Bearer SECRET.SECRET", "Authorization: Bearer"),
        ("'x-api-key': 'SECRET'", "x-api-key"),
        ("cookie: sightline_8000=SECRET; other=SECRET", "cookie"),
        ("set-cookie: sightline_8123=SECRET; Path=/", "set-cookie"),
        ("index_token=SECRET", "index_token="),
        ("aws_secret_access_key = SECRET", "aws_secret_access_key"),
        ("AKIASECRETSECRETSECR", "AKIA\u2026"),
        ("no secret in 12 pictures of http://a.example/b", "no secret in 12 pictures of http://a.example/b"),
    ],
)
def test_secrets_are_left_out_and_the_rest_stays(
    written: str, kept: str, json_lines: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", json=json_lines)
    logging.getLogger("app").warning("%s", written, extra={"url": written})
    told = capsys.readouterr().err
    assert "SECRET" not in told
    assert kept in (json.loads(told)["event"] if json_lines else told)


@pytest.mark.parametrize("json_lines", [True, False])
def test_no_line_can_be_forged_and_no_terminal_be_moved(json_lines: bool, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "a\r\n2026-01-01 [info] forged\x1b[2J\x9b31m\x00\x7f\u2028\u202e"
    configure("info", json=json_lines)
    logging.getLogger("app").warning("sent %s", nasty, extra={"path": nasty, "names": [nasty]})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    if json_lines:
        record = json.loads(line)
        assert record["path"] == nasty
        assert record["names"] == [nasty]
    try:
        raise ValueError(nasty)
    except ValueError:
        logging.getLogger("app").exception("failed")
    first, *rest = capsys.readouterr().err.split("\n")[:-1]
    assert first.isprintable()
    assert not [line for line in rest if not line.startswith("  | ") or not line.isprintable()]
    assert bool(rest) is not json_lines


def test_records_carry_what_they_are_about_and_their_own_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", json=True)
    with bind_log_fields(job="j1"):
        logging.getLogger("app").info("failed", extra={"picture": "p1"})
    logging.getLogger("app").info("later")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["job"], first["picture"]) == ("j1", "p1")
    assert "job" not in second


def test_a_very_long_value_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", json=True)
    logging.getLogger("app").info("x" * 100_000)
    assert len(capsys.readouterr().err) < 5_000
