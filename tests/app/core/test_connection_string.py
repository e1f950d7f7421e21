from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from app.core import logging as our_logging
from app.core.connection_string import check_database_url, describe_database, find_secrets
from app.core.logging import configure
from app.core.settings import Settings

PASSWORD = "p%40ss w0rd"
MEANT = "p@ss w0rd"
URL = f"postgresql://owner:{PASSWORD}@db.example.org:5433/pictures?sslmode=require&password=other-one"


@pytest.fixture
def _known_secrets() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, before = root.handlers, root.level, set(our_logging.KNOWN_SECRETS)
    yield
    our_logging.KNOWN_SECRETS.clear()
    our_logging.KNOWN_SECRETS.update(before)
    root.handlers = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    "value",
    [
        "sqlite",
        "postgresql://",
        "postgres://u@h/d",
        URL,
        "postgresql:///d?host=/run/postgresql",
        "postgresql://h1:1,h2:2/d",
    ],
)
def test_names_of_databases_are_taken(value: str) -> None:
    check_database_url(value)


@pytest.mark.parametrize(
    "value",
    [
        *("", "mysql://u:hunter22@h/d", "owner:hunter22@h", "postgresql:hunter22", "postgresql://u:hunter22@h:port/d"),
        *("postgresql://u:hunter#22@h/d", "postgresql://u:hunter22@[::1/d", "postgresql://u:hun/ter22@h/d"),
    ],
)
def test_a_name_of_no_database_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (pydantic takes its text)
        check_database_url(value)
    assert "hunter" not in str(refused.value)
    assert "hunter" not in describe_database(value)


def test_a_connection_string_is_shown_without_what_is_secret() -> None:
    assert describe_database("sqlite") == "sqlite"
    assert describe_database("postgresql://h/d") == "postgresql://h/d"
    shown = describe_database(URL)
    assert shown == "postgresql://owner@db.example.org:5433/pictures?sslmode=require&password=…"
    assert find_secrets("sqlite") == frozenset()
    assert find_secrets(URL) == {PASSWORD, MEANT, "other-one"}
    assert find_secrets("postgresql://u:x@[::1/d") == {"postgresql://u:x@[::1/d"}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.usefixtures("_known_secrets")
def test_no_line_of_the_log_holds_a_password(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    configure("info", json=as_json, secrets=find_secrets(URL))
    logging.getLogger("app").warning("at %s and %s and %s: other-one", URL, MEANT, PASSWORD)
    (line,) = capsys.readouterr().err.splitlines()
    assert not [secret for secret in (PASSWORD, MEANT, "other-one") if secret in line]


def test_settings_do_not_show_the_connection_string() -> None:
    settings = Settings(database=URL)
    assert settings.is_cluster
    assert PASSWORD not in repr(settings)
    assert PASSWORD in settings.environment()["SIGHTLINE_DATABASE"]  # of a child process
    assert json.loads(settings.model_dump_json(exclude={"database"}))
