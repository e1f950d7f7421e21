from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.cli.live_reembed import describe_end, describe_plan
from app.cli.main import main
from tests.app.encoder.small import make_model
from tests.support.servers import RunningServer

PLAN = {
    "model": "new",
    "present_model": "old",
    "d": 512,
    "pictures": 1200,
    "texts": 3,
    "precomputed": 0,
    "vector_bytes": 5 << 20,
    "model_bytes": 0,
    "free_bytes": 3 << 30,
    "memory_bytes": None,
    "free_memory_bytes": None,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a model in torch, which need not be converted."""
    folder = tmp_path_factory.mktemp("reembed")
    with RunningServer(folder / "data", model=make_model(folder / "model"), runtime="torch", workers=0) as server:
        assert server.http.post("/v1/texts", json={"texts": [{"text": "a red car"}]}).status_code == 200
        yield server


def run(server: RunningServer, *words: str) -> Result:
    return CliRunner().invoke(main, ["reembed", *words, "--server", server.url])


@pytest.mark.slow
def test_a_running_server_is_asked_what_it_costs_and_then_changed(server: RunningServer, tmp_path: Path) -> None:
    told = run(server, "--live", "--model", "colours", "--dry-run")
    assert told.exit_code == 0, told.output
    assert "(d 60): 0 pictures, 1 texts" in told.output.replace("\n", " ")
    assert "time: unknown" in told.output
    former = server.http.get("/v1/models").json()["loaded"]["name"]
    broken = tmp_path / "broken"
    shutil.copytree(former.removeprefix("local-dir:"), broken)
    (broken / "open_clip_config.json").write_text("{}")
    failed = run(server, "--live", "--model", f"local-dir:{broken}")
    assert failed.exit_code == 2
    assert "the model was not changed" in failed.output
    assert server.http.get("/v1/models").json()["loaded"]["name"] == former
    changed = run(server, "--live", "--model", "colours")
    assert changed.exit_code == 0, changed.output
    assert "searches are answered by colours now" in changed.output.replace("\n", " ")
    assert server.http.get("/v1/models").json()["loaded"]["name"] == "colours"
    refused = run(server, "--live", "--model", "colours")
    assert refused.exit_code == 2
    assert "already" in refused.output


def test_live_needs_a_model_and_a_dry_run_needs_live() -> None:
    for words, hint in ((["--live"], "--model"), (["--dry-run", "--model", "colours"], "--live")):
        wrong = CliRunner().invoke(main, ["reembed", *words])
        assert wrong.exit_code == 2
        assert hint in wrong.output


def test_what_a_change_costs_is_told_in_words() -> None:
    said = describe_plan(PLAN)
    assert "from old to new (d 512): 1,200 pictures, 3 texts" in said
    assert "5.0 MiB of vectors, 0.0 MiB of the model; 3.0 GiB are free" in said
    assert "memory" not in said
    said = describe_plan({**PLAN, "precomputed": 2, "memory_bytes": 1 << 20, "free_memory_bytes": 2 << 30})
    assert "memory: at least 1.0 MiB; 2.0 GiB are free" in said
    assert "2 waiting pictures came with a vector of old" in said


def test_what_came_of_it_is_told_in_words() -> None:
    measured = {**PLAN, "pictures_per_second": 10.0, "minutes": 2.0}
    assert (
        describe_end(measured, dry_run=True) == "time: about 2 minutes, at 10.0 pictures a second; nothing was changed"
    )
    unknown = {**PLAN, "pictures_per_second": None, "minutes": None}
    assert "is not downloaded yet" in describe_end(unknown, dry_run=True)
    assert "2 pictures could not be encoded" in describe_end({**PLAN, "queued_again": 2}, dry_run=False)
