"""The commands on keys, in this process; tests/acceptance/test_cli.py runs the command itself."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from app.cli import keys
from app.core.errors import NotFound, StartupError
from app.core.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def list_keys(settings: Settings, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    keys.show_keys(settings, Console(), as_json=True)
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_the_key_alone_is_printed_so_that_a_script_can_keep_it(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    keys.create_key(settings, "nightly load", "write", ("b", "a"), 30)
    out, err = capsys.readouterr()
    assert out.startswith("sl_")
    assert len(out.splitlines()) == 1
    assert out.strip() not in err
    assert "write in a, b, until 2" in err
    (one,) = list_keys(settings, capsys)
    assert (one["name"], one["scope"], one["collections"], one["state"]) == (
        "nightly load",
        "write",
        ["a", "b"],
        "live",
    )
    assert "hash" not in one


def test_the_table_tells_the_state_of_each(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    for name, days in (("one", None), ("two", None), ("three", 1e-9)):
        keys.create_key(settings, name, "search", (), days)
    secrets = [line.split("_", 2)[2] for line in capsys.readouterr().out.splitlines()]
    ids = [str(one["id"]) for one in list_keys(settings, capsys)]
    keys.revoke_key(settings, ids[1])
    assert ids[1] in capsys.readouterr().err
    assert [one["state"] for one in list_keys(settings, capsys)] == ["live", "revoked", "expired"]
    printed = io.StringIO()
    keys.show_keys(settings, Console(file=printed, width=120), as_json=False)
    assert all(word in printed.getvalue() for word in (*ids, "live", "revoked", "expired", "all"))
    assert not any(secret in printed.getvalue() for secret in secrets)
    keys.clear_keys(settings)
    assert "3 keys" in capsys.readouterr().err
    assert list_keys(settings, capsys) == []


def test_nothing_is_made_where_there_is_nothing_but_by_create(settings: Settings) -> None:
    with pytest.raises(StartupError, match="no data directory"):
        keys.show_keys(settings, Console(), as_json=True)
    with pytest.raises(StartupError, match="no data directory"):
        keys.revoke_key(settings, "x")
    assert not settings.data_dir.exists()


def test_an_unknown_key_is_told(settings: Settings) -> None:
    keys.create_key(settings, "me", "admin", (), None)
    with pytest.raises(NotFound):
        keys.revoke_key(settings, "nothing")
