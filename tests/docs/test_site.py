"""The documentation site builds in strict mode, its navigation is complete, no page loads anything from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it.token import Token
from playwright.sync_api import Browser

from tests.docs.samples import ROOT, pages, tokens

CONFIG: dict[str, Any] = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
SECONDS = 60.0
AT_ONCE = 6  # pages that are read side by side: each is waited for until it has been quiet for half a second


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `scripts/site` does, in a temporary folder."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / str(CONFIG["site_dir"])


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def list_pages(entry: Any) -> Iterator[str]:
    """The pages below an entry of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for below in entry.values() if isinstance(entry, dict) else entry:
            yield from list_pages(below)


def test_the_navigation_names_every_page_and_no_other() -> None:
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    named = list(list_pages(CONFIG["nav"]))
    assert set(named) == there, "mend `nav` in zensical.toml"
    assert len(named) == len(set(named))


@pytest.mark.slow
def test_every_page_is_built_with_its_title(site: Path) -> None:
    for name in list_pages(CONFIG["nav"]):
        built = (site / name).with_suffix(".html").read_text("utf-8")
        title = re.search(r"^# (.+)$", (ROOT / "docs" / name).read_text("utf-8"), re.MULTILINE)
        assert title, f"{name} has no title"
        assert "<h1" in built, name


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path, address: str, browser: Browser) -> None:
    """No third party learns of a visit, and the site works without the internet."""
    foreign: set[str] = set()
    missing: set[str] = set()
    context = browser.new_context()
    try:
        context.on("request", lambda request: foreign.add(request.url) if not is_local(request.url, address) else None)
        context.on("response", lambda answer: missing.add(answer.url) if answer.status >= 400 else None)
        open_pages = [context.new_page() for _ in range(AT_ONCE)]
        names = list(list_pages(CONFIG["nav"]))
        for start in range(0, len(names), AT_ONCE):
            shown = list(zip(open_pages, names[start : start + AT_ONCE], strict=False))
            for page, name in shown:
                page.goto(f"{address}/{Path(name).with_suffix('.html')}")
            for page, _ in shown:
                page.wait_for_load_state("networkidle")
    finally:
        context.close()
    assert foreign == set()
    assert missing == set()


def is_local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def links(token: Token) -> Iterator[str]:
    """Targets of the links and pictures in a token."""
    for one in [token, *(token.children or [])]:
        target = one.attrs.get("href") or one.attrs.get("src")
        if isinstance(target, str):
            yield target


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    """The site's builder checks its links; this test adds README and pictures."""
    for token in tokens(page):
        for target in links(token):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            assert (page.parent / unquote(parts.path)).exists(), f"{page.name}: {target}"
