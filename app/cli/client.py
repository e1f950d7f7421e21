"""Speaks to a running server for the command line. Every failure is one line, a ServerError."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from app.core.types import DEFAULT_COLLECTION

TIMEOUT_SECONDS = 60.0
UPLOAD_SECONDS = 600.0


class ServerError(Exception):
    """The server is away, or has refused; the text says what and why."""


class QueueIsFull(ServerError):
    """The server has enough to do; `seconds` is how long it asks to wait."""

    def __init__(self, detail: str, retry_after: str) -> None:
        super().__init__(detail)
        self.seconds = int(retry_after) if retry_after.isdigit() else 5


class Client:
    """The calls that the commands need."""

    def __init__(self, server: str, key: str | None = None, collection: str = DEFAULT_COLLECTION) -> None:
        self.server = server.rstrip("/")
        self._collection = {"collection": collection} if collection != DEFAULT_COLLECTION else {}
        # trust_env off: a proxy of the environment has no business with a server named here
        try:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            self._http = httpx.Client(base_url=self.server, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False)
        except UnicodeEncodeError:
            raise ServerError("the API key is none: it has characters that no key has") from None
        except httpx.InvalidURL as error:
            raise ServerError(f"{server} is not an address: {error}") from None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def bulk(self, files: Sequence[tuple[str, Path]]) -> dict[str, Any]:
        """Send (name, path) files as one bulk; returns the Job. Waits while the server's queue is full."""
        return retry_while_queue_full(partial(self._bulk, files))

    def _bulk(self, files: Sequence[tuple[str, Path]]) -> dict[str, Any]:
        with ExitStack() as opened:
            try:
                parts = [
                    ("files", (to_valid_unicode(name), opened.enter_context(open(path, "rb")))) for name, path in files
                ]
            except OSError as error:
                raise ServerError(f"{error.filename} cannot be read: {error.strerror}") from None
            return self._call("POST", "/v1/images/bulk", files=parts, params=self._collection, timeout=UPLOAD_SECONDS)

    def known(self, digests: Sequence[str]) -> set[str]:
        """Those of up to 1,000 SHA-256 whose bytes are pictures of the collection."""
        return set(
            self._call("POST", "/v1/images/known", json={"sha256": list(digests)}, params=self._collection)["sha256"]
        )

    def urls(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Have the server fetch these; returns the Job. Waits while the server's queue is full."""
        lines = "".join(json.dumps(item) + "\n" for item in items).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        return retry_while_queue_full(partial(self._ingest, content=lines, headers=headers))

    def source(self, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Have the server take what a source of its own holds; returns the Job. Waits while its queue is full."""
        return retry_while_queue_full(partial(self._ingest, json={"source": source, **options}))

    def _ingest(self, **body: Any) -> dict[str, Any]:
        return self._call("POST", "/v1/images/ingest", params=self._collection, timeout=UPLOAD_SECONDS, **body)

    def texts(self, texts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Store up to 1,000 texts."""
        body = {"texts": list(texts)}
        return self._call("POST", "/v1/texts", json=body, params=self._collection, timeout=UPLOAD_SECONDS)

    def job(self, id: str) -> dict[str, Any]:
        """A Job."""
        return self._call("GET", f"/v1/jobs/{quote(id, safe='')}")

    def jobs(self) -> list[dict[str, Any]]:
        """The newest Jobs."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/jobs", params=self._collection)["jobs"]
        return found

    def steer(self, id: str, action: str) -> dict[str, Any]:
        """Pause, resume, cancel or retry a Job."""
        return self._call("POST", f"/v1/jobs/{quote(id, safe='')}/{action}", timeout=UPLOAD_SECONDS)

    def report(self, id: str, status: str | None) -> Iterator[bytes]:
        """What became of every item of a job, or of those of this status, as lines of JSON."""
        params = {"format": "ndjson", **({} if status is None else {"status": status})}
        with self._told(), self._http.stream("GET", f"/v1/jobs/{quote(id, safe='')}/items", params=params) as response:
            if response.is_error:
                response.read()
                raise ServerError(error_text(response))
            yield from response.iter_bytes()

    def failed_items(self, id: str) -> Iterator[dict[str, Any]]:
        """The items of a job that failed."""
        params: dict[str, Any] = {"status": "failed", "limit": 1000}
        while True:
            page = self._call("GET", f"/v1/jobs/{id}/items", params=params)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def search(self, words: str, k: int, target: str = "images", filter: str | None = None) -> dict[str, Any]:
        """Search by words, among what `filter` (JSON) lets through."""
        only = {} if filter is None else {"filter": filter}
        return self._call(
            "GET", "/v1/search", params={"q": words, "k": k, "target": target, **only, **self._collection}
        )

    def search_picture(self, path: Path, k: int, target: str = "images", filter: str | None = None) -> dict[str, Any]:
        """Search by a picture, among what `filter` (JSON) lets through."""
        only = {} if filter is None else {"filter": filter}
        with open(path, "rb") as file:
            return self._call(
                "POST",
                "/v1/search/image",
                files={"file": (to_valid_unicode(path.name), file)},
                data={"k": str(k), "target": target, **only, **self._collection},
            )

    def search_batch(self, searches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Up to 100 searches in one call; for each its answer, or `{"error"}`."""
        body = {"searches": list(searches)}
        path = "/v1/search/batch"
        answered = self._call("POST", path, json=body, params=self._collection, timeout=UPLOAD_SECONDS)
        found: list[dict[str, Any]] = answered["answers"]
        return found

    def delete(self, filter: Any, *, dry_run: bool) -> dict[str, Any]:
        """Delete the pictures that `filter` lets through, or say in a dry run which they are."""
        body = {"filter": filter, "dry_run": dry_run}
        return self._call("POST", "/v1/images/delete", json=body, params=self._collection, timeout=UPLOAD_SECONDS)

    def stats(self) -> dict[str, Any]:
        """Counts, index and model."""
        return self._call("GET", "/v1/stats", params=self._collection)

    def collections(self) -> list[dict[str, Any]]:
        """Every Collection."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/collections")["collections"]
        return found

    def make_collection(self, name: str, description: str) -> dict[str, Any]:
        """A new Collection."""
        return self._call("POST", "/v1/collections", json={"name": name, "description": description})

    def drop_collection(self, name: str) -> None:
        """Drop a Collection with all that is in it."""
        self._call("DELETE", f"/v1/collections/{quote(name, safe='')}")

    def readiness(self) -> dict[str, Any]:
        """What /readyz says, whatever its status."""
        with self._told():
            answer: dict[str, Any] = self._http.get("/readyz").json()
        return answer

    def _call(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        with self._told():
            response = self._http.request(method, path, **kwargs)
            if response.status_code == 429:
                raise QueueIsFull(error_text(response), response.headers.get("Retry-After", ""))
            if response.is_error:
                raise ServerError(error_text(response))
            answer: dict[str, Any] = response.json() if response.content else {}
        return answer

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            remedy = "start one with `sightline serve`, or name it with --server"
            raise ServerError(f"no server answers at {self.server}; {remedy}") from None
        except httpx.HTTPError as error:
            raise ServerError(f"the connection to {self.server} failed: {error or type(error).__name__}") from None
        except ValueError:
            raise ServerError(f"what answers at {self.server} is not Sightline") from None


def retry_while_queue_full(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the call answers, once the server's queue has room."""
    while True:
        try:
            return call()
        except QueueIsFull as full:
            time.sleep(full.seconds)


def to_valid_unicode(name: str) -> str:
    """A file's name as text: what is not UTF-8 in it is replaced."""
    return name.encode("utf-8", "replace").decode()


def error_text(response: httpx.Response) -> str:
    """A problem+json answer as one line."""
    try:
        problem = response.json()
        hint = "; give it with SIGHTLINE_KEY or --key-file" if problem["code"] == "unauthorized" else ""
        return f"{problem['detail']} ({problem['code']}){hint}"
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code}"
