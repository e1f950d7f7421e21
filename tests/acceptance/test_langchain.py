"""The LangChain retriever of docs/howto/langchain-and-tables.md runs as it stands, with LangChain as it is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.docs.samples import ROOT, blocks
from tests.support.callers import caller_python
from tests.support.pictures import picture
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs/howto/langchain-and-tables.md"


def test_the_retriever_of_the_page_returns_pictures_as_documents(tmp_path: Path) -> None:
    python = caller_python("langchain")
    with RunningServer(tmp_path / "data") as server:
        for n, (colour, caption) in enumerate((("red", "a red car"), ("blue", "the sea"), ("green", "a meadow"))):
            answer = server.upload(picture(colour, seed=n), caption=caption, metadata='{"album": "cars"}')
            assert answer.status_code == 200
        scripts = [block for block in blocks(PAGE) if block.title.endswith(".py")]
        assert [block.title for block in scripts] == ["retriever.py", "ask.py"]
        for block in scripts:
            (tmp_path / block.title).write_text(block.text.replace("http://localhost:8000", server.url), "utf-8")
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients/python")}
        done = subprocess.run(
            [python, "ask.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert 1 <= len(lines) <= 3
    assert lines[0].endswith(" a red car")
