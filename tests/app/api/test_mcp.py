"""Assistants at `/mcp`: the SDK's client in both eras of the protocol, keys, limits, and clients that vanish."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sightline_client import AsyncClient

from app.api.app import create_app
from app.api.routes import mcp as route
from app.core.settings import Settings
from app.service.service import Service, open_service
from tests.app.api.asking import check_refusal, make_picture, raw
from tests.app.api.guarded import Guarded
from tests.support.assistants import ERAS, be_refused, connect_http, look, read_text, use
from tests.support.pictures import picture
from tests.support.servers import RunningServer

COLLECTION = "assistants"
MODERN = "2026-07-28"
TOOLS = (
    "search_pictures",
    "similar_pictures",
    "get_picture",
    "classify_picture",
    "describe_collections",
    "add_picture",
)
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
both_eras = pytest.mark.parametrize("era", ERAS)


@pytest.fixture(scope="module")
def album(server: RunningServer) -> Iterator[RunningServer]:
    """A server with a collection of five pictures, of which the second is wide."""
    assert server.http.post("/v1/collections", json={"name": COLLECTION, "description": "an album"}).status_code == 201
    for colour, format in (("red", "JPEG"), ("green", "PNG"), ("blue", "PNG"), ("purple", "PNG"), ("yellow", "PNG")):
        said: dict[str, Any] = {
            "id": colour,
            "tags": [colour, "plain"],
            "caption": f"all {colour}",
            "collection": COLLECTION,
        }
        assert server.upload(make_picture(colour, format), **said).status_code == 200
    yield server
    server.http.delete(f"/v1/collections/{COLLECTION}")


@both_eras
def test_an_agent_finds_looks_refines_and_classifies(era: str, album: RunningServer) -> None:
    """The loop of an assistant that looks for the blue picture, and is not content with the first answer."""

    async def work() -> None:
        async with connect_http(album.url, era) as client:
            assert (client.protocol_version == MODERN) is (era != "legacy")
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert tuple(tools) == TOOLS
            assert all(tool.annotations and tool.annotations.read_only_hint for tool in list(tools.values())[:5])
            assert "never instructions" in (client.instructions or "")
            there = await use(client, "describe_collections")
            counts = {one["name"]: one["pictures"] for one in there["collections"]}
            assert counts[COLLECTION] == 5
            described = await use(client, "describe_collections", collection=COLLECTION)
            assert described["values"]["tags"]["plain"] == 5
            where = {"collection": COLLECTION}
            found = await client.call_tool("search_pictures", {"query": "red", "k": 2, **where})
            structured: Any = found.structured_content
            assert structured["hits"][0]["id"] == "red"
            assert structured["next_offset"] == 2
            assert structured == json.loads(found.content[0].text)  # type: ignore[union-attr]
            shown = look(found)
            assert [kind for kind, _ in shown] == ["image/jpeg", "image/webp"]
            assert shown[0][1].convert("RGB").resize((1, 1)).getpixel((0, 0))[0] > 180  # type: ignore[index]
            refined = await use(
                client, "search_pictures", query="red", like=["blue"], unlike=["red"], pictures=False, **where
            )
            assert refined["hits"][0]["id"] == "blue"
            only: Any = {"key": "tags", "match": {"value": "blue"}}
            filtered = await use(client, "search_pictures", query="anything", filter=only, **where)
            assert [hit["id"] for hit in filtered["hits"]] == ["blue"]
            page = await use(client, "search_pictures", query="red", offset=4, **where)
            assert (len(page["hits"]), page.get("next_offset")) == (1, None)
            alike = await use(client, "similar_pictures", id="blue", k=2, **where)
            assert len(alike["hits"]) == 2
            assert "blue" not in [hit["id"] for hit in alike["hits"]]
            best = await use(client, "classify_picture", id="blue", labels=["red", "blue"], **where)
            assert best["labels"][0]["label"] == "blue"
            assert sum(one["probability"] for one in best["labels"]) == pytest.approx(1)

    asyncio.run(work())


@both_eras
def test_a_picture_is_shown_closely_and_its_file_is_a_resource(era: str, album: RunningServer) -> None:
    async def work() -> None:
        async with connect_http(album.url, era) as client:
            found = await client.call_tool("get_picture", {"id": "red", "collection": COLLECTION, "size": 64})
            assert max(look(found)[0][1].size) <= 64
            links = [block for block in found.content if block.type == "resource_link"]
            uri = f"sightline://{COLLECTION}/red"
            assert [(link.uri, link.mime_type) for link in links] == [(uri, "image/jpeg")]
            assert [one.uri_template for one in (await client.list_resource_templates()).resource_templates] == [
                "sightline://{collection}/{id}"
            ]
            (content,) = (await client.read_resource(uri)).contents
            file = album.http.get("/v1/images/red/file", params={"collection": COLLECTION}).content
            assert (base64.b64decode(content.blob), content.mime_type) == (file, "image/jpeg")  # type: ignore[union-attr]
            for wrong in ("sightline://nowhere/red", "sightline://red", f"sightline://{COLLECTION}/gone"):
                with pytest.raises(Exception, match=r"there is no|a picture is sightline"):
                    await client.read_resource(wrong)

    asyncio.run(work())


@both_eras
def test_what_a_model_does_wrong_is_told_so_that_it_can_do_better(era: str, album: RunningServer) -> None:
    async def work() -> None:
        async with connect_http(album.url, era) as client:
            assert "did you mean 'k'?" in await be_refused(client, "search_pictures", query="red", limit=3)
            assert "k: " in await be_refused(client, "search_pictures", query="red", k=13)
            wrong = await be_refused(client, "search_pictures", query="red", filter={"key": "nothing", "match": 1})
            assert "(validation)" in wrong
            long = {"must": [{"key": "tags", "match": {"value": "x" * 900}}] * 20}
            assert "16 KiB" in await be_refused(client, "search_pictures", query="red", filter=long)
            foreign = await be_refused(client, "search_pictures", query="red", collection="elsewhere")
            assert "there is no collection 'elsewhere'" in foreign
            assert "describe_collections tells" in foreign
            assert "(not_found)" in await be_refused(client, "get_picture", id="gone")
            assert "labels" in await be_refused(client, "classify_picture", id="red", labels=["one"])
            for given in ({}, {"url": "http://x", "data": "eA=="}):
                assert "exactly one" in await be_refused(client, "add_picture", **given)
            assert "not valid base64" in await be_refused(client, "add_picture", data="§")
            assert "reads no files" in await be_refused(client, "add_picture", path="/etc/passwd")
            assert "SIGHTLINE_FETCH" in await be_refused(client, "add_picture", url="http://127.0.0.1/a.png")
            broken = await be_refused(client, "add_picture", data=base64.b64encode(b"no picture").decode())
            assert "(unsupported_media_type)" in broken

    asyncio.run(work())


@both_eras
def test_a_picture_is_added_once_and_found(era: str, own_collection: tuple[RunningServer, str]) -> None:
    server, name = own_collection

    async def work() -> None:
        async with connect_http(server.url, era) as client:
            data = "data:image/png;base64," + base64.b64encode(make_picture("purple")).decode()
            said = {"caption": "a note", "tags": ["new"], "metadata": {"by": "an assistant"}, "collection": name}
            added = await use(client, "add_picture", data=data, name="note.png", **said)
            assert (added["status"], added["name"], added["tags"]) == ("ready", "note.png", ["new"])
            again = await use(client, "add_picture", data=data, **said)
            assert (again["id"], again["duplicate"]) == (added["id"], True)
            found = await use(client, "search_pictures", query="a note", collection=name)
            assert [hit["id"] for hit in found["hits"]] == [added["id"]]

    asyncio.run(work())


@pytest.mark.parametrize("form", ["no padding", "URL-safe", "DATA:", "white space"])
def test_a_picture_is_added_in_the_forms_of_base64_that_the_api_takes(
    form: str, own_collection: tuple[RunningServer, str]
) -> None:
    server, name = own_collection
    content = make_picture("green")
    content += b"\xfb\xff" + bytes(2 - len(content) % 3)  # what follows a picture is not looked at
    plain = base64.b64encode(content).decode()
    assert plain.endswith("=")
    assert "+" in plain or "/" in plain
    data = {
        "no padding": plain.rstrip("="),
        "URL-safe": base64.urlsafe_b64encode(content).decode(),
        "DATA:": f"DATA:image/png;base64,{plain}",
        "white space": f"\n {plain[:40]}\r\n{plain[40:]} ",
    }[form]

    async def work() -> None:
        async with connect_http(server.url, "auto") as client:
            added = await use(client, "add_picture", data=data, collection=name)
            file = server.http.get(f"/v1/images/{added['id']}/file", params={"collection": name})
            assert file.content == content

    asyncio.run(work())


def test_a_search_gives_little_text_and_says_what_it_has_cut(own_collection: tuple[RunningServer, str]) -> None:
    server, name = own_collection
    said: dict[str, Any] = {
        "caption": "red " * 400,
        "tags": [f"{n:03} " + "t" * 90 for n in range(100)],
        "metadata": {"by": "Ann", "story": "once " * 1_000, "list": list(range(2_000)), "year": 2024},
    }
    for id, more in (("long", said), ("short", {"tags": ["one"], "metadata": {"by": "Ann"}})):
        sent = {**more, "metadata": json.dumps(more["metadata"])}
        answer = server.upload(make_picture("red"), id=id, collection=name, **sent)
        assert answer.status_code == 200, answer.text

    async def work() -> None:
        async with connect_http(server.url, "auto") as client:
            for tool, asked in (("search_pictures", {"query": "red"}), ("similar_pictures", {"id": "short"})):
                found = await client.call_tool(tool, {**asked, "collection": name, "pictures": False})
                assert len(read_text(found)) < 5_000
                structured: Any = found.structured_content
                hits = {hit["id"]: hit for hit in structured["hits"]}
                long = hits["long"]
                assert long["cut"] == ["caption", "tags", "metadata"]
                assert long["caption"] == said["caption"].strip()[:500]
                assert long["tags"] == said["tags"][:5]
                assert long["metadata"] == {"by": "Ann", "story": said["metadata"]["story"][:200], "year": 2024}
                assert tool != "search_pictures" or hits["short"]["cut"] == []
            whole = await use(client, "get_picture", id="long", collection=name)
            assert (whole["tags"], whole["metadata"]) == (said["tags"], said["metadata"])
            assert whole["caption"].startswith(said["caption"].strip())
            assert "cut" not in whole

    asyncio.run(work())


def test_the_pictures_of_a_search_have_at_most_512_pixels(own_collection: tuple[RunningServer, str]) -> None:
    server, name = own_collection
    for n in range(2):
        sent = picture("red", seed=n, size=(900, 700))
        assert server.upload(sent, collection=name).status_code == 200

    async def work() -> None:
        async with connect_http(server.url, "auto") as client:
            for tool, asked in (("search_pictures", {"query": "red"}), ("similar_pictures", {"id": "x"})):
                told = await be_refused(client, tool, **asked, size=513, collection=name)
                assert told.startswith(f"Error executing tool {tool}: size: ") or told.startswith("size: ")
            found = await client.call_tool("search_pictures", {"query": "red", "size": 512, "collection": name})
            assert [max(shown.size) for _, shown in look(found)] == [512, 512]
            found = await client.call_tool("search_pictures", {"query": "red", "collection": name})
            assert [max(shown.size) for _, shown in look(found)] == [320, 320]

    asyncio.run(work())


@pytest.fixture
def own_collection(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[tuple[RunningServer, str]]:
    name = f"c{abs(hash(request.node.name)) % 10**9}"
    assert server.http.post("/v1/collections", json={"name": name}).status_code == 201
    yield server, name
    server.http.delete(f"/v1/collections/{name}")


@both_eras
def test_a_key_allows_what_it_allows_elsewhere(era: str, guarded: Guarded) -> None:
    async def work(kind: str) -> tuple[list[str], bool, str, str, str]:
        bearer = {"Authorization": f"Bearer {guarded.keys[kind]}", "X-Forwarded-For": guarded.address()}
        async with connect_http(guarded.server.url, era, **bearer) as client:
            described = await use(client, "describe_collections")
            names = [one["name"] for one in described["collections"]]
            search = await client.call_tool("search_pictures", {"query": "red", "collection": "default", "k": 1})
            look = await client.call_tool("get_picture", {"id": guarded.image, "collection": "default"})
            data = base64.b64encode(make_picture()).decode()
            add = await client.call_tool("add_picture", {"data": data, "collection": "default"})
            told = [read_text(one) if one.is_error else "" for one in (search, look, add)]
            return names, described["may_add"], *told

    names, may_add, search, shown, add = asyncio.run(work("search"))
    assert ("default" in names, may_add, search, shown) == (True, False, "", "")
    assert "this call needs a key of scope write (forbidden)" in add
    assert asyncio.run(work("bound"))[1:] == (True, "", "", "")
    names, may_add, search, shown, add = asyncio.run(work("elsewhere"))
    assert names == []
    for told in (search, shown, add):  # as of a collection that there is not
        assert "default" in told
        assert "red" not in told


def post(server: RunningServer, **message: Any) -> Any:
    return server.http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, **message}, headers=HEADERS)


def test_who_has_no_key_gets_no_tools(guarded: Guarded) -> None:
    for key, code in (("none", 401), ("revoked", 401), ("unknown", 401)):
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        check_refusal(guarded.ask(key, "POST", "/mcp", json=body), code, "unauthorized")
    check_refusal(guarded.ask("search", "GET", "/mcp"), 405, "bad_request")


def test_messages_are_refused_as_other_bodies_are(server: RunningServer) -> None:
    check_refusal(server.http.get("/mcp"), 405, "bad_request")
    check_refusal(server.http.delete("/mcp"), 405, "bad_request")
    check_refusal(server.http.post("/mcp?session=1", json={}), 422, "validation")
    large = server.http.post("/mcp", content=b'"' + b"x" * (2 << 20) + b'"', headers=HEADERS)
    check_refusal(large, 413, "payload_too_large")
    check_refusal(server.http.post("/mcp", content=b"[" * 30_000, headers=HEADERS), 422, "validation")
    evil = b"POST /mcp HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n"
    assert raw(server, evil)[0] == 403
    foreign = server.http.post("/mcp", json={}, headers={"Origin": "https://evil.example", **HEADERS})
    check_refusal(foreign, 403, "forbidden")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"jsonrpc": "2.0"}', b'{"id": [1], "method": 3}', b"\xff", b"[" * 9_000]
)
@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28", "1999-01-01", "\x00"])
def test_what_is_no_message_is_no_fault_of_the_server(body: bytes, version: str, server: RunningServer) -> None:
    headers = {**HEADERS, **({} if version == "\x00" else {"MCP-Protocol-Version": version})}
    assert 400 <= server.http.post("/mcp", content=body, headers=headers).status_code < 500


def test_an_old_client_gets_no_links(album: RunningServer) -> None:
    call = {"name": "get_picture", "arguments": {"id": "red", "collection": COLLECTION}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    headers = {**HEADERS, "MCP-Protocol-Version": "2025-03-26"}
    answer = album.http.post("/mcp", json=message, headers=headers)
    assert [block["type"] for block in answer.json()["result"]["content"]] == ["text", "image"]
    assert answer.headers["Cache-Control"] == "private, no-store"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = open_service(Settings(data_dir=tmp_path, model="colours"))
    yield service
    service.close()


@both_eras
def test_a_client_that_vanishes_ends_its_call(era: str, service: Service) -> None:
    """The tool's own call is cancelled, and the request ends: nothing of it is left."""
    state = {"begun": asyncio.Event(), "ended": False}

    @asynccontextmanager
    async def connect_slowly(context: Any) -> AsyncIterator[AsyncClient]:
        state["begun"].set()  # type: ignore[attr-defined]
        try:
            await asyncio.sleep(60)
            yield AsyncClient()
        finally:
            state["ended"] = True

    async def work() -> None:
        from app.api.mcp_tools import PictureServer

        app = create_app(service)
        app.state.mcp = PictureServer(connect_slowly)
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"name": "describe_collections", "arguments": {}, **({} if era == "legacy" else {"_meta": meta})}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        modern = {} if era == "legacy" else {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call"}
        modern |= {} if era == "legacy" else {"Mcp-Name": "describe_collections"}
        headers = {**HEADERS, **modern, "Host": "localhost", "Content-Length": str(len(body))}
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await state["begun"].wait()  # type: ignore[attr-defined]
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        scope = {"type": "http", "method": "POST", "path": "/mcp", "raw_path": b"/mcp", "query_string": b""}
        scope |= {"headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()], "client": ("::1", 1)}
        await asyncio.wait_for(app({**scope, "scheme": "http", "server": None, "root_path": ""}, receive, send), 20)
        assert state == {"begun": state["begun"], "ended": True}
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(work())


def test_a_server_without_the_extra_says_what_to_install(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.setattr(route, "find_spec", lambda name: None if name == "mcp" else find_spec(name))
    answer = TestClient(create_app(service), base_url="http://localhost").post("/mcp", json={})
    assert answer.status_code == 404
    assert "pip install 'sightline-search[mcp]'" in answer.json()["detail"]


META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "fuzz", "version": "1"},
}
RECORDED: tuple[dict[str, Any], ...] = (
    {"method": "tools/list", "params": {}},
    {"method": "server/discover", "params": {}},
    {
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "f"}},
    },
    {
        "method": "tools/call",
        "params": {"name": "search_pictures", "arguments": {"query": "red", "k": 2, "filter": {}}},
    },
    {"method": "tools/call", "params": {"name": "get_picture", "arguments": {"id": "red", "collection": COLLECTION}}},
    {"method": "tools/call", "params": {"name": "classify_picture", "arguments": {"id": "red", "labels": ["a", "b"]}}},
    {
        "method": "tools/call",
        "params": {"name": "add_picture", "arguments": {"data": "eA==", "tags": [], "metadata": {}}},
    },
    {"method": "resources/read", "params": {"uri": f"sightline://{COLLECTION}/red"}},
)
ODD: tuple[Any, ...] = (None, -1, 10**30, 1.5, "", "x" * 3000, "\ud800", "../..", [], {}, [[]], {"a": {"b": []}}, True)


def mutate(value: Any, random: Random) -> Any:
    """A copy with one value somewhere in it replaced by an odd one, or gone, or there under another name."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(sorted(value))
        rest = {key: one for key, one in value.items() if key != name}
        turn = random.random()
        return (
            rest
            if turn < 0.1
            else {**rest, name + "s": value[name]}
            if turn < 0.2
            else {
                **rest,
                name: mutate(value[name], random),
            }
        )
    if isinstance(value, list) and value and random.random() < 0.5:
        return [mutate(one, random) for one in value] * random.choice((1, 1, 200))
    return random.choice(ODD)


@pytest.mark.parametrize("version", ["2025-06-18", MODERN])
def test_mutations_of_recorded_messages_give_no_fault(version: str, album: RunningServer) -> None:
    random = Random(18)
    for n in range(120):
        recorded = RECORDED[n % len(RECORDED)]
        meta = {"_meta": META} if version == MODERN else {}
        message = {"jsonrpc": "2.0", "id": n, **recorded, "params": {**recorded["params"], **meta}}
        mutated = mutate(message, random)
        headers = {**HEADERS, "MCP-Protocol-Version": version, "Mcp-Method": recorded["method"]}
        if named := recorded["params"].get("name", recorded["params"].get("uri")):
            headers["Mcp-Name"] = named
        body = json.dumps(mutated).encode()
        answer = album.http.post("/mcp", content=body, headers=headers)
        assert answer.status_code < 500, (body, answer.text)
        told = answer.json() if answer.content else {}
        assert told.get("error", {}).get("code") != -32603 or "resources" in recorded["method"], (body, told)
        for block in told.get("result", {}).get("content", []):
            assert block.get("text") not in {f"Error executing tool {one}" for one in TOOLS}, (
                body
            )  # it would be a crash
