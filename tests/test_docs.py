"""What the code offers, the documentation names, and nothing else: an undocumented setting, route, parameter, field,
error code, metric, command or option fails here, and so does one that is documented but gone."""

from __future__ import annotations

import ast
import re
from typing import Any

import click
import pytest

from app.api.errors import CODES_BY_STATUS
from app.cli.main import main
from app.core.errors import SightlineError, StartupError
from app.core.settings import Settings
from app.encoder.catalogue import CATALOGUE, FIGURES, NAME_FORMS
from tests.docs.samples import ROOT
from tests.support.servers import RunningServer

HTTP = (ROOT / "docs/reference/http.md").read_text("utf-8")
SETTINGS = (ROOT / "docs/reference/settings.md").read_text("utf-8")
COMMANDS = (ROOT / "docs/reference/commands.md").read_text("utf-8")
METRICS = (ROOT / "docs/reference/metrics.md").read_text("utf-8")
DIRECTORY = (ROOT / "docs/reference/data-directory.md").read_text("utf-8")
CALLS = {
    (method, path): takes
    for method, path, takes in re.findall(r"^\| `([A-Z]+) (/\S*)` \| (.*?) ?\| .*\|$", HTTP, re.MULTILINE)
}
EVERYWHERE = {"collection", "filter"}  # parameters that are told once, below the table
DOCUMENTED_CODES = {
    code: {int(status) for status in re.findall(r"\d+", statuses)}
    for code, statuses in re.findall(r"^\| `([a-z_]+)` \| ([\d, ]+|–) \|", HTTP, re.MULTILINE)
}


def list_error_classes(kind: type[SightlineError]) -> list[type[SightlineError]]:
    below = kind.__subclasses__()
    return [kind, *(leaf for child in below for leaf in list_error_classes(child))]


def list_error_codes() -> dict[str, set[int]]:
    """Every error code of the code, with the statuses that are known of it."""
    codes: dict[str, set[int]] = {}
    for error in list_error_classes(SightlineError):
        if error is not StartupError:
            codes.setdefault(error.code, set()).add(error.status)
    for status, code in CODES_BY_STATUS.items():
        codes.setdefault(code, set()).add(status)
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                values = [one.value if isinstance(one, ast.Constant) else None for one in node.args]
                if node.func.id == "ItemError" and isinstance(values[0], str):
                    codes.setdefault(values[0], set())
                if node.func.id == "problem_response" and isinstance(values[2], str):
                    codes.setdefault(values[2], set()).update(one for one in values[1:2] if isinstance(one, int))
    return codes


@pytest.fixture(scope="module")
def spec(server: RunningServer) -> dict[str, Any]:
    described: dict[str, Any] = server.http.get("/openapi.json").json()
    return described


def operations(spec: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): one for path, below in spec["paths"].items() for method, one in below.items()}


def resolve_schema(spec: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return spec["components"]["schemas"][name] if name else schema


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented_with_its_default_and_meaning(name: str) -> None:
    field = Settings.model_fields[name]
    assert f"| `SIGHTLINE_{name.upper()}` | `{field.default}` | {field.description} |" in SETTINGS


def test_no_setting_is_documented_that_is_gone() -> None:
    assert {name.lower() for name in re.findall(r"^\| `SIGHTLINE_([A-Z0-9_]+)`", SETTINGS, re.MULTILINE)} == set(
        Settings.model_fields
    )


def test_every_error_code_is_documented_with_its_status_and_no_other() -> None:
    codes = list_error_codes()
    assert set(DOCUMENTED_CODES) == set(codes)
    for code, statuses in codes.items():
        assert statuses <= DOCUMENTED_CODES[code], code


def test_every_route_is_documented_and_no_other(spec: dict[str, Any]) -> None:
    assert set(CALLS) == set(operations(spec))


def test_every_parameter_of_a_route_is_documented_and_no_other(spec: dict[str, Any]) -> None:
    wrong = {}
    for call, operation in operations(spec).items():
        offered = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"} - EVERYWHERE
        documented = set(re.findall(r"`\?(\w+)`", CALLS[call]))
        if offered != documented:
            wrong[call] = (offered, documented)
    assert wrong == {}
    for name in EVERYWHERE:
        assert f"`?{name}`" in HTTP


def test_every_field_of_a_body_is_documented(spec: dict[str, Any]) -> None:
    missing = []
    for call, operation in operations(spec).items():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            fields = resolve_schema(spec, content["schema"]).get("properties", {})
            missing += [(*call, name) for name in fields if f"`{name}`" not in CALLS[call]]
    assert missing == []


def test_every_field_of_a_record_is_documented(spec: dict[str, Any]) -> None:
    records = HTTP.split("\n## Records")[1].split("\n## Errors")[0]
    names = {
        "ImageOut": "Image",
        "TextOut": "Text",
        "JobOut": "Job",
        "PartIn": "Part",
        "SearchOut": "Answer",
        "HitOut": "Hit",
        "CollectionOut": "Collection",
        "SessionOut": "Session",
    }
    for schema, name in names.items():
        told = records.split(f"- **{name}**")[1].split("\n- **")[0]
        words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", told))))
        assert set(spec["components"]["schemas"][schema]["properties"]) <= words, name


def commands(group: click.Group = main, before: str = "") -> dict[str, click.Command]:
    """Every command by its words, without hidden ones; a group itself only where it does something without one of its
    own."""
    found: dict[str, click.Command] = {}
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            found |= commands(one, f"{before}{name} ")
        if not one.hidden and (not isinstance(one, click.Group) or one.invoke_without_command):
            found[before + name] = one
    return found


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_is_documented_with_its_options_and_no_others(name: str) -> None:
    command = commands()[name]
    heading = re.search(rf"^## `sightline {name}(| .*)`$", COMMANDS, re.MULTILINE)
    assert heading, f"sightline {name} is not documented"
    section = COMMANDS[heading.end() :].split("\n## ")[0]
    documented = set(re.findall(r"`(--?[a-z][a-z-]*)`", section.partition("Options:")[2]))
    shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    assert documented == {option.opts[-1] for option in shown}
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    assert len(heading.group(1).split()) == len(arguments)


def test_no_command_is_documented_that_is_gone() -> None:
    assert set(re.findall(r"^## `sightline ([a-z -]+?)(?: [A-Z.]+)*`$", COMMANDS, re.MULTILINE)) == set(commands())


def test_every_metric_is_documented_with_its_kind_and_labels(server: RunningServer) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\|", METRICS, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    text = server.http.get("/metrics").text
    text = server.http.get("/metrics").text  # the first request is counted in the second
    offered = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    assert {name: kind for name, (kind, _) in documented.items()} == offered
    for name, labels in re.findall(r"^(\w+)\{(.*?)\} ", text, re.MULTILINE):
        family = next((one for one in sorted(offered, key=len, reverse=True) if name.startswith(one)), name)
        assert set(re.findall(r'(\w+)="', labels)) - {"le"} == documented[family][1], name


def test_every_entry_of_the_data_directory_is_documented(server: RunningServer) -> None:
    documented = {name.split("/")[0] for name in re.findall(r"`([\w./-]+)`", DIRECTORY.partition("|---|")[2])}
    assert {path.name for path in server.data_dir.iterdir()} <= documented


def test_every_known_model_is_in_the_how_to() -> None:
    page = (ROOT / "docs/howto/choose-a-model.md").read_text("utf-8")
    named = re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE)
    assert named == ["--model", *(model.name for model in CATALOGUE), *(form for form, _ in NAME_FORMS)]
    for model in CATALOGUE:
        (line,) = re.findall(rf"^\| `{re.escape(model.name)}` \|.*$", page, re.MULTILINE)
        for said in (f"`{model.alias}`", f" {model.parameters:g} M ", f" {model.memory} ", model.licence, model.note):
            assert said in line or said in ("``", " 0 M ", " 0 "), (model.name, said)
        figures = [f" {value:.3f} " for field in FIGURES if (value := getattr(model, field))]
        published = re.findall(rf"^\| {re.escape(model.name)} \|.*$", page, re.MULTILINE)
        assert len(published) == bool(figures)
        assert all(said in published[0] for said in (*figures, model.source) if figures)
