from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from app.cli.main import main
from app.cli.options import Command, SettingOption, load_settings, parse_pairs, setting_options
from app.core.errors import StartupError
from app.core.settings import Settings


@pytest.fixture
def seen_options(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.delenv("SIGHTLINE_PORT", raising=False)
    return {}


@pytest.fixture
def command(seen_options: dict[str, Any]) -> click.Command:
    @click.command(cls=Command)
    @setting_options("port", "data_dir", "model", "decode_seconds", "insecure")
    def command(**given: Any) -> None:
        seen_options.update(given)

    return command


def test_options_have_the_types_of_their_settings(command: click.Command, seen_options: dict[str, Any]) -> None:
    ran = CliRunner().invoke(
        command, ["--port", "1", "--data-dir", "/x", "--model", "m", "--decode-seconds", "2.5", "--insecure"]
    )
    assert ran.exit_code == 0
    assert seen_options == {"port": 1, "data_dir": Path("/x"), "model": "m", "decode_seconds": 2.5, "insecure": True}


def test_what_is_not_given_is_none_so_that_the_environment_counts(
    command: click.Command, seen_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CliRunner().invoke(command, []).exit_code == 0
    assert set(seen_options.values()) == {None}
    monkeypatch.setenv("SIGHTLINE_PORT", "1234")
    assert load_settings(seen_options).port == 1234
    assert load_settings({**seen_options, "port": 0}).port == 0


def test_help_tells_description_default_and_variable(command: click.Command) -> None:
    told = " ".join(CliRunner().invoke(command, ["--help"], terminal_width=400).output.split())
    assert "Port to listen on; 0 takes any free port. [default: 8000; environment: SIGHTLINE_PORT]" in told


def test_every_setting_can_be_an_option() -> None:
    for name in Settings.model_fields:
        SettingOption([f"--{name}", name]).make_option()


def walk_commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, one in group.commands.items():
        yield f"{path} {name}", one
        if isinstance(one, click.Group):
            yield from walk_commands(one, f"{path} {name}")


def test_every_command_makes_the_options_of_its_settings() -> None:
    for path, one in walk_commands(main, "sightline"):
        options = one.get_params(click.Context(one))
        assert not [option.name for option in options if isinstance(option, SettingOption)], path


def test_to_list_the_commands_needs_no_settings() -> None:
    """They would take most of the time of `sightline --help`."""
    code = "import sys, app.cli.main; app.cli.main.main(['--help'], standalone_mode=False); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "Serve a data directory over HTTP." in done.stdout
    assert not {"pydantic", "asyncio", "httpx2", "numpy"} & set(done.stdout.split())


@pytest.mark.parametrize("given", [{"port": 99999}, {"port": "x"}])
def test_a_bad_value_is_one_line_that_names_option_and_variable(given: dict[str, Any]) -> None:
    with pytest.raises(StartupError, match=r"^--port \(SIGHTLINE_PORT\): .+") as refused:
        load_settings(given)
    assert "\n" not in refused.value.detail


def test_a_bad_value_of_the_environment_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_BATCH_SIZE", "many")
    with pytest.raises(StartupError, match=r"^--batch-size \(SIGHTLINE_BATCH_SIZE\): .+"):
        load_settings({})


def test_a_key_file_that_is_given_goes_before_a_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_KEY", "sl_environment")
    (tmp_path / "key").write_text("sl_file")
    assert load_settings({"key_file": tmp_path / "key"}).read_client_key() == "sl_file"
    with pytest.raises(click.UsageError, match="either --key or --key-file"):
        load_settings({"key": "sl_given", "key_file": tmp_path / "key"})


def test_options_that_are_no_settings_are_ignored() -> None:
    assert load_settings({"once": True, "port": 5}).port == 5


def test_pairs_are_names_with_values() -> None:
    got: list[Any] = []

    @click.command()
    @click.option("--column", "columns", multiple=True, callback=parse_pairs, metavar="ROLE=NAME")
    def command(columns: Any) -> None:
        got.append(columns)

    assert CliRunner().invoke(command, ["--column", "url=a=b", "--column", "id=sku"]).exit_code == 0
    assert CliRunner().invoke(command, []).exit_code == 0
    assert got == [{"url": "a=b", "id": "sku"}, None]
    assert "url is not ROLE=NAME" in CliRunner().invoke(command, ["--column", "url"]).output


def test_a_variable_that_is_no_setting_is_one_line_of_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_COLECTION", "birds")
    for command in (
        ["models"],
        ["keys", "list", "--data-dir", "/nowhere"],
        ["status", "--server", "http://127.0.0.1:1"],
    ):
        told = CliRunner().invoke(main, command).stderr
        assert told.count("there is no setting SIGHTLINE_COLECTION; did you mean SIGHTLINE_COLLECTION?\n") == 1, told
