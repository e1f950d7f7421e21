"""`sightline enrich` as people type it, on a server that reads no text.

tests/app/api/routes/test_enrichments.py has one that does.
"""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from app.cli.main import main
from tests.support.servers import RunningServer


def run(server: RunningServer, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["enrich", *arguments], env={"SIGHTLINE_SERVER": server.url})


@pytest.mark.parametrize("chosen", [(), ("--all", "--id", "a"), ("--id", "a", "--filter", "{}", "--all")])
def test_one_choice_of_pictures_is_needed(server: RunningServer, chosen: tuple[str, ...]) -> None:
    refused = run(server, "ocr", *chosen)
    assert (refused.exit_code, "give one of" in refused.stderr) == (2, True)


@pytest.mark.parametrize("chosen", [("--all",), ("--failed",), ("--id", "a")])
def test_a_pass_that_is_off_is_refused(server: RunningServer, chosen: tuple[str, ...]) -> None:
    refused = run(server, "ocr", *chosen)
    assert (refused.exit_code, "start the server with --ocr" in refused.stderr) == (2, True)
    assert server.http.get("/v1/stats").json()["enrichments"] == {}
