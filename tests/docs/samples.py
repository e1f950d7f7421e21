"""Read the fenced blocks of README.md and docs/, and how a test must treat each.

`python -m tests.docs.samples` lists them. A test runs a block unless a comment before it says otherwise:

    <!-- sample: serve -->                  runs in the background until the page ends or the next such block
    <!-- sample: stopped -->                runs after the page's own server has stopped, as by Ctrl-C
    <!-- sample: not run: model hub -->     does not run, for one of the REASONS; a test still checks its commands
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent.parent
SHELLS = ("sh", "bash", "console")
RUN = (*SHELLS, "python", "js", "javascript")
DATA = ("json", "jsonl", "text", "ini", "toml", "yaml", "nginx", "caddyfile", "dockerfile", "systemd", "promql")
REASONS = {
    "installs": "installs packages, or runs the tests that run this one; tests/acceptance runs what comes after",
    "model hub": "downloads weights",
    "GPU": "needs a GPU and its driver",
    "containers": "needs a container engine",
    "root": "changes the system",
    "address": "needs the address of the repository",
    "half an hour": "measures for that long",
    "elsewhere": "needs pictures on another server, or a folder that a server was started for",
    "captions": "needs a hundred pictures with captions",
    "assistant": "needs an assistant that is not installed here",
    "exiftool": "needs a program that is not installed here",
    "services": "needs a PostgreSQL and a bucket; tests/app/service/test_move.py and tests/reliability bring both",
    "LangChain": "needs LangChain; tests/acceptance/test_langchain.py runs it in an environment of its own",
    "proxy": "needs a proxy, a name and a certificate",
}
MARK = re.compile(r"<!-- sample: (serve|stopped|not run)(?:: (.*?))? -->")
TITLE = re.compile(r'title="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its place, language and title, and the mark in the comment before it."""

    page: str
    line: int
    language: str
    title: str
    text: str
    mark: str = ""
    reason: str = ""

    @property
    def location(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines that a reader types, with continued lines joined; empty for languages other than a shell's."""
        if self.language not in SHELLS:
            return []
        typed = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            typed = [line.removeprefix("$ ") for line in typed if line.startswith("$ ")]
        return [line for line in typed if line.strip() and not line.lstrip().startswith("#")]


def pages() -> list[Path]:
    """README.md and everything under docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tokens(page: Path) -> list[Token]:
    """Parse a page as CommonMark with tables."""
    return MarkdownIt().enable("table").parse(page.read_text("utf-8"))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order. Indented code has the language `indented`, which no test runs."""
    return list(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    before: Token | None = None
    name = str(page.relative_to(ROOT))
    for token in tokens(page):
        line = token.map[0] + 1 if token.map else 0
        if token.type in ("fence", "code_block"):
            words = token.info.split() or ["" if token.type == "fence" else "indented"]
            comment = before.content if before is not None and before.type == "html_block" else ""
            mark = MARK.match(comment)
            title = TITLE.search(token.info)
            kind, reason = (mark.group(1), mark.group(2) or "") if mark else ("", "")
            if "sample:" in comment and not mark:
                kind = comment.strip()
            yield Block(name, line, words[0], title.group(1) if title else "", token.content, kind, reason)
        before = token


def main() -> None:
    """Print every block and whether it runs."""
    for page in pages():
        for block in blocks(page):
            fate = "run" if block.language in RUN else "data"
            if block.mark:
                fate = f"{block.mark}: {block.reason}" if block.reason else block.mark
            if block.title:
                fate = f"{fate}, {block.title}"
            print(f"{block.location:44} {block.language:10} {fate}")


if __name__ == "__main__":
    main()
