"""Evaluations of a running server: of captions, of sets that are sent and read, and the command that shows them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from app.cli.main import main
from tests.app.api.asking import check_refusal
from tests.support.pictures import picture
from tests.support.servers import RunningServer

PAIRS = [
    ("red", "green"),
    ("red", "blue"),
    ("green", "blue"),
    ("yellow", "black"),
    ("purple", "white"),
    ("red", "white"),
]
CHINESE = {"red": "红", "green": "绿", "blue": "蓝", "yellow": "黄", "black": "黑", "purple": "紫", "white": "白"}
RGB = {"red": (220, 30, 30), "green": (30, 150, 50), "blue": (30, 60, 220), "yellow": (245, 225, 40)}
RGB |= {"black": (10, 10, 10), "purple": (130, 40, 170), "white": (250, 250, 250)}


def halves(first: str, second: str, seed: int = 0) -> bytes:
    """A picture of two colours."""
    image = Image.new("RGB", (64, 48), RGB[first])
    image.paste(RGB[second], (32, 0, 64, 48))
    image.putpixel((seed % 64, 0), (1, 2, 3))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def measured_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Pictures of two colours in `default`, with captions but for the last; plain ones in `bare`; a folder `album`."""
    folder = tmp_path_factory.mktemp("measured")
    album = folder / "album"
    album.mkdir()
    for first, second in PAIRS:
        (album / f"{first}-{second}.png").write_bytes(halves(first, second, seed=7))
    (album / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    (album / "pairs.csv").write_text("file,text\n" + "".join(f"{a}-{b}.png,{a} and {b}\n" for a, b in PAIRS))
    with RunningServer(folder / "data", folders=album) as server:
        assert server.http.post("/v1/collections", json={"name": "bare"}).status_code == 201
        for first, second in PAIRS:
            said: dict[str, Any] = {"id": f"{first}-{second}", "caption": f"{first} beside {second}"}
            assert server.upload(halves(first, second), f"in/{first}_{second}.png", **said).status_code == 200
        server.upload(picture("red", seed=3), "in/alone.png", id="alone")
        server.upload(picture("red", seed=4), "bare.png", id="bare", collection="bare")
        yield server


def evaluate(server: RunningServer, collection: str = "default", **said: Any) -> dict[str, Any]:
    """The job of an evaluation by JSON, at its end."""
    response = server.http.post("/v1/evaluations", params={"collection": collection}, json=said)
    assert response.status_code == 202, response.text
    return server.wait_job(response.json()["id"])


def send(server: RunningServer, content: str | bytes, name: str = "set.csv", **said: Any) -> Any:
    data = content if isinstance(content, bytes) else content.encode()
    return server.http.post("/v1/evaluations", files={"file": (name, data)}, data=said)


def evaluate_sent(server: RunningServer, content: str, name: str = "set.csv", **said: Any) -> dict[str, Any]:
    response = send(server, content, name, **said)
    assert response.status_code == 202, response.text
    return server.wait_job(response.json()["id"])


def codes(result: dict[str, Any]) -> list[str]:
    return [one["code"] for one in result["warnings"]]


def test_captions_measure_the_search_both_ways(measured_server: RunningServer) -> None:
    job = evaluate(measured_server, source="captions", k=[1, 3])
    assert (job["state"], job["kind"], job["is_task"], job["done"]) == ("succeeded", "evaluate", True, job["total"])
    result = job["result"]
    assert (result["n"], result["texts"], result["model"], result["head"]) == (6, 6, "colours", None)
    for direction in ("text_to_image", "image_to_text"):
        assert result[direction]["R@1"] == result[direction]["R@3"] == 1.0
        assert (result[direction]["median_rank"], result[direction]["n"]) == (1.0, 6)
        assert result[direction]["confidence"] == {"R@1": None, "R@3": None}
    searches = {line["name"]: line for line in result["searches"]}
    assert {"vector, exact", "vector", "vector, no templates", "keyword", "hybrid"} <= set(searches)
    assert searches["keyword"]["R@1"] == searches["hybrid"]["R@1"] == 1.0
    assert searches["vector"]["searched"] == 7
    assert codes(result) == ["too_few", "captions_searched"]


def test_a_set_is_matched_by_id_digest_and_file_and_what_is_unknown_is_named(measured_server: RunningServer) -> None:
    sha256 = measured_server.http.get("/v1/images/red-green").json()["sha256"]
    rows = [("green-blue", "blue, green"), (sha256, "green, red"), ("red_blue.png", "红色和蓝色"), ("none.png", "red")]
    rows += [("green-blue", "绿和蓝"), ("purple-white", "blue, green"), ("", "red")]
    lines = "".join(json.dumps({"picture": name, "text": text}, ensure_ascii=False) + "\n" for name, text in rows)
    result = evaluate_sent(measured_server, lines, "set.jsonl", k=["1", "10"])["result"]
    assert (result["n"], result["texts"], result["source"]) == (4, 5, "set")
    assert result["unknown"] == {"count": 1, "names": ["none.png"]}
    assert codes(result) == ["unknown_pictures", "bad_rows", "shared_texts", "too_few"]
    assert result["text_to_image"]["R@1"] == 0.8  # "blue, green" is also that of purple and white
    (miss,) = result["misses"]["text_to_image"]
    assert (miss["text"], miss["image"], miss["first"]) == (
        "blue, green",
        {"id": "purple-white"},
        {"id": "green-blue"},
    )
    (missed,) = result["misses"]["image_to_text"]
    assert (missed["image"], missed["texts"]) == ({"id": "purple-white"}, ["blue, green"])


def test_languages_are_told_apart(measured_server: RunningServer) -> None:
    rows = [(f"{a}-{b}", f"{a} and {b}") for a, b in PAIRS]
    rows += [(f"{a}-{b}", f"{CHINESE[a]}色和{CHINESE[b]}色") for a, b in PAIRS]
    result = evaluate_sent(measured_server, "id,text\n" + "".join(f"{id},{text}\n" for id, text in rows))["result"]
    assert set(result["languages"]) == {"en", "zh"}
    assert all(one["text_to_image"]["R@1"] == 1.0 for one in result["languages"].values())
    assert result["languages"]["zh"]["image_to_text"]["n"] == 6


def test_pictures_of_a_folder_are_embedded_and_not_stored(measured_server: RunningServer) -> None:
    album = measured_server.data_dir.parent / "album"
    before = measured_server.http.get("/v1/stats").json()["images"]["total"]
    result = evaluate(measured_server, source=f"pairs:{album}/pairs.csv", pictures=str(album))["result"]
    assert (result["n"], result["text_to_image"]["R@1"]) == (6, 1.0)
    assert "searches" not in result
    names = "file,text\nbroken.png,red\nnone.png,blue\nsub/red-blue.png,red and blue\ngreen-blue.png,purple\n"
    result = evaluate_sent(measured_server, names, pictures=str(album))["result"]
    assert (result["n"], result["unreadable"]["names"], result["unknown"]["names"]) == (2, ["broken.png"], ["none.png"])
    assert codes(result)[:2] == ["unknown_pictures", "unreadable_pictures"]
    assert all("name" in miss["image"] for miss in result["misses"]["text_to_image"])
    assert measured_server.http.get("/v1/stats").json()["images"]["total"] == before


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("set.csv", "picture,text\n", "the set has no pairs"),
        ("set.csv", "colour\nred\n", "no column of the set names pictures"),
        ("set.xlsx", "PK", "a set of pairs is one of .csv"),
        (
            "set.json",
            '{"images": [{"split": "val", "sentences": [], "filename": "a"}]}',
            "in the split 'test'; it has val",
        ),
        ("set.csv", "id,text\n" + "1,red\n" * 0 + "".join(f"{n},red\n" for n in range(30_001)), "30,000 pairs"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused_at_once(
    measured_server: RunningServer, name: str, content: str, detail: str
) -> None:
    assert detail in check_refusal(send(measured_server, content, name), 422, "validation")["detail"]


def test_other_requests_are_refused(measured_server: RunningServer) -> None:
    post = measured_server.http.post
    for body, detail in (
        ({"source": "urls"}, "source"),
        ({"source": "captions", "k": [0]}, "k"),
        ({"source": "captions", "k": []} | {"pictures": "/tmp"}, "pictures belongs to a set"),
        ({"source": "pairs:/etc/passwd"}, "may not read this file"),
        ({"source": "captions", "kk": [1]}, "did you mean"),
        ({"source": "captions", "k": list(range(1, 12))}, "k"),
    ):
        assert detail in check_refusal(post("/v1/evaluations", json=body), 422, "validation")["detail"]
    missing = post("/v1/evaluations", json={"source": "captions"}, params={"collection": "none"})
    check_refusal(missing, 404, "not_found")
    refused = send(measured_server, "id,text\nalone,red\n", pictures="/etc")
    assert "may not read this folder" in check_refusal(refused, 422, "validation")["detail"]


def test_an_evaluation_without_captions_or_known_pictures_fails_with_the_remedy(measured_server: RunningServer) -> None:
    job = evaluate(measured_server, "bare", source="captions")
    assert (job["state"], job["error"]["code"]) == ("failed", "validation")
    assert "send captions with the pictures" in job["error"]["detail"]
    job = evaluate_sent(measured_server, "id,text\nx,red\ny,blue\n")
    assert (
        "none of the 2 pictures of the set is in the collection 'default' (the first are x, y)"
        in job["error"]["detail"]
    )
    album = measured_server.data_dir.parent / "album"
    job = evaluate_sent(measured_server, "file,text\nbroken.png,red\n", pictures=str(album))
    assert "none of the 1 pictures of the set can be read" in job["error"]["detail"]


def run(server: RunningServer, *arguments: str) -> Any:
    return CliRunner().invoke(main, ["evaluate", "--server", server.url, *arguments])


def test_the_command_prints_figures_and_writes_a_report(measured_server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text('id,text\ngreen-blue,"<b>red</b>"\nred-green,blue\nnone,red\n')
    report = tmp_path / "report.html"
    done = run(measured_server, str(tmp_path / "set.csv"), "-k", "1", "-k", "2", "--report", str(report))
    assert done.exit_code == 0, done.output
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["text → picture", "2", "0.000", "1.000", "2"] in lines
    assert any(line[0] == "hybrid" for line in lines)
    assert "warning: 1 pictures of the set are not there, and are left out: none" in done.stderr
    page = report.read_text()
    assert "&lt;b&gt;red&lt;/b&gt;" in page
    assert "<b>red" not in page
    assert page.count("data:image/") >= 2
    assert 'src="http' not in page
    assert "<script" not in page


def test_the_command_measures_another_model_on_the_same_pictures(
    measured_server: RunningServer, tmp_path: Path
) -> None:
    done = run(measured_server, "--model", "colours", "--json")
    assert done.exit_code == 0, done.output
    served, local = json.loads(done.stdout)
    assert served["n"] == local["n"] == 6
    assert served["text_to_image"] == local["text_to_image"]
    album = measured_server.data_dir.parent / "album"
    report = tmp_path / "report.html"
    again = CliRunner().invoke(
        main,
        ["eval", str(album / "pairs.csv"), "--pictures", str(album), "--model", "colours", "--report", str(report)],
    )
    assert again.exit_code == 0, again.output
    assert "colours: 6 pictures and 6 texts" in again.stdout
    (tmp_path / "set.csv").write_text("file,text\nred-green.png,blue\ngreen-blue.png,red\n")
    arguments = ["evaluate", str(tmp_path / "set.csv"), "--pictures", str(album), "--model", "colours"]
    assert CliRunner().invoke(main, [*arguments, "--report", str(report)]).exit_code == 0
    assert "data:image/jpeg;base64," in report.read_text()


def test_a_request_that_comes_again_makes_no_second_job(measured_server: RunningServer) -> None:
    headers = {"Idempotency-Key": "measure-once"}
    first, again = (
        measured_server.http.post("/v1/evaluations", json={"source": "captions"}, headers=headers).json()["id"]
        for _ in range(2)
    )
    assert first == again
    assert measured_server.wait_job(first)["state"] == "succeeded"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["set.csv", "--model", "colours"], "needs the pictures of SET"),
        (["--pictures", "/x", "--model", "colours"], "needs a SET on this machine"),
        (["none.csv", "--pictures", "/x", "--model", "colours"], "there is no such file"),
        (["none.csv"], "none.csv cannot be read"),
        (["--collection", "bare"], "no picture of the collection 'bare' has a caption"),
        (["--collection", "bare", "--model", "colours"], "no picture of the collection has a caption"),
        (["--report", "/none/report.html"], "cannot be written"),
    ],
)
def test_the_command_says_what_is_wrong(measured_server: RunningServer, arguments: list[str], error: str) -> None:
    done = run(measured_server, *arguments)
    assert done.exit_code == 2
    assert error in done.stderr
