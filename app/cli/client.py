"""Calls a running server for the command line. Every failure is a ServerError of one line."""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote

import httpx

from app.cli import ServerError, answers
from app.cli.answers import Answer, clean
from app.cli.connection import describe_failure, describe_redirect, find_proxy, load_certificates, parse_server
from app.core.backoff import Backoff
from app.core.types import DEFAULT_COLLECTION
from app.search.query_syntax import parse_weighted_query

T = TypeVar("T")

TIMEOUT = httpx.Timeout(60.0, connect=15.0)
UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=15.0)
PATIENCE_SECONDS = 600.0  # that an upload waits for a server that is busy, or away, before it gives up
BUSY = (429, 502, 503, 504)
REPORT = "application/x-ndjson"
# What an error means that does not come from Sightline.
FOREIGN = dict.fromkeys((404, 405, 501), "; it is not Sightline") | {
    401: "; a proxy before it asks for a password, which this command has not",
    413: "; a proxy before it takes no requests of this size (nginx: client_max_body_size)",
}


class Unavailable(ServerError):
    """The server may answer the same request later; it asks to wait `seconds`. `answered`: not by a dead connection."""

    def __init__(self, detail: str, seconds: float = 0.0, *, answered: bool = False) -> None:
        super().__init__(detail)
        self.seconds = seconds
        self.answered = answered


class Client:
    """The calls that the commands need, in one collection."""

    def __init__(
        self,
        server: str,
        key: str | None = None,
        collection: str = DEFAULT_COLLECTION,
        ca_file: Path | None = None,
    ) -> None:
        url = parse_server(server)
        self.server = str(url.copy_with(username=None, password=None)).rstrip("/")  # as messages name it
        self._collection = {"collection": collection} if collection != DEFAULT_COLLECTION else {}
        self._proxy = find_proxy(url)
        self._say: Callable[[str], None] | None = None
        self._has_answered = False
        try:
            self._http = httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=TIMEOUT,
                verify=load_certificates(ca_file) if url.scheme == "https" else True,
                proxy=self._proxy,
                trust_env=False,  # `find_proxy` and `load_certificates` read it
            )
        except UnicodeEncodeError:
            raise ServerError("this is no API key: it has characters that no key has") from None
        except (httpx.InvalidURL, ValueError, ImportError) as error:
            raise ServerError(f"the proxy that the environment names cannot be used: {error}") from None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def be_patient(self, say: Callable[[str], None]) -> None:
        """From now on wait for a server that is busy or away, at most PATIENCE_SECONDS each time; `say` tells so."""
        self._say = say

    def upload_bulk(
        self,
        files: Sequence[tuple[str, bytes | Path]],
        job: str | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """Send files, each with its name, as one bulk of a new job or of this one; returns the job.

        `left_out` counts files that the command left out, by their kind; the job adds them to its own.
        """
        data = {"left_out": json.dumps(left_out)} if left_out else {}
        return self._wait_for(partial(self._upload_bulk, files, data, self._params_of(job), new_key()))

    def _upload_bulk(
        self,
        files: Sequence[tuple[str, bytes | Path]],
        data: dict[str, str],
        params: dict[str, str],
        key: dict[str, str],
    ) -> dict[str, Any]:
        with contextlib.ExitStack() as opened:
            try:
                parts: list[tuple[str, tuple[str, bytes | IO[bytes]]]] = [
                    (
                        "files",
                        (to_valid_unicode(name), opened.enter_context(open(at, "rb")) if isinstance(at, Path) else at),
                    )
                    for name, at in files
                ]
            except OSError as error:
                raise ServerError(f"{error.filename} cannot be read: {error.strerror}") from None
            path, shape, timeout = "/v1/images/bulk", answers.Job, UPLOAD_TIMEOUT
            return self._call("POST", path, shape, files=parts, data=data, params=params, headers=key, timeout=timeout)

    def find_known(self, digests: Sequence[str]) -> dict[str, list[str]]:
        """Which of up to 1,000 SHA-256 are of pictures of the collection, and what each of these lacks."""
        body = {"sha256": list(digests)}
        path = "/v1/images/known"
        known = self._call_patiently("POST", path, answers.Known, json=body, params=self._collection)
        lacks = known.get("lacks", {})
        return {digest: lacks.get(digest, []) for digest in known["sha256"]}

    def ingest_urls(self, items: Sequence[dict[str, Any]], job: str | None = None) -> dict[str, Any]:
        """Have the server fetch URLs, in a new job or in this one; returns the job."""
        lines = "".join(json.dumps(item) + "\n" for item in items).encode()
        return self._ingest({"Content-Type": REPORT}, job, content=lines)

    def ingest_source(self, source: str, options: Mapping[str, Any], job: str | None = None) -> dict[str, Any]:
        """Have the server ingest a source that it reads itself, in a new job or in this one; returns the job."""
        return self._ingest({}, job, json={"source": source, **options})

    def _ingest(self, headers: dict[str, str], job: str | None, **body: Any) -> dict[str, Any]:
        body |= {"params": self._params_of(job), "headers": {**headers, **new_key()}, "timeout": UPLOAD_TIMEOUT}
        return self._call_patiently("POST", "/v1/images/ingest", answers.Job, **body)

    def _params_of(self, job: str | None) -> dict[str, str]:
        return {**self._collection, **({} if job is None else {"job": job})}

    def limits(self) -> answers.Limits:
        """What one upload may hold."""
        return answers.Limits.model_validate(self._call_patiently("GET", "/v1/sources", answers.Limits))

    def add_texts(self, texts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Store up to 1,000 texts."""
        return self._call(
            "POST",
            "/v1/texts",
            answers.Added,
            json={"texts": list(texts)},
            params=self._collection,
            timeout=UPLOAD_TIMEOUT,
        )

    def create_watch(self, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Watch a folder, or find the one that is watched."""
        body = {"source": source, **options}
        return self._call("POST", "/v1/watches", answers.Watch, json=body, params=self._collection)

    def watches(self) -> list[dict[str, Any]]:
        """The watched folders of the collection."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/watches", answers.Watches, params=self._collection)[
            "watches"
        ]
        return found

    def find_watches(self) -> list[dict[str, Any]]:
        """Like `watches`; none for a key that may not see them, and of a server that knows no watched folders."""
        try:
            return self.watches()
        except Unavailable:
            raise
        except ServerError:
            return []

    def watch(self, id: str) -> dict[str, Any]:
        return self._call("GET", f"/v1/watches/{quote(id, safe='')}", answers.Watch)

    def control_watch(self, id: str, action: str) -> dict[str, Any]:
        """Pause, resume, scan or confirm the deletions of a watched folder; returns it."""
        return self._call("POST", f"/v1/watches/{quote(id, safe='')}/{action}", answers.Watch)

    def remove_watch(self, id: str) -> None:
        """Watch a folder no more."""
        with self._map_errors():
            response = self._http.delete(f"/v1/watches/{quote(id, safe='')}", timeout=UPLOAD_TIMEOUT)
        self._require_success(response)

    def watched_files(self, id: str) -> Iterator[dict[str, Any]]:
        """What the server knows of the files of a watched folder."""
        params: dict[str, Any] = {"limit": 1000}
        while True:
            page = self._call("GET", f"/v1/watches/{quote(id, safe='')}/files", answers.WatchedFiles, params=params)
            yield from page["files"]
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def apply_changes(
        self, id: str, changes: Sequence[Mapping[str, Any]], report: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Tell what became of files of a watched folder, and how its reader stands."""
        body = {"changes": list(changes), "report": report}
        path = f"/v1/watches/{quote(id, safe='')}/changes"
        return self._call("POST", path, answers.Applied, json=body, timeout=UPLOAD_TIMEOUT)

    def send_files(self, id: str, changes: Sequence[Mapping[str, Any]], files: Sequence[IO[bytes]]) -> dict[str, Any]:
        """Send files of a watched folder, with their changes."""
        path = f"/v1/watches/{quote(id, safe='')}/files"
        parts = [("files", ("file", file)) for file in files]
        data = {"change": [json.dumps(one) for one in changes]}
        return self._call("POST", path, answers.Applied, files=parts, data=data, timeout=UPLOAD_TIMEOUT)

    def job(self, id: str) -> dict[str, Any]:
        return self._call_patiently("GET", f"/v1/jobs/{quote(id, safe='')}", answers.Job)

    def jobs(self, limit: int | None = None) -> dict[str, Any]:
        """The newest jobs: the server's answer."""
        params = {**self._collection, **({} if limit is None else {"limit": limit})}
        return self._call("GET", "/v1/jobs", answers.Jobs, params=params)

    def find_job(self, id: str) -> str:
        """The whole id of a job that begins like this. Raises ServerError when there are several."""
        if not re.fullmatch("[0-9a-f]{4,31}", id):
            return id
        found = [job["id"] for job in self.jobs(1000)["jobs"] if job["id"].startswith(id)]
        if len(found) > 1:
            raise ServerError(f"{len(found)} jobs begin with {id}; give more of the id")
        return found[0] if found else id

    def control_job(self, id: str, action: str) -> dict[str, Any]:
        """Pause, resume, cancel or retry a job; returns it."""
        return self._call("POST", f"/v1/jobs/{quote(id, safe='')}/{action}", answers.Job, timeout=UPLOAD_TIMEOUT)

    def reembed(self, model: str, precision: str | None, *, dry_run: bool) -> dict[str, Any]:
        """Begin to move a server to another model, or ask what that costs; returns the job."""
        body = {"model": model, "precision": precision, "dry_run": dry_run}
        return self._call("POST", "/v1/reembed", answers.Job, json=body, timeout=UPLOAD_TIMEOUT)

    def read_report(self, id: str, status: str | None) -> Iterator[bytes]:
        """A line of JSON for each item of a job, or for each item with this status."""
        params = {"format": "ndjson", **({} if status is None else {"status": status})}
        path = f"/v1/jobs/{quote(id, safe='')}/items"
        with self._map_errors(), self._http.stream("GET", path, params=params) as response:
            if not response.is_success:
                response.read()
            self._require_success(response)
            if response.headers.get("Content-Type", "").partition(";")[0] != REPORT:
                raise self._not_sightline(response)
            yield from response.iter_bytes()

    def items(self, id: str, **which: str) -> Iterator[dict[str, Any]]:
        """The items of a job: `status="failed"`, or `warned="true"`."""
        params: dict[str, Any] = {"limit": 1000, **which}
        while True:
            page = self._call_patiently("GET", f"/v1/jobs/{quote(id, safe='')}/items", answers.Items, params=params)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def search(
        self,
        words: str,
        k: int,
        target: str = "images",
        filter: Any = None,
        mode: str | None = None,
        threshold: float | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Search by words. `more` are other fields of the body of a search."""
        options = {} if filter is None else {"filter": filter}
        options |= ({} if mode is None else {"mode": mode}) | more
        options |= {} if threshold is None else {"score_threshold": threshold}
        if more:
            parts = [{"text": text, "weight": weight} for text, weight in parse_weighted_query(words)]
            body = {"query": parts or [{"text": words}], "k": k, "target": target, **options}
            return self._call("POST", "/v1/search", answers.Found, json=body, params=self._collection)
        params = {"q": words, "k": k, "target": target, **options, **self._collection}
        if filter is not None:
            params["filter"] = json.dumps(filter)
        return self._call("GET", "/v1/search", answers.Found, params=params)

    def search_picture(
        self,
        path: Path,
        k: int,
        target: str = "images",
        filter: Any = None,
        threshold: float | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Search by a picture. `more` are other fields of its form."""
        options = {} if filter is None else {"filter": json.dumps(filter)}
        options |= {name: json.dumps(value) if value is True else str(value) for name, value in more.items()}
        options |= {} if threshold is None else {"score_threshold": str(threshold)}
        data = {"k": str(k), "target": target, **options, **self._collection}
        try:
            with open(path, "rb") as file:
                files = {"file": (to_valid_unicode(path.name), file)}
                return self._call("POST", "/v1/search/image", answers.Found, files=files, data=data)
        except OSError as error:
            raise ServerError(f"{path} cannot be read: {error.strerror}") from None

    def ask(self, id: str, question: str, given: Sequence[str], by: str | None) -> dict[str, Any]:
        """Ask a question about a picture, with candidate answers; `by` is what is to answer."""
        body = {"question": question, "answers": list(given), **({} if by is None else {"by": by})}
        path = f"/v1/images/{quote(id, safe='')}/ask"
        return self._call("POST", path, answers.Answered, json=body, params=self._collection, timeout=UPLOAD_TIMEOUT)

    def explain(self, id: str, words: str) -> dict[str, Any]:
        """Which part of a picture met the words."""
        params = {**self._collection, "q": words}
        return self._call("GET", self._picture(id, "explain"), answers.Explanation, params=params)

    def draw_explanation(self, id: str, words: str) -> bytes:
        """The picture with a heat map, as a PNG."""
        params = {**self._collection, "q": words}
        with self._map_errors():
            response = self._http.get(self._picture(id, "explain"), params=params, headers={"Accept": "image/png"})
        self._require_success(response)
        return response.content

    def search_batch(self, searches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Up to 100 searches in one call; returns the answer to each, or its `error`."""
        answered = self._call(
            "POST",
            "/v1/search/batch",
            answers.FoundMany,
            json={"searches": list(searches)},
            params=self._collection,
            timeout=UPLOAD_TIMEOUT,
        )
        found: list[dict[str, Any]] = answered["answers"]
        if len(found) != len(searches):
            raise ServerError(f"the server at {self.server} is not Sightline: it answered {len(found)} searches")
        return found

    def begin_task(self, call: str, options: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
        """POST what a task needs, and the set at `path` if that is given; returns the job."""
        if path is None:
            said = {"json": dict(options), "params": self._collection, "headers": new_key()}
            return self._call_patiently("POST", call, answers.Job, **said)
        try:
            with open(path, "rb") as file:
                files = {"file": (to_valid_unicode(path.name), file)}
                data = {
                    name: list(map(str, one)) if isinstance(one, list) else str(one) for name, one in options.items()
                }
                said = {"files": files, "data": data, "params": self._collection}
                return self._call("POST", call, answers.Job, timeout=UPLOAD_TIMEOUT, **said)
        except OSError as error:
            raise ServerError(f"{path} cannot be read: {error.strerror}") from None

    def list_captions(self, most: int) -> Iterator[tuple[str, str]]:
        """The id and caption of pictures that have one, newest first."""
        params: dict[str, Any] = {"limit": 1000, **self._collection}
        count = 0
        while count < most:
            page = self._call_patiently("GET", "/v1/images", answers.Pictures, params=params)
            for image in page["images"]:
                if image["status"] == "ready" and (image["caption"] or "").strip() and count < most:
                    count += 1
                    yield image["id"], image["caption"]
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def download(self, id: str, path: Path) -> None:
        """Write the file of a picture."""
        with (
            self._map_errors(),
            self._http.stream("GET", self._picture(id, "file"), params=self._collection) as response,
        ):
            if not response.is_success:
                response.read()
            self._require_success(response)
            with open(path, "wb") as file:
                file.writelines(response.iter_bytes())

    def thumbnail(self, id: str) -> bytes:
        with self._map_errors():
            response = self._http.get(self._picture(id, "thumbnail"), params=self._collection)
        self._require_success(response)
        return response.content

    @staticmethod
    def _picture(id: str, what: str) -> str:
        return f"/v1/images/{quote(id, safe='')}/{what}"

    def delete(self, filter: Any, *, dry_run: bool) -> dict[str, Any]:
        """Delete the pictures that match a filter; a dry run only counts them and shows examples."""
        return self._call(
            "POST",
            "/v1/images/delete",
            answers.Deleted,
            json={"filter": filter, "dry_run": dry_run},
            params=self._collection,
            timeout=UPLOAD_TIMEOUT,
        )

    def update_image(self, id: str, change: dict[str, Any]) -> dict[str, Any]:
        """Change caption, tags or metadata of a picture; returns it."""
        path = f"/v1/images/{quote(id, safe='')}"
        return self._call("PATCH", path, answers.Picture, json=change, params=self._collection)

    def find_duplicates(self) -> dict[str, Any]:
        """Begin a search for duplicates; returns its job."""
        return self._call("POST", "/v1/duplicates", answers.Job, params=self._collection)

    def read_camera_data(self, again: bool) -> dict[str, Any]:
        """Begin to read the camera data of stored pictures; returns the job."""
        params = {"again": "true" if again else "false", **self._collection}
        return self._call("POST", "/v1/camera-data", answers.Job, params=params)

    def enrich(self, kind: str, selection: dict[str, Any], *, failed_only: bool) -> dict[str, Any]:
        """Let pictures wait for a second pass again; returns the job, which ends when they do."""
        body = {"kind": kind, "failed_only": failed_only, **selection, **self._collection}
        return self._call("POST", "/v1/enrichments", answers.Job, json=body)

    def duplicates(self, kind: str, threshold: float | None, limit: int = 100, cursor: str = "") -> dict[str, Any]:
        """A page of the groups of duplicates."""
        options: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
        options |= {"cursor": cursor} if cursor else {}
        params = {"kind": kind, "limit": limit, **options, **self._collection}
        return self._call("GET", "/v1/duplicates", answers.Duplicates, params=params, timeout=UPLOAD_TIMEOUT)

    def all_duplicates(self, kind: str, threshold: float | None) -> dict[str, Any]:
        """All groups of duplicates, as one page."""
        whole = page = self.duplicates(kind, threshold)
        while page["next_cursor"] is not None:
            page = self.duplicates(kind, threshold, cursor=page["next_cursor"])
            whole["groups"] += page["groups"]
        return {**whole, "next_cursor": None}

    def stats(self) -> dict[str, Any]:
        return self._call("GET", "/v1/stats", answers.Stats, params=self._collection)

    def model_hint(self) -> str | None:
        """What people should know of the loaded model, if anything."""
        loaded = self._call_patiently("GET", "/v1/models", answers.Loaded)["loaded"]
        return loaded.get("hint") if loaded else None

    def use_head(self, collection: str, head: str | None) -> dict[str, Any]:
        """Let a collection use this head, or none."""
        return self._call(
            "PUT", f"/v1/collections/{quote(collection, safe='')}/head", answers.Collection, json={"head": head}
        )

    @property
    def _labels(self) -> str:
        name = self._collection.get("collection", DEFAULT_COLLECTION)
        return f"/v1/collections/{quote(name, safe='')}/labels"

    def labels(self) -> dict[str, Any]:
        """The labels of the collection."""
        return self._call("GET", self._labels, answers.Labels)

    def set_labels(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the labels of the collection; the answer names the job that applies them."""
        return self._call("PUT", self._labels, answers.Labels, json=dict(body))

    def apply_labels(self) -> dict[str, Any]:
        """Tag what is there again; returns the job."""
        return self._call("POST", f"{self._labels}/apply", answers.Job, headers=new_key())

    def collections(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", "/v1/collections", answers.Collections)["collections"]
        return found

    def make_collection(self, name: str, description: str) -> dict[str, Any]:
        body = {"name": name, "description": description}
        return self._call("POST", "/v1/collections", answers.Collection, json=body)

    def drop_collection(self, name: str) -> None:
        with self._map_errors():
            response = self._http.delete(f"/v1/collections/{quote(name, safe='')}")
        self._require_success(response)
        if response.status_code != 204:
            raise self._not_sightline(response)

    def readiness(self) -> dict[str, Any]:
        """The body of /readyz, whether the server is ready or not."""
        with self._map_errors():
            response = self._http.get("/readyz")
        if response.status_code == 503:
            with contextlib.suppress(ValueError):
                not_ready: dict[str, Any] = answers.parse_answer(response, answers.Readiness)
                return not_ready
        return self._parse(response, answers.Readiness)

    def _call(self, method: str, path: str, shape: type[Answer], **kwargs: Any) -> dict[str, Any]:
        with self._map_errors():
            response = self._http.request(method, path, **kwargs)
        return self._parse(response, shape)

    def _call_patiently(self, method: str, path: str, shape: type[Answer], **kwargs: Any) -> dict[str, Any]:
        """Like `_call`, and waits after `be_patient`. The request changes nothing, or brings an Idempotency-Key."""
        return self._wait_for(partial(self._call, method, path, shape, **kwargs))

    def _wait_for(self, call: Callable[[], T]) -> T:
        """Make a call, after `be_patient` again and again while the server is busy or away."""
        backoff = Backoff(0.5, 10.0)
        deadline = None
        said = ""
        while True:
            try:
                answer = call()
            except Unavailable as error:
                now = time.monotonic()
                deadline = deadline or now + PATIENCE_SECONDS
                pause = max(error.seconds, backoff.next())
                if self._say is None or now + pause > deadline or not (error.answered or self._has_answered):
                    raise
                if said != (said := str(error)):
                    self._say(f"{error}; waiting, and trying again for up to {PATIENCE_SECONDS / 60:g} minutes")
                time.sleep(pause)
            else:
                self._has_answered = True
                if self._say is not None and said:
                    self._say("the server answers again")
                return answer

    def _parse(self, response: httpx.Response, shape: type[Answer]) -> dict[str, Any]:
        self._require_success(response)
        try:
            answer: dict[str, Any] = answers.parse_answer(response, shape)
        except ValueError:
            raise self._not_sightline(response) from None
        return answer

    def _require_success(self, response: httpx.Response) -> None:
        """Raise ServerError for anything but a status of success."""
        if response.is_success:
            return
        if 300 <= response.status_code < 400:
            raise ServerError(describe_redirect(response, self.server))
        problem = answers.parse_problem(response)
        detail = self._describe_refusal(response, problem)
        if response.status_code in BUSY or (problem is not None and problem.retryable):
            raise Unavailable(detail, read_retry_after(response), answered=True)
        raise ServerError(detail)

    def _describe_refusal(self, response: httpx.Response, problem: answers.Problem | None) -> str:
        if problem is None:
            hint = FOREIGN.get(response.status_code, "")
            return f"the server at {self._name} answered {response.status_code}{hint}"
        hint = "; give it with SIGHTLINE_KEY or --key-file" if problem.code == "unauthorized" else ""
        if problem.code == "not_found" and problem.detail == "Not Found":
            hint = "; the server does not know this call"
            if (path := httpx.URL(self.server).path).strip("/"):
                hint = f"; --server is the address of the server alone: {self.server.removesuffix(path)}"
        if problem.code == "not_found" and re.search(r"'[0-9a-f]{4,31}'", problem.detail):
            hint = "; give all 32 digits of an id: tables show the first 8, --json shows all"
        missing = re.fullmatch(r"there is no collection '([^']+)'", problem.detail)
        if missing and response.request.method != "DELETE":
            hint = f"; make it with `sightline collections make {clean(missing[1])}`"
        return f"{clean(problem.detail)} ({clean(problem.code)}){hint}"

    @property
    def _name(self) -> str:
        return f"{self.server} (through the proxy {self._proxy.url})" if self._proxy else self.server

    def _not_sightline(self, response: httpx.Response) -> ServerError:
        kind = clean(response.headers.get("Content-Type", "").partition(";")[0])
        what = f"with {response.status_code}" + (f" and {kind}" if kind else "")
        return ServerError(f"the server at {self._name} is not Sightline: it answered {response.url.path} {what}")

    @contextlib.contextmanager
    def _map_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            detail, may_pass = describe_failure(error, self._name)
            raise (Unavailable(detail) if may_pass else ServerError(detail)) from None
        except httpx.InvalidURL as error:
            raise ServerError(f"{self.server} redirects to what is not an address: {error}") from None


def new_key() -> dict[str, str]:
    """A header by which the server knows a request that is sent again."""
    return {"Idempotency-Key": uuid.uuid4().hex}


def read_retry_after(response: httpx.Response) -> float:
    """The seconds that an answer asks to wait; 0 if it does not say."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def to_valid_unicode(name: str) -> str:
    """The name of a file with an escape for each byte that is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
