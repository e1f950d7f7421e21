from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from app.cli import batch_search
from app.cli.main import main
from tests.app.api.asking import upload_ready
from tests.support.servers import RunningServer


def test_a_call_holds_no_more_than_a_server_takes() -> None:
    plain = [f"{n}" for n in range(250)]
    assert [len(group) for group in batch_search.group_lines(plain, 10)] == [100, 100, 50]
    assert [len(group) for group in batch_search.group_lines(plain[:25], 1000)] == [10, 10, 5]
    away = ["a -b -c -d -e -f -g"] * 100  # seven parts each
    sizes = [len(group) for group in batch_search.group_lines(away, 10)]
    assert (max(sizes), sum(sizes)) == (45, 100)
    assert list(batch_search.group_lines(["", "  \n"], 10)) == []
    ((_, parts),) = next(batch_search.group_lines([" a car -red \n"], 10))
    assert parts == [{"text": "a car", "weight": 1.0}, {"text": "red", "weight": -0.7}]


def run(server: RunningServer, text: str, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(main, ["search", "--batch", "-", "--server", server.url, *arguments], input=text)
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_a_file_of_queries_is_answered_a_line_each_as_a_search_would(server: RunningServer) -> None:
    image = upload_ready(server, "red")
    asked = ["red", "blue -red", "红色"]
    code, told = run(
        server,
        "\n".join(asked) + "\n\n",
        "-k",
        "3",
        "--effort",
        "fast",
        "--filter",
        json.dumps({"has_id": [image["id"]]}),
    )
    assert (code, [one["query"] for one in told]) == (0, asked)
    for one in told:
        params = {"q": one["query"], "k": 3, "filter": json.dumps({"has_id": [image["id"]]})}
        alone = server.http.get("/v1/search", params=params)
        assert one["applied"]["effort"] == "fast"
        assert [hit["id"] for hit in one["hits"]] == [hit["id"] for hit in alone.json()["hits"]] == [image["id"]]
        assert one["hits"][0]["score"] == pytest.approx(alone.json()["hits"][0]["score"], abs=1e-5)


def test_a_query_that_is_refused_takes_no_other_with_it(server: RunningServer) -> None:
    code, told = run(server, f"red\n{'x' * 1001}\nblue", "--target", "texts")
    assert code == 1
    assert [set(one) >= {"query", "hits"} for one in told] == [True, False, True]
    assert told[1]["error"]["code"] == "validation"


def test_a_wrong_use_is_told(server: RunningServer) -> None:
    for arguments in (["red", "--batch", "-"], ["--batch", "-", "--filter", "{"], ["--batch", "/none"]):
        result = CliRunner().invoke(main, ["search", *arguments, "--server", server.url], input="red")
        assert result.exit_code in (1, 2)
        assert "Traceback" not in result.output
