"""`sightline duplicates` as people type it, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli.duplicates import merge_attributes
from app.cli.main import main
from tests.app.api.routes.test_duplicates import draw
from tests.support.sample_pictures import encode_image
from tests.support.servers import RunningServer

WHERE: dict[str, Any] = {"collection": "typed-twins"}


@pytest.fixture(scope="module")
def loaded_pictures(server: RunningServer) -> Iterator[None]:
    """A picture, a small copy of it that has tags, and another picture."""
    assert server.http.post("/v1/collections", json={"name": WHERE["collection"]}).status_code == 201
    original = draw(5)
    for id, image, tags in (
        ("best", original, ["a"]),
        ("small", original.resize((90, 68)), ["b"]),
        ("other", draw(6), []),
    ):
        added = server.upload(encode_image(image, "png"), id=id, tags=tags, **WHERE)
        assert added.json()["status"] == "ready"
    yield
    server.http.delete(f"/v1/collections/{WHERE['collection']}")


def run(server: RunningServer, *arguments: str) -> Result:
    environment = {"SIGHTLINE_SERVER": server.url, "SIGHTLINE_COLLECTION": WHERE["collection"]}
    return CliRunner().invoke(main, ["duplicates", *arguments], env=environment)


@pytest.mark.usefixtures("loaded_pictures")
def test_duplicates_are_found_listed_and_deleted(server: RunningServer) -> None:
    before = run(server)
    assert (before.exit_code, before.stdout) == (0, "")
    assert "warning: nobody has searched this collection" in before.stderr
    found = run(server, "--scan", "--kind", "exact")
    assert (found.exit_code, found.stderr.strip()) == (0, "")
    lines = [line.split("\t") for line in found.stdout.splitlines()]
    assert [(line[0], line[2], line[3], line[5]) for line in lines] == [
        ("1", "200", "150", "best"),
        ("1", "90", "68", "small"),
    ]
    (group,) = json.loads(run(server, "--json").stdout)["groups"]
    assert [one["id"] for one in group["images"]] == ["best", "small"]
    assert run(server, "--threshold", "nan").exit_code == 2
    assert run(server, "--delete-others", "--dry-run").stdout.endswith("1 would be deleted\n")
    refused = run(server, "--delete-others")
    assert (refused.exit_code, "confirm with --yes" in refused.stderr) == (2, True)
    assert run(server, "--delete-others", "--yes").stdout.endswith("1 deleted\n")
    assert server.http.get("/v1/images/small", params=WHERE).status_code == 404
    assert server.http.get("/v1/images/best", params=WHERE).json()["tags"] == ["a", "b"]
    assert run(server, "--scan").stdout == ""


@pytest.mark.parametrize("arguments", [("--dry-run",), ("--yes",), ("--json", "--delete-others"), ("--kind", "far")])
def test_options_that_contradict_each_other_are_refused(arguments: tuple[str, ...]) -> None:
    ran = CliRunner().invoke(main, ["duplicates", *arguments])
    assert (ran.exit_code, "Usage" in ran.stderr) == (2, True)


def test_the_best_gets_what_it_lacks() -> None:
    best = {"caption": None, "tags": ["a"], "metadata": {"x": 1}}
    others = [
        {"caption": "first", "tags": ["b", "a"], "metadata": {"x": 2, "y": 3}},
        {"caption": "second", "tags": [], "metadata": {"y": 4}},
    ]
    group = {"images": [{"image": image} for image in (best, *others)]}
    assert merge_attributes(group) == {"caption": "first", "tags": ["a", "b"], "metadata": {"x": 1, "y": 3}}
    assert merge_attributes({"images": group["images"][:1]}) == {}
