"""Command-line options made from Settings: one description serves `--help`, the environment and the docs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import SecretStr, ValidationError

from app.core.errors import StartupError
from app.core.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
TYPES: dict[Any, Any] = {
    **{int: click.INT, float: click.FLOAT, str: click.STRING, Path: PATH, Path | None: PATH},
    SecretStr | None: click.STRING,
}


def setting_options(*names: str) -> Callable[[F], F]:
    """Decorate a command with the options of these settings; `settings_from` reads what was given."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            field = Settings.model_fields[name]
            flag = f"--{name.replace('_', '-')}"
            told = f"{field.description} [default: {field.default}; environment: SIGHTLINE_{name.upper()}]"
            if field.annotation is bool:
                command = click.option(flag, name, is_flag=True, default=None, help=told)(command)
            else:
                command = click.option(flag, name, type=TYPES[field.annotation], default=None, help=told)(command)
        return command

    return decorate


def parse_pairs(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """What was given as `A=B`, any number of times; None when it was not."""
    if wrong := [value for value in values if "=" not in value]:
        raise click.BadParameter(f"{wrong[0]} is not {option.metavar}")
    return {name: value for name, _, value in (one.partition("=") for one in values)} or None


def load_settings(given: dict[str, Any]) -> Settings:
    """Settings from the options that were given, else the environment, else the defaults."""
    sent = {name: value for name, value in given.items() if name in Settings.model_fields and value is not None}
    try:
        return Settings(**sent)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        raise StartupError(f"--{name.replace('_', '-')} (SIGHTLINE_{name.upper()}): {fault['msg']}") from None
