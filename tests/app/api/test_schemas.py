"""Every answer keeps to the schema that the interface publishes of itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.api.asking import upload_ready
from tests.support.servers import RunningServer


@pytest.fixture(scope="module")
def schema(server: RunningServer) -> dict[str, Any]:
    """The published description."""
    described: dict[str, Any] = server.http.get("/openapi.json").json()
    return described


def find_mismatches(value: Any, kind: dict[str, Any], schema: dict[str, Any], at: str = "") -> list[str]:
    """Where a value departs from its JSON schema, as far as ours go: types, enums, required and known fields."""
    if "$ref" in kind:
        kind = schema["components"]["schemas"][kind["$ref"].split("/")[-1]]
    if "anyOf" in kind:
        tries = [find_mismatches(value, option, schema, at) for option in kind["anyOf"]]
        return [] if [] in tries else tries[0]
    if "enum" in kind:
        return [] if value in kind["enum"] else [f"{at}: {value}"]
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if "type" in kind and not isinstance(value, types[kind["type"]]):
        return [f"{at}: {type(value).__name__} is no {kind['type']}"]
    faults = []
    if isinstance(value, dict) and "properties" in kind:
        faults += [f"{at}.{name} is missing" for name in kind.get("required", ()) if name not in value]
        faults += [f"{at}.{name} is not told" for name in value if name not in kind["properties"]]
        for name, each in value.items():
            faults += find_mismatches(each, kind["properties"].get(name, {}), schema, f"{at}.{name}")
    if isinstance(value, list) and "items" in kind:
        for each in value:
            faults += find_mismatches(each, kind["items"], schema, f"{at}[]")
    return faults


def test_answers_keep_to_the_published_schema(schema: dict[str, Any], server: RunningServer) -> None:
    image = upload_ready(server, caption="c")["id"]
    job = server.wait_job(server.bulk([("a.txt", b"x")])["id"])["id"]
    server.http.post("/v1/texts", json={"texts": [{"id": "schema", "text": "red"}]})
    calls = {
        "/v1/images": "/v1/images",
        f"/v1/images/{image}": "/v1/images/{id}",
        "/v1/jobs": "/v1/jobs",
        f"/v1/jobs/{job}": "/v1/jobs/{id}",
        f"/v1/jobs/{job}/items": "/v1/jobs/{id}/items",
        "/v1/texts/schema": "/v1/texts/{id}",
        "/v1/search?q=red": "/v1/search",
        "/v1/search?q=red&target=texts": "/v1/search",
        "/v1/collections": "/v1/collections",
        "/v1/collections/default": "/v1/collections/{name}",
    }
    for path, route in calls.items():
        answer = schema["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert find_mismatches(server.http.get(path).json(), answer, schema) == [], path


def test_every_call_tells_that_it_may_refuse(schema: dict[str, Any]) -> None:
    for path, methods in schema["paths"].items():
        for method, call in methods.items():
            assert "application/problem+json" in call["responses"]["default"]["content"], f"{method} {path}"
