"""Command-line options from Settings: one description serves `--help`, the environment and the docs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from app.core.errors import StartupError, Validation, describe_fault
from app.core.strict_json import load_json

if TYPE_CHECKING:
    from app.core.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
TYPES: dict[Any, Any] = {
    **{int: click.INT, int | None: click.INT, float: click.FLOAT, str: click.STRING, Path: PATH, Path | None: PATH}
}


class SettingOption(click.Option):
    """Stands for the option of a setting until its command is used: `sightline --help` needs no settings."""

    def make_option(self) -> click.Option:
        from pydantic import SecretStr

        from app.core.settings import Settings

        name = self.name or ""
        field = Settings.model_fields[name]
        default = "" if field.default in (None, "") else f"default: {field.default}; "
        text = f"{field.description} [{default}environment: SIGHTLINE_{name.upper()}]"
        if field.annotation is bool:
            return click.Option([*self.opts, name], is_flag=True, default=None, help=text)
        kind = click.STRING if field.annotation == SecretStr | None else TYPES[field.annotation]
        return click.Option([*self.opts, name], type=kind, default=None, help=text)


class Command(click.Command):
    """A command that may have `setting_options`."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        self.params = [one.make_option() if isinstance(one, SettingOption) else one for one in self.params]
        return super().get_params(ctx)


class Group(Command, click.Group):
    """A group of such commands, which may have them itself."""

    command_class = Command


def setting_options(*names: str) -> Callable[[F], F]:
    """Decorate a command with options for these settings; `load_settings` reads their values."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = click.option(f"--{name.replace('_', '-')}", name, cls=SettingOption)(command)
        return command

    return decorate


def parse_pairs(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """Parse values that are written `A=B`; None when there are none."""
    if wrong := [value for value in values if "=" not in value]:
        raise click.BadParameter(f"{wrong[0]} is not {option.metavar}")
    return {name: value for name, _, value in (one.partition("=") for one in values)} or None


def parse_json(_context: click.Context, _option: click.Parameter, text: str | None) -> dict[str, Any] | None:
    """Parse a JSON object; None when the option is not given."""
    try:
        value = None if text is None else load_json(text, "this")
    except Validation as error:
        raise click.BadParameter(error.detail) from None
    if text is not None and not isinstance(value, dict):
        raise click.BadParameter("it is no JSON object")
    return value


def load_settings(given: dict[str, Any]) -> Settings:
    """Load settings as `read_settings` does, and print a line for each variable that is no setting."""
    from app.core.settings import find_unknown_variables

    settings = read_settings(given)
    for text in find_unknown_variables():
        click.echo(f"sightline: {text}", err=True)
    return settings


def read_settings(given: dict[str, Any]) -> Settings:
    """Load settings from the options, else from the environment, else from their defaults. Raises StartupError."""
    from pydantic import ValidationError

    from app.core.settings import Settings

    values = {name: value for name, value in given.items() if name in Settings.model_fields and value is not None}
    if values.keys() >= {"key", "key_file"}:
        raise click.UsageError("give either --key or --key-file")
    if "key_file" in values:
        values["key"] = None  # whatever the environment has
    try:
        return Settings(**values)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        raise StartupError(f"--{name.replace('_', '-')} (SIGHTLINE_{name.upper()}): {describe_fault(fault)}") from None
