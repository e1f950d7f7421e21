"""A key that is bound to one collection learns nothing of another, by whatever way it is named.

Keys for search, write and admin, bound to `mine`, make every call of the table of permissions
(`app/api/permissions.py`) and name `theirs`: in the query, in JSON, in a form, in the path, twice, against each other,
in odd spellings, with each parameter that the call takes; and the ids of its picture, text and job, as paths, parts of
a query, filters and jobs to add to; and search `mine` for its words. Then everything that these keys can read is read
before and after pictures are added to `theirs`.

Failing: an answer has a word of what `theirs` holds that the call did not send; it differs from the answer about a
collection that is not there; what is read of `mine` changes; a call of the table is not tried.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx

from app.api.permissions import ROUTE_SCOPES
from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from tests.app.api.asking import make_picture
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.servers import RunningServer, wait_until

PROMISE = Promise(28, "bound", "A key that is bound to collections learns nothing of the others.")
SCOPES = (KeyScope.SEARCH, KeyScope.WRITE, KeyScope.ADMIN)
WORDS = ("zanzibar", "quetzal", "secret.png")  # in what `theirs` holds
SPELLINGS = ("{c}", " {c}", "{c}%00", "mine,{c}", "mine%2F..%2F{c}", "mine&collection={c}")
# What changes by itself; `model_trust` is measured in the background after the first search of a collection.
CHANGING = re.compile(r'"(?:request_id|took_ms|created_at|model_trust)": ?(?:"[^"]*"|\{[^}]*\}|[\d.]+|null)')
FORM_CALLS = {"POST /v1/images": "file", "POST /v1/images/bulk": "files", "POST /v1/search/image": "file"}
OF_THE_PAGE = {"GET /docs", "GET /openapi.json"}
READ = ["stats", "images", "texts", "jobs", "collections", "models", "sources"]
READ += [f"search?q={words}&mode={mode}" for words in ("mine", "zanzibar") for mode in ("keyword", "hybrid", "vector")]
OF_THE_SERVER = ("collections", "models", "sources")  # these take no collection


@dataclass(frozen=True)
class Names:
    """How a collection and what it holds are called."""

    collection: str
    image: str
    text: str
    job: str
    word: str

    def fill(self, pattern: str) -> str:
        """The pattern with {c}, {image}, {text} and {job} named."""
        for mark, name in (("c", self.collection), ("image", self.image), ("text", self.text), ("job", self.job)):
            pattern = pattern.replace(f"{{{mark}}}", name)
        return pattern

    def hide(self, text: str) -> str:
        """The text without these names."""
        for name in (self.collection, self.image, self.text, self.job, self.word):
            text = text.replace(name, "NAME")
        return text


@dataclass(frozen=True)
class Call:
    """A line of the table, the address, and what is sent."""

    line: str
    address: str
    sent: dict[str, Any]


def run(scale: Scale) -> Outcome:
    """The whole matrix, in both forms."""
    with tempfile.TemporaryDirectory() as folder, start_server(Path(folder)) as server:
        theirs, clients = set_up(server)
        absent = Names("absent", "nobody", "nothing", "0" * len(theirs.job), "nowhere")
        paths = clients[None].get("/openapi.json").json()["paths"]
        calls = list(zip(list_calls(theirs, paths), list_calls(absent, paths), strict=True))
        wrong = [
            f"{call.line} ({call.address[:60]}), {scope.name}: {fault}"
            for call, control in calls
            for scope in SCOPES
            if (fault := find_leak(clients[scope], call, control, theirs, absent))
        ]
        owner = clients[None]
        for job in owner.get("/v1/jobs?limit=1000").json()["jobs"]:
            owner.post(f"/v1/jobs/{job['id']}/cancel")
        wait_until(lambda: is_idle(owner), 120)
        before = {scope: read_all(clients[scope]) for scope in SCOPES}
        add_picture(owner, "theirs", "another")
        owner.get("/v1/search?collection=theirs&q=red").raise_for_status()
        after = {scope: read_all(clients[scope]) for scope in SCOPES}
        wrong += [
            f"{scope.name} sees {now[:200]}, before {then[:200]}"
            for scope in SCOPES
            for then, now in zip(before[scope], after[scope], strict=True)
            if then != now
        ]
        for client in clients.values():
            client.close()
    needed = {line for line, scope in ROUTE_SCOPES.items() if scope is not KeyScope.OPEN} - OF_THE_PAGE
    missing = sorted(needed - {call.line for call, _ in calls})
    figure = f"{len(calls)} calls by {len(SCOPES)} kinds of bound keys: {len(wrong)} leaks, {len(missing)} not tried"
    return Outcome("; ".join([figure, *wrong[:3], *missing[:3]]), not wrong and not missing)


def start_server(folder: Path) -> RunningServer:
    """A server that may read a folder, which belongs to no collection."""
    (folder / WORDS[0]).mkdir()
    return RunningServer(folder / "data", folders=folder / WORDS[0])


def set_up(server: RunningServer) -> tuple[Names, dict[KeyScope | None, httpx.Client]]:
    """Two collections, what `theirs` holds, and a client for each key; that of None is bound to nothing."""
    database = open_database(server.data_dir / "sightline.db")
    access = ApiKeyService(database)
    clients: dict[KeyScope | None, httpx.Client] = {}
    for scope in (*SCOPES, None):
        bound = ["mine"] if scope else []
        _, key = access.create("one", scope or KeyScope.ADMIN, bound)
        clients[scope] = httpx.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=60, trust_env=False)
    database.close()
    owner = clients[None]
    for name in ("mine", "theirs"):
        owner.post("/v1/collections", json={"name": name, "description": WORDS[0] if name == "theirs" else ""})
        add_picture(owner, name, "hidden-picture" if name == "theirs" else "mine")
        owner.get(f"/v1/search?collection={name}&q=red").raise_for_status()
    texts = {"texts": [{"id": "hidden-text", "text": WORDS[1]}]}
    owner.post("/v1/texts?collection=theirs", json=texts).raise_for_status()
    files = {"files": (WORDS[2], make_picture())}
    job = owner.post("/v1/images/bulk?collection=theirs", files=files).json()
    return Names("theirs", "hidden-picture", "hidden-text", job["id"], WORDS[0]), clients


def add_picture(owner: httpx.Client, collection: str, id: str) -> None:
    """A picture whose attributes have the words if it is in `theirs`."""
    word, name = (WORDS[0], WORDS[2]) if collection == "theirs" else ("mine", "mine.png")
    fields = {"id": id, "caption": word, "tags": [word], "metadata": json.dumps({"a": word})}
    where = f"/v1/images?collection={collection}&wait=30"
    owner.post(where, files={"file": (name, make_picture())}, data=fields).raise_for_status()


def list_calls(names: Names, paths: dict[str, Any]) -> Iterator[Call]:
    """Every call, with every way in which it can name a collection or what is in one."""
    bodies = list_bodies(names)
    for line, scope in ROUTE_SCOPES.items():
        if scope is KeyScope.OPEN or line in OF_THE_PAGE:
            continue
        kind = "{text}" if "/texts/" in line else "{job}" if "/jobs/" in line else "{image}"
        path = names.fill(line.split(" ")[1].replace("{id}", kind).replace("{name}", "{c}"))
        body = bodies.get(line, {})
        more = "&q=red" if line == "GET /v1/search" else ""
        for spelling in ("mine", *SPELLINGS):
            yield Call(line, f"{path}?collection={names.fill(spelling)}{more}", send_as(line, body))
        named = send_as(line, {**body, "collection": names.collection})
        for address in (path, f"{path}?collection=mine", f"{path}?collection=mine&job={names.job}"):
            yield Call(line, address, named)
            yield Call(line, address, send_as(line, body))
        described = paths.get(line.split(" ")[1], {})  # not the wires of other systems
        for parameter in described.get(line.split(" ")[0].lower(), {}).get("parameters", ()):
            for value in list_values(parameter):
                address = f"{path}?collection={names.collection}&{parameter['name']}={value}{more}"
                yield Call(line, address, send_as(line, body))
    yield from list_contents(names)


def list_values(parameter: dict[str, Any]) -> list[str]:
    """Values of a parameter of an address that the server describes: each of a list, else one of its type."""
    if parameter["in"] != "query" or parameter["name"] in ("collection", "q"):
        return []
    kinds = [parameter["schema"], *parameter["schema"].get("anyOf", ())]
    values = [str(value) for kind in kinds for value in kind.get("enum", ())]
    of_types = {"boolean": "true", "integer": "1", "number": "1"}
    return values or [next((of_types[kind["type"]] for kind in kinds if kind.get("type") in of_types), "red")]


def list_contents(names: Names) -> Iterator[Call]:
    """Calls on `mine` with the ids of what is elsewhere."""
    for condition in ({"key": "job_id", "match": {"value": names.job}}, {"has_id": [names.image]}):
        text = json.dumps({"must": [condition]})
        yield Call("GET /v1/images", f"/v1/images?collection=mine&count=true&filter={text}", {})
        yield Call("GET /v1/search", f"/v1/search?collection=mine&q=red&filter={text}", {})
        body = {"collection": "mine", "filter": json.loads(text)}
        yield Call("POST /v1/images/delete", "/v1/images/delete?dry_run=true", {"json": body})
    yield Call("GET /v1/search", f"/v1/search?collection=mine&q={names.word}&mode=keyword", {})
    body = {"query": [{"text": names.word}], "collection": "mine", "mode": "keyword"}
    yield Call("POST /v1/search", "/v1/search", {"json": body})
    yield Call("POST /v1/search/batch", "/v1/search/batch", {"json": {"searches": [body]}})
    for part in ({"image_id": names.image}, {"text_id": names.text}):
        search = {"query": [part], "collection": "mine"}
        yield Call("POST /v1/search", "/v1/search", {"json": search})
        searches = [search, {**search, "collection": names.collection}]
        yield Call("POST /v1/search/batch", "/v1/search/batch", {"json": {"searches": searches}})


def list_bodies(names: Names) -> dict[str, dict[str, Any]]:
    """A body that each call would take."""
    return {
        "POST /v1/search": {"query": [{"text": "red"}]},
        "POST /v1/search/batch": {"searches": [{"query": [{"text": "red"}], "collection": names.collection}]},
        "POST /knn-service": {"text": "red", "modality": "image", "num_images": 3, "indice_name": names.collection},
        "POST /metadata": {"ids": [1, 2, 3], "indice_name": names.collection},
        "POST /v1/classify": {"image_id": names.image, "labels": ["a", "b"]},
        "POST /v1/images/known": {"sha256": ["0" * 64]},
        "POST /v1/images/delete": {"ids": [names.image]},
        "POST /v1/images/ingest": {"source": "urls", "items": [{"url": "http://127.0.0.1/a.png"}]},
        "POST /v1/texts": {"texts": [{"text": "red"}]},
        "PATCH /v1/images/{id}": {"caption": "red"},
        "POST /v1/collections": {"name": names.collection},
        "PATCH /v1/collections/{name}": {"description": "red"},
    }


def send_as(line: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body as the call takes it."""
    if field := FORM_CALLS.get(line):
        return {"data": body, "files": {field: ("a.png", b"no picture")}}
    return {"json": body} if body else {}


def find_leak(client: httpx.Client, call: Call, control: Call, theirs: Names, absent: Names) -> str | None:
    """What the answer to a call tells that it should not; the control is about what is not there."""
    answer = make_call(client, call)
    said = str(call)
    if words := [word for word in (*WORDS, theirs.job) if word in answer.text and word not in said]:
        return f"has {words[0]}"
    if call == control:
        return None
    other = make_call(client, control)
    texts = [f"{one.status_code} {CHANGING.sub('', one.text)}" for one in (answer, other)]
    if theirs.hide(texts[0]) == absent.hide(texts[1]):
        return None
    return f"{texts[0][:150]} where nothing is: {texts[1][:150]}"


def is_idle(owner: httpx.Client) -> bool:
    """Whether no job and no picture of `mine` changes any more."""
    images = owner.get("/v1/stats?collection=mine").json()["images"]
    ended = all(job["finished_at"] for job in owner.get("/v1/jobs?limit=1000").json()["jobs"])
    return ended and not images["queued"] + images["processing"]


def make_call(client: httpx.Client, call: Call) -> httpx.Response:
    return client.request(call.line.split(" ")[0], call.address, **call.sent)


def read_all(client: httpx.Client) -> list[str]:
    """What a key reads of `mine` and of the server, without what changes by itself."""
    found = [client.get("/readyz").text, client.get("/metrics").text]
    for path in READ:
        where = f"/v1/{path}{'&' if '?' in path else '?'}collection=mine"
        found.append(client.get(f"/v1/{path}" if path in OF_THE_SERVER else where).text)
    return [CHANGING.sub("", text) for text in found]
