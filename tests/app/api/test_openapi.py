"""The examples of the OpenAPI document work: /docs fills them in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.api.asking import make_picture
from tests.support.servers import RunningServer

FORM, JSON = "multipart/form-data", "application/json"


@pytest.fixture(scope="module")
def spec(fetching: RunningServer) -> dict[str, Any]:
    described: dict[str, Any] = fetching.http.get("/openapi.json").json()
    return described


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with RunningServer(tmp_path_factory.mktemp("examples"), fetch=True) as server:
        yield server


def resolved(spec: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return spec["components"]["schemas"][name] if name else schema


def test_the_example_of_every_body_is_accepted(spec: dict[str, Any], fetching: RunningServer) -> None:
    sent = 0
    for path, calls in spec["paths"].items():
        for method, call in calls.items():
            for kind, content in call.get("requestBody", {}).get("content", {}).items():
                schema = resolved(spec, content["schema"])
                address = path.replace("{", "").replace("}", "")
                if kind == JSON:
                    (example,) = schema["examples"]
                    answer = fetching.http.request(method, address, json=example)
                elif kind == FORM:
                    fields = {
                        name: one["examples"][0] for name, one in schema["properties"].items() if "examples" in one
                    }
                    named = "files" if "files" in schema["properties"] else "file"
                    answer = fetching.http.post(address, data=fields, files={named: ("a.png", make_picture())})
                else:
                    continue
                sent += 1
                # 404: the picture of the example is not here; 401: the key of the example is none
                assert answer.status_code in (200, 201, 202, 404), (method, path, kind, answer.text)
    assert sent >= 14


def test_names_are_words_and_search_comes_first(spec: dict[str, Any]) -> None:
    calls = [call for below in spec["paths"].values() for call in below.values()]
    names = [call["operationId"] for call in calls]
    assert {"search_images", "upload_image", "upload_images", "list_images", "get_image"} <= set(names)
    assert len(set(names)) == len(names)
    assert [name for name in names if "_v1_" in name] == []
    assert [tag["name"] for tag in spec["tags"]][:2] == ["search", "upload"]
    assert {tag for call in calls for tag in call["tags"]} == {tag["name"] for tag in spec["tags"]}
    assert [call["summary"] for call in calls if not 5 < len(call["summary"]) < 100] == []


def test_repeated_fields_are_described_as_repeated_parts(spec: dict[str, Any]) -> None:
    exploded = {"style": "form", "explode": True}
    assert spec["paths"]["/v1/images"]["post"]["requestBody"]["content"][FORM]["encoding"] == {"tags": exploded}
    assert spec["paths"]["/v1/classify"]["post"]["requestBody"]["content"][FORM]["encoding"] == {"labels": exploded}


def find_unbounded(spec: dict[str, Any], schema: Any, place: str, seen: frozenset[str] = frozenset()) -> list[str]:
    """The lists and texts below a schema that may be of any length."""
    if isinstance(schema, list):
        return [one for n, below in enumerate(schema) for one in find_unbounded(spec, below, f"{place}.{n}", seen)]
    if not isinstance(schema, dict):
        return []
    if (name := schema.get("$ref")) is not None:
        if name in seen:
            return []
        schema, seen = resolved(spec, schema), seen | {name}
    kinds = schema.get("type", ())
    found = []
    if "string" in kinds and not {"maxLength", "pattern", "enum", "const"} & set(schema):
        found += [place] if schema.get("format") != "binary" else []
    if "array" in kinds and "maxItems" not in schema:
        found.append(place)
    for key in ("properties", "$defs"):
        for name, below in schema.get(key, {}).items():
            found += find_unbounded(spec, below, f"{place}.{name}", seen)
    for key in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "additionalProperties"):
        found += find_unbounded(spec, schema.get(key), f"{place}.{key}", seen)
    return found


def test_no_list_and_no_text_of_a_body_may_be_of_any_length(spec: dict[str, Any]) -> None:
    unbounded = [
        one
        for path, calls in spec["paths"].items()
        for method, call in calls.items()
        for kind, content in call.get("requestBody", {}).get("content", {}).items()
        if kind in (FORM, JSON)
        for one in find_unbounded(spec, content["schema"], f"{method} {path} {kind}")
    ]
    assert unbounded == []
    assert find_unbounded(spec, {"type": "array", "items": {"type": "string"}}, "it") == ["it", "it.items"]
