"""Read docker/Dockerfile and .dockerignore: only the parts of their syntax that these two files use."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

WORDS = frozenset(
    {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "VOLUME", "WORKDIR"}
)


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: its name, its --flags, and the rest of its line."""

    word: str
    flags: dict[str, str]
    rest: str

    def words(self) -> list[str]:
        """The rest as a list: parsed as JSON if it is JSON, else split like a shell line."""
        if self.rest.startswith("["):
            words: list[str] = json.loads(self.rest)
            return words
        return shlex.split(self.rest)


def read_steps(path: Path) -> list[Step]:
    """The instructions in order."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    steps = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            word, rest = line.split(maxsplit=1)
            flags = {}
            while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
                flags[match[1]] = match[2]
                rest = rest[match.end() :]
            assert word in WORDS, f"{word} is not understood here: extend tests/acceptance/dockerfile.py"
            steps.append(Step(word, flags, rest.strip()))
    return steps


def expand_variables(text: str, variables: dict[str, str]) -> str:
    """Replace $NAME and ${NAME} in the text."""
    return re.sub(r"\$\{?([A-Za-z_]+)\}?", lambda match: variables.get(match[1], ""), text)


def list_context(root: Path, ignore: Path) -> list[Path]:
    """The files of the build context, relative to `root`. The last pattern that matches a file decides."""
    patterns = [line for line in ignore.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert patterns[0] == "*", "what is sent is listed, not what is kept back"
    roots = {pattern.removeprefix("!").split("/")[0] for pattern in patterns if pattern.startswith("!")}
    files = (file for top in sorted(roots) for file in [root / top, *(root / top).rglob("*")] if file.is_file())
    return [name for file in files if is_sent(name := file.relative_to(root), patterns)]


def is_sent(name: Path, patterns: list[str]) -> bool:
    """Whether a file of this name belongs to the build context."""
    kept = True
    whole = [str(part) for part in (name, *name.parents)]
    for pattern in patterns:
        plain = pattern.removeprefix("!").removeprefix("**/")
        tried = [part.rpartition("/")[2] for part in whole] if "**/" in pattern else whole
        if any(part.count("/") == plain.count("/") and fnmatch(part, plain) for part in tried if part != "."):
            kept = pattern.startswith("!")
    return kept
