"""Every command and code sample of README.md and docs/ runs as it stands, against a real server."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import httpx2 as httpx
import pytest

from app.cli.main import main
from tests.docs.samples import DATA, REASONS, ROOT, RUN, Block, blocks, pages
from tests.docs.terminal import Terminal

PAGES = [page for page in pages() if blocks(page)]
ALL = [block for page in PAGES for block in blocks(page)]
NOT_RUN = [block for block in ALL if block.mark == "not run"]
WIDTH = 88  # characters that a reader sees without scrolling
REQUEST = re.compile(r"(GET|POST|PATCH|DELETE) (/\S+)")
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_sample_of_the_page_runs(page: Path, terminal: Terminal, request: pytest.FixtureRequest) -> None:
    for block in blocks(page):
        if block.mark == "not run":
            continue
        if block.mark == "serve":
            terminal.serve(block)
        elif block.language in ("js", "javascript"):
            run_script(block, terminal, request)
        elif block.language in RUN:
            terminal.run(block)
        elif sent := REQUEST.fullmatch(block.title):
            send(block, terminal.server, *sent.groups())


def run_script(block: Block, terminal: Terminal, request: pytest.FixtureRequest) -> None:
    """Run JavaScript in a page of the server's origin; an error or a failed request fails the test."""
    context = request.getfixturevalue("browser").new_context()
    try:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("response", lambda answer: faults.append(answer.url) if answer.status >= 400 else None)
        page.goto(terminal.server + "/docs")
        page.evaluate(f"async () => {{ {terminal.insert_address(block.text)}\n }}")
        assert faults == [], block.location
    finally:
        context.close()


def send(block: Block, server: str, method: str, path: str) -> None:
    """Send a JSON body to the route in the title of its block."""
    headers = {"Content-Type": "application/json"}
    answer = httpx.request(method, server + path, content=block.text, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code < 300, f"{block.location}: {answer.text}"


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.location)
def test_every_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.language in RUN + DATA, f"{block.location}: {block.language!r}; fence it and name its language"
    assert block.mark in ("", "serve", "stopped", "not run"), f"{block.location}: nobody knows {block.mark}"
    if block.mark == "not run":
        assert block.language in RUN, f"{block.location} is data and needs no mark"
        assert block.reason in REASONS, f"{block.location}: {block.reason!r} is none of {sorted(REASONS)}"
    if block.mark == "serve":
        assert "sightline serve" in block.commands[-1], f"{block.location} starts no server"


@pytest.mark.parametrize(
    "block", [one for one in ALL if one.language in ("json", "jsonl")], ids=lambda one: one.location
)
def test_json_is_json(block: Block) -> None:
    for text in block.text.splitlines() if block.language == "jsonl" else [block.text]:
        json.loads(text)


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.location)
def test_what_cannot_be_run_here_is_at_least_there(block: Block) -> None:
    """Commands, options, targets and scripts that are named exist."""
    for line in block.commands:
        for command in split_simple_commands(line):
            check(block, command)


def split_simple_commands(line: str) -> list[list[str]]:
    """The words of each command of a line, without assignments before it and redirections after it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;()"):
            commands.append([])
        elif commands[-1] or not re.fullmatch(r"[A-Z_]+=.*", word):
            commands[-1].append(word)
    return [command for command in commands if command]


def check(block: Block, words: list[str]) -> None:
    program, *rest = words
    if program == "sudo":
        program, *rest = [word for word in rest if not word.startswith("-")] or ["sudo"]
    if Path(program).name == "sightline" and rest:
        assert rest[0] in main.commands, f"{block.location}: there is no command {rest[0]}"
        command = main.commands[rest[0]]
        try:
            command.make_context(rest[0], rest[1:])
        except click.UsageError as error:
            raise AssertionError(f"{block.location}: {error.format_message()}") from None
    elif program == "make":
        targets = [word for word in rest if "=" not in word and not word.startswith("-")]
        assert set(targets) <= TARGETS, f"{block.location}: make has no target {targets}"
    elif program.startswith("scripts/"):
        assert (ROOT / program).is_file(), f"{block.location}: there is no {program}"


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.location)
def test_a_block_is_no_wider_than_the_page(block: Block) -> None:
    assert [line for line in block.text.splitlines() if len(line) > WIDTH] == [], block.location


def test_the_blocks_that_are_not_run_are_few() -> None:
    """Keeps the mark from hiding samples that fail."""
    shown: dict[str, Any] = {block.location: block.reason for block in NOT_RUN}
    run = [block for block in ALL if block.language in RUN]
    assert len(shown) <= len(run) / 2, shown
