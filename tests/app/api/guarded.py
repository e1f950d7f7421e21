"""A server with keys, and the keys, for tests and for the proof of what they allow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx

from app.core.types import KeyScope
from app.service.auth import ApiKeyService
from app.storage.address import open_database
from app.storage.tables import heads, saved_searches
from tests.app.api.asking import make_picture
from tests.support.servers import RunningServer

_addresses = itertools.count(1)


@dataclass
class Guarded:
    """A server with one of everything in `default` (picture, job, text, head, saved search, watch), and keys of
    every kind."""

    server: RunningServer
    access: ApiKeyService
    keys: dict[str, str]
    ids: dict[str, str]
    image: str
    job: str
    head: str
    saved: str
    watch: str

    def address(self) -> str:
        """An address that nobody has asked from."""
        n = next(_addresses)
        return f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"

    def ask(self, key: str, method: str, path: str, **sent: object) -> httpx.Response:
        """A request with the key of this kind; of `none`, without any. No cookies are kept.

        Each comes from another address, as if by a proxy, so that wrong keys of one test are not counted in the next.
        """
        headers = {"X-Forwarded-For": self.address()}
        if key != "none":
            headers["Authorization"] = f"Bearer {self.keys[key]}"
        self.server.http.cookies.clear()
        answer: httpx.Response = self.server.http.request(method, path, headers=headers, **sent)  # type: ignore[arg-type]
        self.server.http.cookies.clear()
        return answer


@contextmanager
def guarded_server(data: Path) -> Iterator[Guarded]:
    """A server with keys of every kind. They are made by a database of this process, beside the server's own."""
    folders = [data.parent / name for name in ("albums", "theirs")]
    for folder in folders:
        folder.mkdir()
    places: dict[str, Any] = {
        "folders": folders[0],
        "bound_folders": f"elsewhere={folders[1]}",
        "buckets": "s3://albums",
        "immich_port": 0,
    }
    with RunningServer(data, log_level="debug", trusted_proxies="127.0.0.1,::1", **places) as server:
        image = server.upload(make_picture(), id="inside").json()["id"]
        job = server.wait_job(server.bulk([("a.png", make_picture("blue"))])["id"])["id"]
        assert server.http.post("/v1/texts", json={"texts": [{"id": "inside", "text": "red"}]}).status_code == 200
        watch = server.http.post("/v1/watches", json={"source": "client:phone"}).json()["id"]
        database = open_database(data / "sightline.db")
        space = server.http.get("/v1/stats").json()["model"]["space"]
        head = database.write(lambda c: heads.save(c, "default", space, b"", {}, maps_pictures=True))
        query = {"query": [{"text": "red"}], "score_threshold": 0.5}
        saved = database.write(lambda c: saved_searches.add(c, "default", "red", query, None))
        access = ApiKeyService(database)
        keys: dict[str, str] = {}
        ids: dict[str, str] = {}
        for kind, right, bound, days in (
            ("search", KeyScope.SEARCH, (), None),
            ("write", KeyScope.WRITE, (), None),
            ("admin", KeyScope.ADMIN, (), None),
            ("bound", KeyScope.ADMIN, ("default",), None),
            ("elsewhere", KeyScope.ADMIN, ("elsewhere",), None),
            ("revoked", KeyScope.ADMIN, (), None),
            ("expired", KeyScope.ADMIN, (), 1e-9),
        ):
            made, keys[kind] = access.create(kind, right, bound, days)
            ids[kind] = made.id
        access.revoke(ids["revoked"])
        keys["unknown"] = "sl_000000000000_" + "A" * 43
        yield Guarded(server, access, keys, ids, image, job, head, saved, watch)
        database.close()
