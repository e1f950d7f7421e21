from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from app import logs


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
    logs.configure("info", json=True)
    logging.getLogger("app.worker").info("took back %d pictures", 3)
    captured = capsys.readouterr()
    assert captured.out == ""
    record = json.loads(captured.err)
    assert (record["event"], record["level"], record["logger"]) == ("took back 3 pictures", "info", "app.worker")
    assert record["timestamp"].endswith("Z")


def test_a_traceback_stays_within_its_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=True)
    try:
        1 // 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("app").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_lines_for_people_have_no_colours_when_nobody_is_at_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=False)
    logging.getLogger("index.follower").warning("fell behind")
    (line,) = capsys.readouterr().err.splitlines()
    assert "fell behind" in line
    assert "index.follower" in line
    assert "\x1b" not in line


def test_libraries_speak_only_when_something_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", json=False)
    logging.getLogger("httpx").info("GET /")
    logging.getLogger("app").debug("ours")
    logging.getLogger("httpx").warning("trouble")
    told = capsys.readouterr().err
    assert "GET" not in told
    assert "ours" in told
    assert "trouble" in told


def test_the_level_is_the_least_that_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("error", json=False)
    logging.getLogger("app").warning("quiet")
    logging.getLogger("app").error("loud")
    told = capsys.readouterr().err
    assert "quiet" not in told
    assert "loud" in told


@pytest.mark.parametrize("json_lines", [True, False])
def test_what_looks_like_a_key_is_left_out(json_lines: bool, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", json=json_lines)
    key = "sl_0123456789ab_" + "Ab-_" * 10 + "xyz"
    try:
        raise ValueError(key)
    except ValueError:
        logging.getLogger("app").exception("asked for %s twice: %s", key, key)
    captured = capsys.readouterr().err
    assert key not in captured
    assert "Ab-_" not in captured
    assert captured.count("sl_\u2026") + captured.count("sl_\\u2026") == 3
