"""What a request brings and its route does not declare is refused, and nothing is done."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from app.api.app import create_app
from app.api.strict_route import StrictRoute
from app.core.errors import BadRequest, Validation
from app.core.settings import Settings
from app.core.strict_json import load_json
from app.service.service import open_service
from tests.app.api.asking import check_refusal, field_part, file_part, form, make_picture, post_form, upload_ready
from tests.app.api.guarded import Guarded
from tests.reliability.proofs.roles import fill_path, list_operations
from tests.support.servers import RunningServer

PROBES = ("/livez", "/readyz", "/metrics")
ONE = {"query": [{"text": "red"}]}


def operations(server: RunningServer) -> list[tuple[str, str]]:
    paths = server.http.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, calls in paths.items() for method in calls]


def test_every_route_that_is_described_is_strict(tmp_path: Any) -> None:
    settings = Settings(data_dir=tmp_path, model="colours", workers=0)
    service = open_service(settings)
    try:
        contexts = [one for one in iter_route_contexts(create_app(service).routes) if one.methods]
    finally:
        service.close()
    loose = {one.path for one in contexts if not isinstance(one.original_route, StrictRoute)}
    assert loose == {"/openapi.json", "/", "/docs"}  # which change nothing, and get what a browser adds


def test_every_call_refuses_a_parameter_that_it_does_not_know(server: RunningServer) -> None:
    for method, path in operations(server):
        if path in PROBES:
            continue
        answer = server.http.request(method, path.replace("{", "").replace("}", ""), params={"colection": "x"})
        told = check_refusal(answer, 422, "validation")["detail"]
        assert "there is no parameter 'colection'" in told, (method, path)


@pytest.mark.parametrize("path", PROBES)
def test_a_monitor_may_add_a_parameter_against_caches(path: str, server: RunningServer) -> None:
    assert server.http.get(path, params={"t": "1764450000"}).status_code == 200
    check_refusal(server.http.request("GET", path, json={"t": 1}), 422, "validation")


def test_a_caller_without_a_key_learns_no_parameter(guarded: Guarded) -> None:
    for call in list_operations(guarded):
        method, path = call.split(" ")
        if "/session" in path or path in ("/livez", "/readyz"):
            continue
        answer = guarded.ask("none", method, fill_path(guarded, path, "default") + "&colection=x")
        check_refusal(answer, 401, "unauthorized")


@pytest.mark.parametrize(
    ("call", "near"),
    [
        ("GET /v1/search?q=x&limit=3", "k"),
        ("GET /v1/search?q=x&top_k=3", "k"),
        ("GET /v1/search?query=x", "q"),
        ("GET /v1/search?q=x&collection_name=a", "collection"),
        ("GET /v1/images?k=3", "limit"),
        ("GET /v1/images?tags=a", "filter"),
        ("GET /v1/images?page=2", "cursor"),
        ("GET /v1/jobs?status=failed", "state"),
        ("GET /v1/jobs/x/items?state=failed", "status"),
        ("DELETE /v1/images/x?dryrun=true", "dry_run"),
        ("POST /v1/images?overwrite=true", "replace"),
        ("GET /v1/search?q=x&K=3", "k"),
        ("GET /v1/images/x?Collection=a", "collection"),
    ],
)
def test_the_nearest_name_is_told(call: str, near: str, server: RunningServer) -> None:
    method, path = call.split(" ")
    assert f"did you mean {near!r}?" in check_refusal(server.http.request(method, path), 422, "validation")["detail"]


def test_what_has_no_name_here_is_told(server: RunningServer) -> None:
    told = check_refusal(server.http.get("/v1/search?q=x&min_score=0.3"), 422, "validation")["detail"]
    assert told == "there is no parameter 'min_score'; did you mean 'score_threshold'?"
    told = check_refusal(server.http.get("/v1/stats?verbose=1"), 422, "validation")["detail"]
    assert told == "there is no parameter 'verbose'; this call takes collection"


@pytest.mark.parametrize(
    "path", ["/v1/search?q=x&k=1&k=1", "/v1/images?collection=default&collection=default", "/v1/search?q=a&q=b"]
)
def test_a_parameter_that_comes_twice_is_refused(path: str, server: RunningServer) -> None:
    assert "was sent 2 times" in check_refusal(server.http.get(path), 422, "validation")["detail"]


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("POST /v1/search?k=5", {**ONE, "k": 6}),
        ("POST /v1/search?collection=a", {**ONE, "collection": "b"}),
        ("POST /v1/search?target=texts", {**ONE, "target": "images"}),
        ("POST /v1/search?exact=true", {**ONE, "exact": False}),
        ('POST /v1/search?filter={"must":[]}', {**ONE, "filter": {"must_not": []}}),
        ("POST /v1/images/delete?dry_run=true", {"all": True, "dry_run": False}),
        ("POST /v1/images/delete?collection=a", {"all": True, "collection": "default"}),
        ("POST /v1/images/known?collection=a", {"sha256": [], "collection": "default"}),
        ("POST /v1/texts?collection=a", {"texts": [{"text": "x"}], "collection": "default"}),
        ("POST /v1/classify?collection=a", {"image_id": "x", "labels": ["a", "b"], "collection": "default"}),
    ],
)
def test_two_values_that_contradict_each_other_are_refused(call: str, body: Any, server: RunningServer) -> None:
    answer = server.http.post(call.split(" ")[1], json=body)
    assert "one thing in the address and another in the body" in check_refusal(answer, 422, "validation")["detail"]


def test_equal_values_and_values_of_one_place_count(server: RunningServer) -> None:
    for _ in range(3):
        upload_ready(server)
    for path, body in (("?k=2", {"k": 2}), ("?k=2", {}), ("", {"k": 2})):
        answer = server.http.post("/v1/search" + path, json={**ONE, **body})
        assert len(answer.json()["hits"]) == 2, answer.text
    answer = server.http.post("/v1/search/image?k=2", files={"file": ("a.png", make_picture())}, data={"k": "2"})
    assert len(answer.json()["hits"]) == 2
    check_refusal(
        server.http.post("/v1/search/image?k=2", files={"file": ("a.png", make_picture())}, data={"k": "3"}),
        422,
        "validation",
    )
    nothing = {"must": [{"has_id": ["nothing"]}]}
    answer = server.http.post("/v1/search", params={"filter": json.dumps(nothing)}, json=ONE)
    assert answer.json()["hits"] == []


@pytest.mark.parametrize("name", ["caption", "tags", "id", "metadata", "texts"])
def test_a_field_in_the_address_is_told_where_it_belongs(name: str, server: RunningServer) -> None:
    path = "/v1/texts" if name == "texts" else "/v1/images"
    told = check_refusal(server.http.post(path, params={name: "x"}), 422, "validation")["detail"]
    assert told == f"{name!r} belongs in the body of this call, not in its address"


def test_a_body_where_none_is_taken_is_refused(server: RunningServer) -> None:
    image = upload_ready(server)
    where = f"/v1/images/{image['id']}"
    told = check_refusal(server.http.request("DELETE", where, json={"dry_run": True}), 422, "validation")["detail"]
    assert told == "'dry_run' belongs in the address of this call: ?dry_run=..."
    check_refusal(server.http.request("GET", "/v1/search?q=x", json={"k": 3}), 422, "validation")
    check_refusal(server.http.post("/v1/jobs/x/cancel", content=b"x"), 422, "validation")
    assert server.http.get(where).status_code == 200
    check_refusal(
        server.http.post("/v1/jobs/x/cancel", json={}), 404, "not_found"
    )  # as clients send it that always send JSON


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("PATCH /v1/images/x", {"caption": "a", "collection": "default"}),
        ("POST /v1/demo", {"collection": "default"}),
        ("DELETE /v1/texts/x", {"collection": "default"}),
        ("GET /v1/search?q=x", {"collection": "default"}),
    ],
)
def test_a_parameter_in_the_body_is_told_where_it_belongs(call: str, body: Any, server: RunningServer) -> None:
    method, path = call.split(" ")
    told = check_refusal(server.http.request(method, path, json=body), 422, "validation")["detail"]
    assert told == "'collection' belongs in the address of this call: ?collection=..."


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match", "If-Unmodified-Since", "If-Modified-Since"])
def test_a_condition_that_a_change_would_ignore_is_refused(header: str, server: RunningServer) -> None:
    where = f"/v1/images/{upload_ready(server)['id']}"
    for method, body in (("DELETE", None), ("PATCH", {"caption": "x"})):
        answer = server.http.request(method, where, json=body, headers={header: '"x"'})
        assert header in check_refusal(answer, 422, "validation")["detail"]
    assert server.http.get(where).json()["caption"] is None


def test_a_compressed_body_is_told_so(server: RunningServer) -> None:
    for path in ("/v1/search", "/v1/images", "/v1/images/ingest"):
        answer = server.http.post(path, json=ONE, headers={"Content-Encoding": "gzip"})
        assert "Content-Encoding: gzip" in check_refusal(answer, 415, "unsupported_media_type")["detail"]
    assert server.http.post("/v1/search", json=ONE, headers={"Content-Encoding": "identity"}).status_code == 200


@pytest.mark.parametrize(
    ("call", "body", "told"),
    [
        ("DELETE /v1/images/x?dry_run", None, "dry_run: expected true or false"),
        ("DELETE /v1/images/x?dry_run=maybe", None, "dry_run: expected true or false"),
        ("GET /v1/search?q=x&k=1.5", None, "k: expected a whole number"),
        ("GET /v1/search?q=x&target=image", None, "target: expected 'images' or 'texts'"),
        ("GET /v1/images?limit=0", None, "limit: expected at least 1"),
        ("GET /v1/search", None, "q: required, and not there"),
        ("POST /v1/search", None, "the body: required, and not there"),
        ("POST /v1/search", {**ONE, "k": True}, "k: expected a whole number"),
        ("POST /v1/search", {"query": []}, "query: expected at least 1, got 0"),
        ("POST /v1/search", {"query": ["x"]}, "query.0: expected an object"),
        ("POST /v1/search", {**ONE, "exact": None}, "exact: expected true or false"),
        ("POST /v1/images/delete", {"ids": ["x", 5]}, "ids.1: expected a text"),
        (
            "POST /v1/texts",
            {"texts": [{"text": "a", "id": "x"}, {"text": "b", "id": "x"}]},
            "texts: the id 'x' is there twice, expected once",
        ),
    ],
)
def test_a_wrong_value_is_told_in_words_of_json(call: str, body: Any, told: str, server: RunningServer) -> None:
    method, path = call.split(" ")
    assert check_refusal(server.http.request(method, path, json=body), 422, "validation")["detail"] == told


def test_a_misspelt_collection_is_named_wherever_it_is(server: RunningServer) -> None:
    http = server.http
    http.post("/v1/collections", json={"name": "holiday"})
    calls = [("GET", path) for path in ("/images/x", "/images/x/file", "/images/x/thumbnail", "/texts/x", "/stats")]
    calls += [("DELETE", "/images/x"), ("PATCH", "/images/x"), ("DELETE", "/texts/x"), ("GET", "/search?q=x")]
    for method, path in calls:
        body = {"caption": "x"} if method == "PATCH" else None
        address = f"/v1{path}{'&' if '?' in path else '?'}collection=holidy"
        told = check_refusal(http.request(method, address, json=body), 404, "not_found")["detail"]
        assert told == "there is no collection 'holidy'; did you mean 'holiday'?"
    told = check_refusal(http.delete("/v1/collections/holidy"), 404, "not_found")["detail"]
    assert told == "there is no collection 'holidy'; did you mean 'holiday'?"
    told = check_refusal(http.get("/v1/images/x?collection=holiday"), 404, "not_found")["detail"]
    assert told == "there is no picture 'x' in 'holiday'"


def test_a_dry_run_deletes_nothing_wherever_it_is_asked_for(server: RunningServer) -> None:
    http = server.http
    image = upload_ready(server)
    http.post("/v1/collections", json={"name": "kept"})
    http.post("/v1/texts", json={"texts": [{"id": "kept", "text": "red"}]})
    for path in (f"/v1/images/{image['id']}", "/v1/texts/kept", "/v1/collections/kept"):
        answer = http.delete(path, params={"dry_run": "true"})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["matched"], answer.json()["deleted"]) == (1, 0)
        assert answer.json()["examples"] == [http.get(path).json()]
    body = {"ids": [image["id"]]}
    for where, more in (("?dry_run=true", {}), ("", {"dry_run": True}), ("?dry_run=true", {"dry_run": True})):
        answer = http.post("/v1/images/delete" + where, json={**body, **more})
        assert (answer.json()["matched"], answer.json()["deleted"]) == (1, 0)
    check_refusal(http.delete("/v1/collections/default?dry_run=true"), 422, "validation")
    check_refusal(http.delete("/v1/images/nothing?dry_run=true"), 404, "not_found")
    for path in (f"/v1/images/{image['id']}?dry_run=false", "/v1/texts/kept", "/v1/collections/kept"):
        assert http.delete(path).status_code == 204


@pytest.mark.parametrize(
    "sent",
    [
        {"k": True},
        {"k": "5"},
        {"k": 1.5},
        {"exact": 1},
        {"exact": "true"},
        {"query": [{"text": "red", "weight": True}]},
        {"query": [{"text": "red", "weight": "1"}]},
        {"query": [{"vector": [True, False]}]},
        {"params": {"nprobe": True}},
        {"kk": 1},
    ],
    ids=str,
)
def test_a_value_of_another_type_is_no_value(sent: dict[str, Any], server: RunningServer) -> None:
    check_refusal(server.http.post("/v1/search", json={**ONE, **sent}), 422, "validation")


def test_a_whole_number_may_be_written_with_a_point(server: RunningServer) -> None:
    assert server.http.post("/v1/search", json={**ONE, "k": 2.0}).status_code == 200


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"query": [{"text": "red"}], "k": 1, "k": 2}', "'k' is there twice"),
        (b'{"query": [{"text": "red", "text": "blue"}]}', "'text' is there twice"),
        (b'{"query": [{"text": "red"}], "k": NaN}', "NaN is not JSON"),
        (b'{"query": [{"text": "red", "weight": -Infinity}]}', "-Infinity is not JSON"),
        (b'{"query": ', "the body is not JSON"),
        (b'{"query": [{"text": "red"}], "limit": 1}', "limit: there is no field 'limit'; did you mean 'k'?"),
        (b'{"query": [{"txt": "red"}]}', "query.0.txt: there is no field 'txt'; did you mean 'text'?"),
    ],
)
def test_json_is_read_strictly(content: bytes, told: str, server: RunningServer) -> None:
    answer = server.http.post("/v1/search", content=content, headers={"Content-Type": "application/json"})
    assert told in check_refusal(answer, 422, "validation")["detail"]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
def test_json_without_its_content_type_is_told_the_header(kind: str | None, server: RunningServer) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    for path in ("/v1/search", "/v1/texts", "/v1/images/delete", "/v1/collections", "/v1/session", "/v1/images/ingest"):
        answer = server.http.post(path, content=b'{"query": [{"text": "red"}]}', headers=headers)
        assert "Content-Type: application/json" in check_refusal(answer, 415, "unsupported_media_type")["detail"]
    answer = server.http.post("/v1/search", content=json.dumps(ONE), headers={"Content-Type": "application/vnd.x+json"})
    assert answer.status_code == 200


def test_a_form_refuses_fields_that_it_does_not_know(server: RunningServer) -> None:
    files = {"file": ("a.png", make_picture())}
    for name, near in (("title", "caption"), ("tag", "tags"), ("colection", "collection")):
        told = check_refusal(server.http.post("/v1/images", files=files, data={name: "x"}), 422, "validation")["detail"]
        assert told == f"there is no field {name!r}; did you mean {near!r}?"
    told = check_refusal(server.http.post("/v1/images", files={"image": ("a.png", make_picture())}), 422, "validation")[
        "detail"
    ]
    assert told == "there is no field 'image'; did you mean 'file'?"
    told = check_refusal(
        server.http.post("/v1/images", data={"caption": "x"}, files={"file": (None, "cat.jpg")}), 422, "validation"
    )["detail"]
    assert "curl -F file=@" in told


@pytest.mark.parametrize("name", ["tags[]", "tags[0]"])
def test_a_field_with_an_index_is_the_repeated_field(name: str, server: RunningServer) -> None:
    parts = [
        field_part(name.encode(), b"cat"),
        field_part(name.replace("0", "1").encode(), b"home"),
        file_part(make_picture()),
    ]
    assert post_form(server, "/v1/images", form(parts)).json()["tags"] == ["cat", "home"]


def test_a_list_in_one_field_is_refused_and_a_comma_told(server: RunningServer) -> None:
    for written in ("['a', 'b']", '["a", "b"]'):
        check_refusal(server.upload(make_picture(), tags=written), 422, "validation")
    assert server.upload(make_picture(), tags="[draft]").json()["tags"] == ["[draft]"]
    answer = server.upload(make_picture(), tags="cat,home").json()
    assert answer["tags"] == ["cat,home"]
    assert [(one["code"], one["field"]) for one in answer["warnings"]] == [("tag_with_comma", "tags")]


def test_replace_and_wait_are_fields_of_the_form_too(server: RunningServer) -> None:
    upload_ready(server, id="replaced")
    blue = make_picture("blue")
    answer = server.http.post(
        "/v1/images", files={"file": ("b.png", blue)}, data={"id": "replaced", "replace": "true", "wait": "30"}
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert server.http.get("/v1/images/replaced/file").content == blue


@pytest.mark.parametrize("content_type", [b"application/json", b"application/octet-stream"])
def test_a_field_with_a_file_name_is_read_as_the_field(content_type: bytes, server: RunningServer) -> None:
    """As browsers send a Blob, and curl a field that it reads from a file."""

    def blob(name: bytes, value: bytes) -> bytes:
        head = b'Content-Disposition: form-data; name="' + name + b'"; filename="blob"\r\nContent-Type: ' + content_type
        return head + b"\r\n\r\n" + value

    said = {
        b"metadata": b'{"camera": "X100"}',
        b"caption": b"a cat",
        b"tags": b"cat",
        b"id": b"blob-" + content_type[-4:],
    }
    answer = post_form(server, "/v1/images", form([*(blob(*one) for one in said.items()), file_part(make_picture())]))
    image = answer.json()
    assert (image["metadata"], image["caption"], image["tags"]) == ({"camera": "X100"}, "a cat", ["cat"]), answer.text
    large = blob(b"metadata", b'{"a": "' + b"x" * (1 << 20) + b'"}')
    check_refusal(post_form(server, "/v1/images", form([large, file_part(make_picture())])), 413, "payload_too_large")


def test_an_idempotency_key_that_would_be_ignored_is_refused(server: RunningServer) -> None:
    http = server.http
    check_refusal(http.post("/v1/demo", headers={"Idempotency-Key": "x"}), 422, "validation")
    answer = http.post("/v1/texts", headers={"X-Idempotency-Key": "x"}, json={"texts": [{"text": "red"}]})
    assert "did you mean 'Idempotency-Key'?" in check_refusal(answer, 422, "validation")["detail"]


def test_jobs_are_listed_by_state(server: RunningServer) -> None:
    job = server.wait_job(server.bulk([("a.png", make_picture())])["id"])
    succeeded = server.http.get("/v1/jobs", params={"state": "succeeded", "limit": 1000}).json()["jobs"]
    assert job["id"] in [one["id"] for one in succeeded]
    assert {one["state"] for one in succeeded} == {"succeeded"}
    assert job["id"] not in server.http.get("/v1/jobs", params={"state": "failed", "limit": 1000}).text
    check_refusal(server.http.get("/v1/jobs?state=nothing"), 422, "validation")


def test_load_json_names_what_it_reads() -> None:
    with pytest.raises(BadRequest, match="the line is nested too deeply"):
        load_json("[" * 10_000, "the line", BadRequest)
    with pytest.raises(Validation, match="filter is not JSON: Expecting value at character 1"):
        load_json("", "filter")
