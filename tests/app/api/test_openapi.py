"""The examples of the OpenAPI document work: /docs fills them in."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest

from app.api.permissions import ROUTE_SCOPES
from app.core.types import KeyScope
from tests.app.api.asking import make_picture
from tests.support.servers import RunningServer
from tests.support.videos import make_video

FORM, JSON = "multipart/form-data", "application/json"


@pytest.fixture(scope="module")
def spec(fetching: RunningServer) -> dict[str, Any]:
    described: dict[str, Any] = fetching.http.get("/openapi.json").json()
    return described


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with RunningServer(tmp_path_factory.mktemp("examples"), fetch=True, max_k=77, max_text_chars=90) as server:
        server.upload(make_picture(), id="here")
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
                    is_set = path in ("/v1/evaluations", "/v1/heads")
                    file = ("a.csv", b"id,text\na,red\n") if is_set else ("a.png", make_picture())
                    if path == "/v1/videos":
                        file = ("a.mp4", make_video())
                    answer = fetching.http.post(address, data=fields, files={named: file})
                else:
                    content = schema["examples"][0]
                    answer = fetching.http.post(address, content=content, headers={"Content-Type": kind})
                if path in ("/v1/evaluations", "/v1/heads") and answer.status_code == 202:
                    fetching.wait_job(answer.json()["id"])  # one of a kind at a time
                sent += 1
                # 404: the picture of the example is not here; 401: the key of the example is none
                is_off = path == "/v1/enrichments" and "is off here" in answer.text
                assert answer.status_code in (200, 201, 202, 404) or is_off, (method, path, kind, answer.text)
    assert sent >= 15


def test_names_are_words_and_search_comes_first(spec: dict[str, Any]) -> None:
    calls = [call for below in spec["paths"].values() for call in below.values()]
    names = [call["operationId"] for call in calls]
    assert {"search_images", "upload_image", "upload_images", "list_images", "get_image"} <= set(names)
    assert len(set(names)) == len(names)
    assert [name for name in names if "_v1_" in name] == []
    assert [tag["name"] for tag in spec["tags"]][:2] == ["search", "upload"]
    assert {tag for call in calls for tag in call["tags"]} == {tag["name"] for tag in spec["tags"]}
    assert [call["summary"] for call in calls if not 5 < len(call["summary"]) < 100] == []


# Objects of answers whose fields the document does not name: those of callers, and those that differ by a kind or a k.
METADATA = {"ImageOut.metadata", "UploadOut.metadata", "TextOut.metadata"}
OPEN = {"JobOut.result", "HeadOut.figures", "SavedSearchOut.query"}


def is_open(schema: Any) -> bool:
    """Whether a value may be an object of any fields, or anything."""
    if isinstance(schema, list):
        return any(map(is_open, schema))
    if not isinstance(schema, dict) or "$ref" in schema or "const" in schema or "enum" in schema:
        return False
    if inside := [schema[name] for name in ("anyOf", "oneOf", "allOf", "items") if name in schema]:
        return any(map(is_open, inside))
    values = schema.get("additionalProperties")
    if schema.get("type") == "object" and not schema.get("properties"):
        return not isinstance(values, dict) or is_open(values)
    return "type" not in schema


def test_the_fields_of_answers_are_described_but_for_a_few_that_say_why(spec: dict[str, Any]) -> None:
    fields = {
        f"{model}.{name}": field
        for model, schema in spec["components"]["schemas"].items()
        if model.endswith("Out")
        for name, field in schema.get("properties", {}).items()
    }
    assert len(fields) > 200
    assert {name for name, field in fields.items() if is_open(field)} == METADATA | OPEN
    assert [name for name in OPEN if len(fields[name].get("description", "")) < 50] == []


def test_repeated_fields_are_described_as_repeated_parts(spec: dict[str, Any]) -> None:
    exploded = {"style": "form", "explode": True}
    for path, name in (("/v1/images", "tags"), ("/v1/classify", "labels")):
        encoding = spec["paths"][path]["post"]["requestBody"]["content"][FORM]["encoding"]
        assert encoding[name] == exploded
        assert "image/png" in encoding["file"]["contentType"]


BODIES: dict[str, tuple[dict[str, Any], ...]] = {
    "POST /v1/search": (
        {"query": [{"text": "a"}]},
        {"query": [{"text": " "}]},
        {"query": [{"text": "x" * 90}]},
        {"query": [{"text": "x" * 91}]},
        {"query": [{}]},
        {"query": [{"text": "a", "image_id": None}]},
        {"query": [{"text": "a", "image_id": "here"}]},
        {"query": [{"text": "a"}], "k": 77},
        {"query": [{"text": "a"}], "k": 78},
        {"query": [{"text": "a"}], "k": 0},
        {"query": [{"text": "a"}], "collection": "A"},
        {"query": [{"text": "a"}], "params": {"nprobe": 1, "probes": None}},
        {"query": [{"text": "a"}], "params": {"nprobe": 1, "probes": 1}},
        {"query": [{"text": "a"}], "params": {"nprobe": 0}},
        {"query": [{"text": "a"}], "params": {"refine_k": 65_537}},
        {"query": [{"text": "a"}], "filter": {"exists": {"key": "metadata.a"}}},
        {"query": [{"text": "a"}], "filter": {"exists": {"key": "metadata"}}},
        {"query": [{"text": "a"}], "filter": {"exists": {"key": "colour"}}},
        {"query": [{"text": "a"}], "filter": {"key": 'metadata."a.b".c', "exists": True}},
        {"query": [{"text": "a"}], "filter": {"key": "metadata.a[0]", "exists": True}},
        {"query": [{"text": "a"}], "filter": {"key": "metadata" + ".a" * 8, "exists": True}},
        {"query": [{"text": "a"}], "filter": {"key": "metadata" + ".a" * 9, "exists": True}},
        {"query": [{"text": "a"}], "filter": {"key": "created_at", "range": {"gte": "2026-01-31"}}},
        {"query": [{"text": "a"}], "filter": {"key": "created_at", "range": {"gte": "2026-01-31T10:00:00Z"}}},
        {"query": [{"text": "a"}], "filter": {"key": "created_at", "range": {"gte": "yesterday"}}},
    ),
    "POST /v1/images/delete": (
        {"all": True, "dry_run": True},
        {"all": False, "dry_run": True},
        {"ids": ["x"], "dry_run": True, "filter": None},
        {"ids": ["x"], "all": True},
    ),
    "PATCH /v1/images/{id}": (
        {"caption": "x" * 2_000},
        {"caption": "x" * 2_001},
        {"tags": ["x" * 100] * 100},
        {"tags": ["x"] * 101},
        {"tags": ["x" * 101]},
        {"tags": [""]},
    ),
    "POST /v1/texts": ({"texts": [{"text": "a"}]}, {"texts": [{"text": "\t"}]}, {"texts": [{"text": "x" * 91}]}),
    "POST /v1/classify": (
        {"image_id": "here", "labels": ["a", "b"]},
        {"image_id": "here", "labels": ["a", " "]},
        {"image_id": "here", "labels": ["a", "b"], "template": "a {label}"},
        {"image_id": "here", "labels": ["a", "b"], "template": "a"},
    ),
}


@pytest.mark.parametrize(("call", "body"), [(call, body) for call, bodies in BODIES.items() for body in bodies])
def test_the_schema_of_a_body_allows_what_the_server_accepts(
    call: str, body: dict[str, Any], spec: dict[str, Any], fetching: RunningServer
) -> None:
    method, path = call.split(" ")
    schema = spec["paths"][path][method.lower()]["requestBody"]["content"][JSON]["schema"]
    is_valid = jsonschema_rs.is_valid({**schema, "components": spec["components"]}, body, validate_formats=True)
    answer = fetching.http.request(method, path.replace("{id}", "here"), json=body)
    assert answer.status_code == 200 if is_valid else answer.status_code == 422, (is_valid, answer.text)


PARAMETERS = (
    ("GET /v1/search", "q", {"a": 200, "-a": 200, " ": 422, "-": 422, "x" * 91: 422}),
    ("GET /v1/search", "k", {1: 200, 77: 200, 0: 422, 78: 422}),
    ("GET /v1/search", "collection", {"default": 200, "": 422, "A": 422, "x" * 65: 422}),
    ("GET /v1/images", "collection", {"default": 200, "": 422}),
    ("GET /v1/jobs", "state", {"running": 200, "": 422}),
    ("GET /v1/collections/{name}", "name", {"default": 200, "A": 422}),
    ("DELETE /v1/collections/{name}", "name", {"no": 404, "default": 422, "A": 422}),
    ("POST /v1/texts", "Idempotency-Key", {"a": 200, '"b"': 200, '""': 400, "x" * 255: 200, "x" * 256: 400}),
)


@pytest.mark.parametrize(
    ("call", "name", "answers"), PARAMETERS, ids=[f"{call} {name}" for call, name, _ in PARAMETERS]
)
def test_the_schema_of_a_parameter_allows_what_the_server_accepts(
    call: str, name: str, answers: dict[Any, int], spec: dict[str, Any], fetching: RunningServer
) -> None:
    method, path = call.split(" ")
    described = spec["paths"][path][method.lower()]["parameters"]
    (parameter,) = (one for one in described if one["name"] == name)
    schema = {**parameter["schema"], "components": spec["components"]}
    for value, status in answers.items():
        assert jsonschema_rs.is_valid(schema, value) is (status not in (400, 422)), (value, schema)
        query = {"q": "a"} if path == "/v1/search" else {}
        headers = {}
        if parameter["in"] == "header":
            headers[name] = value
        elif parameter["in"] == "query":
            query[name] = value
        body = {"texts": [{"text": "a"}]} if method == "POST" else None
        address = path.replace("{name}", str(value))
        answer = fetching.http.request(method, address, params=query, headers=headers, json=body)
        assert answer.status_code == status, (value, answer.text)


def test_no_parameter_is_null(spec: dict[str, Any]) -> None:
    calls = [call for below in spec["paths"].values() for call in below.values()]
    schemas = [one["schema"] for call in calls for one in call.get("parameters", ())]
    assert len(schemas) > 50
    assert [schema for schema in schemas if "null" in str(schema)] == []


def test_the_document_has_keywords_of_json_schema_alone(fetching: RunningServer) -> None:
    text = fetching.http.get("/openapi.json").text
    assert re.findall(r'"(?:x-limits|[gl][et])":[^{]', text) == []


def test_the_document_says_which_calls_need_no_key(spec: dict[str, Any]) -> None:
    is_open = {
        f"{method.upper()} {path}": {} in call["security"]
        for path, calls in spec["paths"].items()
        for method, call in calls.items()
    }
    assert is_open == {call: ROUTE_SCOPES[call] is KeyScope.OPEN for call in is_open}


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
