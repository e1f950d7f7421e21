from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.api.routes.explain import wants_picture
from tests.app.api.asking import check_refusal
from tests.support.pictures import draw_two
from tests.support.servers import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("explain") / "data", workers=1) as one:
        yield one


@pytest.fixture(scope="module")
def picture(server: RunningServer) -> str:
    answer = server.upload(draw_two())
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def explain(server: RunningServer, id: str, q: str, **more: Any) -> dict[str, Any]:
    answer = server.http.get(f"/v1/images/{id}/explain", params={"q": q, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def strongest(grid: list[list[float]]) -> tuple[int, int]:
    return max(((y, x) for y in range(len(grid)) for x in range(len(grid[0]))), key=lambda at: grid[at[0]][at[1]])


def test_grid_is_strongest_where_the_words_are_met(server: RunningServer, picture: str) -> None:
    red, blue = explain(server, picture, "red"), explain(server, picture, "blue")
    assert max(strongest(red["grid"])) <= 1
    assert min(strongest(blue["grid"])) >= 4
    assert red["area"] == {"left": 0, "top": 0, "width": 1, "height": 1}
    assert red["verdict"]["match"] != "none"
    assert max(map(max, red["heat"])) == 1


def test_model_says_that_it_does_not_know(server: RunningServer, picture: str) -> None:
    found = explain(server, picture, "xylophone")
    assert found["verdict"]["match"] == "none"
    assert not any(map(any, found["heat"]))


def test_each_word_has_its_weight(server: RunningServer, picture: str) -> None:
    words = {word["text"]: word["weight"] for word in explain(server, picture, "a red sofa")["words"]}
    assert list(words) == ["a", "red", "sofa"]
    assert words["red"] > 0.1 > abs(words["sofa"])
    assert explain(server, picture, "red")["words"] == [{"text": "red", "weight": None}]


def test_negative_terms_are_words_too(server: RunningServer, picture: str) -> None:
    found = explain(server, picture, "red -blue")
    assert [word["text"] for word in found["words"]] == ["red", "blue"]
    assert found["words"][1]["weight"] < 0  # without it the picture is nearer


@pytest.mark.parametrize("size", [(400, 200), (120, 360)])
def test_png_has_the_shape_of_the_picture(server: RunningServer, size: tuple[int, int]) -> None:
    id = server.upload(draw_two(size)).json()["id"]
    headers = {"Accept": "image/png"}
    answer = server.http.get(f"/v1/images/{id}/explain", params={"q": "red", "size": 100}, headers=headers)
    assert answer.status_code == 200
    assert (answer.headers["content-type"], answer.headers["vary"]) == ("image/png", "Accept")
    image = Image.open(io.BytesIO(answer.content))
    assert max(image.size) == 100
    assert abs(image.width / image.height - size[0] / size[1]) < 0.05
    warm, cold = image.getpixel((5, 5)), image.getpixel((image.width - 5, image.height - 5))
    assert isinstance(warm, tuple)
    assert isinstance(cold, tuple)
    assert warm[0] > warm[2] + 80  # orange
    assert abs(cold[0] - cold[2]) < 20  # grey


@pytest.mark.parametrize(
    ("accept", "is_png"),
    [
        ("image/png", True),
        ("application/json", False),
        ("", False),
        ("*/*", False),
        ("image/*, application/json;q=0.5", True),
        ("image/png;q=0.2, application/json", False),
        ("image/avif,image/webp,image/*;q=0.8,*/*;q=0.5", True),
        ("image/png;q=x", False),
        ("text/html", False),
    ],
)
def test_accept_chooses_the_form(accept: str, is_png: bool) -> None:
    assert wants_picture(accept) == is_png


def test_what_cannot_be_explained_is_refused(server: RunningServer, picture: str) -> None:
    def ask(id: str, **params: str | int) -> Any:
        return server.http.get(f"/v1/images/{id}/explain", params=params)

    check_refusal(ask("nobody", q="red"), 404, "not_found")
    check_refusal(ask(picture), 422, "validation")
    check_refusal(ask(picture, q=" "), 422, "validation")
    check_refusal(ask(picture, q="-red"), 422, "validation")
    check_refusal(ask(picture, q="red", size=9), 422, "validation")
    check_refusal(ask(picture, q="red", words="red"), 422, "validation")
    check_refusal(ask(picture, q="red", collection="elsewhere"), 404, "not_found")
    assert "time" in check_refusal(ask(picture, q="last summer", time_words="true"), 422, "validation")["detail"]


def test_missing_file_is_told(server: RunningServer, tmp_path: Path) -> None:
    image = server.upload(draw_two((90, 90))).json()
    digest = image["sha256"]
    (server.data_dir / "media" / digest[:2] / digest[2:4] / digest).unlink()
    check_refusal(server.http.get(f"/v1/images/{image['id']}/explain?q=red"), 410, "blob_missing")
