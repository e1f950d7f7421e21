"""What the code offers, the documentation names: an undocumented setting, route, code or command fails here."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from app.__main__ import main
from app.errors import SightlineError, StartupError
from app.settings import Settings
from tests.servers import RunningServer

ROOT = Path(__file__).parent.parent
HTTP = (ROOT / "docs/reference/http.md").read_text("utf-8")
SETTINGS = (ROOT / "docs/reference/settings.md").read_text("utf-8")
COMMANDS = (ROOT / "docs/reference/commands.md").read_text("utf-8")


def leaves(kind: type[SightlineError]) -> list[type[SightlineError]]:
    below = kind.__subclasses__()
    return [kind, *(leaf for child in below for leaf in leaves(child))]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented_with_its_default_and_meaning(name: str) -> None:
    field = Settings.model_fields[name]
    assert f"| `SIGHTLINE_{name.upper()}` | `{field.default}` | {field.description} |" in SETTINGS


@pytest.mark.parametrize("code", sorted({e.code for e in leaves(SightlineError) if e is not StartupError}))
def test_every_error_code_is_documented(code: str) -> None:
    assert f"`{code}`" in HTTP


def test_every_status_of_a_code_is_the_documented_one() -> None:
    for error in leaves(SightlineError):
        if error is not StartupError:
            assert any(f"`{error.code}` | {error.status}" in line for line in HTTP.splitlines()), error


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_and_option_is_documented(name: str) -> None:
    command = main.commands[name]
    assert f"## `sightline {name}" in COMMANDS
    section = COMMANDS.split(f"## `sightline {name}")[1].split("\n## ")[0]
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert f"`{option.opts[-1]}" in section, option.opts


def test_every_route_is_documented(server: RunningServer) -> None:
    for path in server.http.get("/openapi.json").json()["paths"]:
        last = path.rsplit("/", 1)[1]
        assert f"{path}`" in HTTP or f"`/{last}`" in HTTP, path
