"""Calls a running server for the command line. Every failure is a ServerError of one line."""

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

from app.cli import ServerError
from app.core.types import DEFAULT_COLLECTION

TIMEOUT_SECONDS = 60.0
UPLOAD_SECONDS = 600.0


class QueueIsFull(ServerError):
    """The queue of the server is full; `seconds` is how long it asks to wait."""

    def __init__(self, detail: str, retry_after: str) -> None:
        super().__init__(detail)
        self.seconds = int(retry_after) if retry_after.isdigit() else 5


class Client:
    """The calls that the commands need, in one collection."""

    def __init__(self, server: str, key: str | None = None, collection: str = DEFAULT_COLLECTION) -> None:
        self.server = server.rstrip("/")
        self._collection = {"collection": collection} if collection != DEFAULT_COLLECTION else {}
        try:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            # trust_env: a proxy of the environment must not carry calls to this server
            self._http = httpx.Client(base_url=self.server, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False)
        except UnicodeEncodeError:
            raise ServerError("this is no API key: it has characters that no key has") from None
        except httpx.InvalidURL as error:
            raise ServerError(f"{server} is not an address: {error}") from None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload_bulk(self, files: Sequence[tuple[str, Path]]) -> dict[str, Any]:
        """Send files, each with its name, as one bulk; returns the job. Waits while the queue is full."""
        return retry_while_queue_full(partial(self._upload_bulk, files))

    def _upload_bulk(self, files: Sequence[tuple[str, Path]]) -> dict[str, Any]:
        with ExitStack() as opened:
            try:
                parts = [
                    ("files", (to_valid_unicode(name), opened.enter_context(open(path, "rb")))) for name, path in files
                ]
            except OSError as error:
                raise ServerError(f"{error.filename} cannot be read: {error.strerror}") from None
            return self._call("POST", "/v1/images/bulk", files=parts, params=self._collection, timeout=UPLOAD_SECONDS)

    def find_known(self, digests: Sequence[str]) -> set[str]:
        """Which of up to 1,000 SHA-256 are of pictures of the collection."""
        body = {"sha256": list(digests)}
        return set(self._call("POST", "/v1/images/known", json=body, params=self._collection)["sha256"])

    def ingest_urls(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Have the server fetch URLs; returns the job. Waits while the queue is full."""
        lines = "".join(json.dumps(item) + "\n" for item in items).encode()
        headers = {"Content-Type": "application/x-ndjson"}
        return retry_while_queue_full(partial(self._ingest, content=lines, headers=headers))

    def ingest_source(self, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Have the server ingest a source that it reads itself; returns the job. Waits while the queue is full."""
        return retry_while_queue_full(partial(self._ingest, json={"source": source, **options}))

    def _ingest(self, **body: Any) -> dict[str, Any]:
        return self._call("POST", "/v1/images/ingest", params=self._collection, timeout=UPLOAD_SECONDS, **body)

    def add_texts(self, texts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Store up to 1,000 texts."""
        body = {"texts": list(texts)}
        return self._call("POST", "/v1/texts", json=body, params=self._collection, timeout=UPLOAD_SECONDS)

    def job(self, id: str) -> dict[str, Any]:
        return self._call("GET", f"/v1/jobs/{quote(id, safe='')}")

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", "/v1/jobs", params=self._collection)["jobs"]
        return found

    def control_job(self, id: str, action: str) -> dict[str, Any]:
        """Pause, resume, cancel or retry a job; returns it."""
        return self._call("POST", f"/v1/jobs/{quote(id, safe='')}/{action}", timeout=UPLOAD_SECONDS)

    def read_report(self, id: str, status: str | None) -> Iterator[bytes]:
        """A line of JSON for each item of a job, or for each item with this status."""
        params = {"format": "ndjson", **({} if status is None else {"status": status})}
        with (
            self._map_errors(),
            self._http.stream("GET", f"/v1/jobs/{quote(id, safe='')}/items", params=params) as response,
        ):
            if response.is_error:
                response.read()
                raise ServerError(error_text(response))
            yield from response.iter_bytes()

    def failed_items(self, id: str) -> Iterator[dict[str, Any]]:
        params: dict[str, Any] = {"status": "failed", "limit": 1000}
        while True:
            page = self._call("GET", f"/v1/jobs/{id}/items", params=params)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def search(self, words: str, k: int, target: str = "images", filter: Any = None) -> dict[str, Any]:
        """Search by words."""
        options = {} if filter is None else {"filter": json.dumps(filter)}
        return self._call(
            "GET", "/v1/search", params={"q": words, "k": k, "target": target, **options, **self._collection}
        )

    def search_picture(self, path: Path, k: int, target: str = "images", filter: Any = None) -> dict[str, Any]:
        """Search by a picture."""
        options = {} if filter is None else {"filter": json.dumps(filter)}
        with open(path, "rb") as file:
            return self._call(
                "POST",
                "/v1/search/image",
                files={"file": (to_valid_unicode(path.name), file)},
                data={"k": str(k), "target": target, **options, **self._collection},
            )

    def search_batch(self, searches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Up to 100 searches in one call; returns the answer to each, or its `error`."""
        body = {"searches": list(searches)}
        path = "/v1/search/batch"
        answered = self._call("POST", path, json=body, params=self._collection, timeout=UPLOAD_SECONDS)
        found: list[dict[str, Any]] = answered["answers"]
        return found

    def delete(self, filter: Any, *, dry_run: bool) -> dict[str, Any]:
        """Delete the pictures that match a filter; a dry run only counts them and shows examples."""
        body = {"filter": filter, "dry_run": dry_run}
        return self._call("POST", "/v1/images/delete", json=body, params=self._collection, timeout=UPLOAD_SECONDS)

    def stats(self) -> dict[str, Any]:
        return self._call("GET", "/v1/stats", params=self._collection)

    def collections(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", "/v1/collections")["collections"]
        return found

    def make_collection(self, name: str, description: str) -> dict[str, Any]:
        return self._call("POST", "/v1/collections", json={"name": name, "description": description})

    def drop_collection(self, name: str) -> None:
        self._call("DELETE", f"/v1/collections/{quote(name, safe='')}")

    def readiness(self) -> dict[str, Any]:
        """The body of /readyz, whatever its status."""
        with self._map_errors():
            answer: dict[str, Any] = self._http.get("/readyz").json()
        return answer

    def _call(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        with self._map_errors():
            response = self._http.request(method, path, **kwargs)
            if response.status_code == 429:
                raise QueueIsFull(error_text(response), response.headers.get("Retry-After", ""))
            if response.is_error:
                raise ServerError(error_text(response))
            answer: dict[str, Any] = response.json() if response.content else {}
        return answer

    @contextlib.contextmanager
    def _map_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            remedy = "start one with `sightline serve`, or name it with --server"
            raise ServerError(f"no server answers at {self.server}; {remedy}") from None
        except httpx.HTTPError as error:
            raise ServerError(f"the connection to {self.server} failed: {error or type(error).__name__}") from None
        except ValueError:
            raise ServerError(f"the server at {self.server} is not Sightline") from None


def retry_while_queue_full(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Make a call, again and again while the server's queue is full."""
    while True:
        try:
            return call()
        except QueueIsFull as full:
            time.sleep(full.seconds)


def to_valid_unicode(name: str) -> str:
    """The name of a file with a question mark for each byte that is not UTF-8."""
    return name.encode("utf-8", "replace").decode()


def error_text(response: httpx.Response) -> str:
    """One line that says why the server refused (problem+json)."""
    try:
        problem = response.json()
        hint = "; give it with SIGHTLINE_KEY or --key-file" if problem["code"] == "unauthorized" else ""
        return f"{problem['detail']} ({problem['code']}){hint}"
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code}"
