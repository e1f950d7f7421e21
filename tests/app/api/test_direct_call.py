"""A plain request is answered without FastAPI's solver, as FastAPI would answer it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from app.api.app import create_app
from app.api.direct_call import compile_call
from app.api.strict_route import StrictRoute
from app.core.settings import Settings
from app.service.service import open_service

CALLS = (
    *("/v1/search?q=red", "/v1/search?q=red&k=3&target=texts", "/v1/search?q=red&templates=a+{}&templates=the+{}"),
    *("/v1/search?q=red&facets=tags,format", "/v1/search?q=red&collection=nowhere", "/v1/search?q=red&collection=A!"),
    *("/v1/search", "/v1/search?q=", "/v1/search?q=red&k=0", "/v1/search?q=red&k=ten", "/v1/search?q=red&k=10.0"),
    *("/v1/search?q=red&diversity=2&offset=-1", "/v1/search?q=red&exact=perhaps", "/v1/search?q=red&unknown=1"),
    *("/v1/search?q=red&k=1&k=2", "/v1/search?q=red&collection=A!&k=0", "/v1/images?limit=2", "/v1/images?limit=none"),
    *("/v1/stats", "/v1/collections", "/v1/jobs", "/v1/models"),
)

VECTOR = [0.0] * 63 + [1.0]
BODIES: tuple[tuple[str, Any], ...] = (
    *(("/v1/search", {"query": [{"text": "red"}]}), ("/v1/search?k=2", {"query": [{"vector": VECTOR}]})),
    *(("/v1/search?k=ten", {"query": [{"text": "red"}]}), ("/v1/search", {"query": [{"text": "red"}], "k": "ten"})),
    *(("/v1/search", {"query": []}), ("/v1/search", {}), ("/v1/search", [1]), ("/v1/search", {"quarry": 1})),
    *(
        ("/v1/search?k=1", {"query": [{"text": "red"}], "k": 2}),
        ("/v1/search?collection=A!", {"query": [{"text": "a"}]}),
    ),
    *(("/v1/search", {"query": [{"image": "AAAA"}]}), ("/v1/search", {"query": [{"image": "A" * 9_000}]})),
    *(("/v1/search/batch", {"queries": [{"query": [{"text": "red"}]}]}), ("/v1/search/batch", {"queries": 7})),
    *(("/v1/images/known", {"sha256": ["0" * 64]}), ("/v1/images/known", {"sha256": ["0"]})),
    *(("/v1/images/delete", {"dry_run": True, "filter": {"must": []}}), ("/v1/images/delete", {"ids": []})),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("direct"), model="colours", workers=0)
    service = open_service(settings)
    try:
        service.search.start()
        while service.search.loaded is None:
            time.sleep(0.01)
        yield TestClient(create_app(service), base_url="http://localhost")
    finally:
        service.close()


def list_routes(client: TestClient) -> list[StrictRoute]:
    assert isinstance(client.app, FastAPI)
    found = [one.original_route for one in iter_route_contexts(client.app.routes)]
    return [route for route in found if isinstance(route, StrictRoute)]


def ask(client: TestClient, path: str, sent: Any = None) -> tuple[int, dict[str, str], Any]:
    answer = client.get(path) if sent is None else client.post(path, json=sent)
    body = answer.json()
    for one in (body, *body.get("results", ())):
        for changing in ("took_ms", "request_id"):
            one.pop(changing, None)
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "content-length")}
    return answer.status_code, headers, body


def test_direct_answers_are_those_of_fastapi(client: TestClient) -> None:
    calls = [(path, None) for path in CALLS] + list(BODIES)
    direct = [ask(client, *call) for call in calls]
    (search,) = (
        route for route in list_routes(client) if route.path == "/v1/search" and "GET" in (route.methods or ())
    )
    assert search.direct is not None
    direct_routes = [route for route in list_routes(client) if route.direct is not None]
    posts = {route.path for route in direct_routes if "POST" in (route.methods or ())}
    assert posts == {path for path, _ in BODIES if "?" not in path}
    for route in list_routes(client):
        route.direct = None
    solved = [ask(client, *call) for call in calls]
    assert direct == solved
    assert {status for status, _, _ in direct} == {200, 404, 415, 422}


def find_included(endpoint: Any, **options: Any) -> Any:
    app = FastAPI()
    router = APIRouter()
    router.add_api_route("/one", endpoint, **options)
    app.include_router(router)
    (found,) = (one for one in iter_route_contexts(app.routes) if one.path == "/one")
    return found


async def plain(request: Request, k: int = 3) -> dict[str, int]:
    return {"k": k}


async def with_header(token: str = Header("")) -> dict[str, str]:
    return {"token": token}


async def with_list(names: list[str] = []) -> dict[str, int]:  # noqa: B006
    return {}


def blocking(k: int = 3) -> dict[str, int]:
    return {"k": k}


async def with_response(response: Response) -> dict[str, int]:
    return {}


async def with_blocking(k: int = Depends(blocking)) -> dict[str, int]:
    return {}


def test_what_needs_more_than_parameters_stays_with_fastapi() -> None:
    assert compile_call(find_included(plain)) is not None
    for endpoint in (with_header, blocking, with_response, with_blocking, with_list):
        assert compile_call(find_included(endpoint)) is None
    assert compile_call(find_included(plain, methods=["POST"])) is None
    assert compile_call(find_included(plain, status_code=201)) is None
    assert compile_call(find_included(plain, response_model=None)) is None


def test_a_dependency_is_called_once(tmp_path: Path) -> None:
    called: list[str] = []

    async def first(request: Request) -> str:
        called.append("first")
        return "first"

    async def second(one: str = Depends(first)) -> str:
        called.append("second")
        return one

    async def endpoint(one: str = Depends(first), two: str = Depends(second), k: int = 1) -> dict[str, str]:
        return {"one": one, "two": two, "k": str(k)}

    call = compile_call(find_included(endpoint))
    assert call is not None
    app = FastAPI()

    @app.get("/{rest:path}")
    async def answer(request: Request) -> Response:
        return await call.run(request) or Response(status_code=400)

    client = TestClient(app)
    assert client.get("/?k=7").json() == {"one": "first", "two": "first", "k": "7"}
    assert called == ["first", "second"]
    assert client.get("/?k=seven").status_code == 400
    assert len(called) == 2


async def wrong(request: Request) -> int:
    return "no number"  # type: ignore[return-value]


def test_an_answer_that_is_not_as_declared_is_a_bug() -> None:
    call = compile_call(find_included(wrong))
    assert call is not None
    with pytest.raises(ResponseValidationError):
        asyncio.run(call.run(Request({"type": "http", "query_string": b"", "headers": []})))
