"""Calls a running server for the command line, by the Python client. Every failure is a ServerError of one line."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import httpx
import sightline_client
from sightline_client import ApiError, ConnectionFailed, NamedPicture, SightlineError
from sightline_client.call import Call
from sightline_client.retry import BUSY, Patience, read_retry_after

from app.cli import ServerError, answers
from app.cli.answers import Answer, clean
from app.cli.connection import describe_failure, describe_redirect, find_proxy, open_connection, parse_server
from app.core.types import DEFAULT_COLLECTION
from app.search.query_syntax import parse_weighted_query

UPLOAD_SECONDS = 600.0  # until an answer must come to what makes the server work
PATIENCE_SECONDS = 600.0  # that an upload waits for a server that is busy, or away, before it gives up
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


class PatientClient(sightline_client.Client):
    """The Python client, which says what it waits for. It does not wait for a server that has never answered: perhaps
    its address is wrong."""

    say: Callable[[str], None] | None = None
    has_answered = False
    read: Callable[[SightlineError], ServerError]

    def _next_pause(self, failure: ApiError | ConnectionFailed, asked: float, patience: Patience) -> float | None:
        error = self.read(failure)
        can_wait = isinstance(error, Unavailable) and (error.answered or self.has_answered)
        pause = patience.next_pause(asked) if self.say is not None and can_wait else None
        if self.say is not None and pause is not None and patience.said != (said := str(error)):
            patience.said = said
            self.say(f"{error}; waiting, and trying again for up to {PATIENCE_SECONDS / 60:g} minutes")
        return pause

    def _note_answer(self, patience: Patience) -> None:
        self.has_answered = True
        if self.say is not None and patience.said:
            self.say("the server answers again")


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
        try:
            (key or "").encode("ascii")
        except UnicodeEncodeError:
            raise ServerError("this is no API key: it has characters that no key has") from None
        self._http = open_connection(httpx.Client, url, ca_file)
        self._client = PatientClient(self.server, key=key or "", patience=0.0, http=self._http)
        self._client.read = self._read_failure

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def be_patient(self, say: Callable[[str], None]) -> None:
        """From now on wait for a server that is busy or away, at most PATIENCE_SECONDS each time; `say` tells so."""
        self._client.say = say

    def upload_bulk(
        self,
        files: Sequence[tuple[str, bytes | Path]],
        job: str | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """Send files, each with its name, as one bulk of a new job or of this one; returns the job.

        `left_out` counts files that the command left out, by their kind; the job adds them to its own.
        """
        parts = [NamedPicture(to_valid_unicode(name), content) for name, content in files]
        form = {"files": parts, "left_out": left_out or None}
        path, query = "/v1/images/bulk", self._params_of(job)
        return self._send_form("POST", path, answers.Job, form, query=query, is_keyed=True, patience=PATIENCE_SECONDS)

    def find_known(self, digests: Sequence[str]) -> dict[str, list[str]]:
        """Which of up to 1,000 SHA-256 are of pictures of the collection, and what each of these lacks."""
        body = {"sha256": list(digests)}
        path = "/v1/images/known"
        known = self._call_patiently("POST", path, answers.Known, body, query=self._collection)
        lacks = known.get("lacks", {})
        return {digest: lacks.get(digest, []) for digest in known["sha256"]}

    def ingest_urls(self, items: Sequence[dict[str, Any]], job: str | None = None) -> dict[str, Any]:
        """Have the server fetch URLs, in a new job or in this one; returns the job."""
        lines = "".join(json.dumps(item) + "\n" for item in items).encode()
        return self._ingest(job, content=lines, media_type=REPORT)

    def ingest_source(self, source: str, options: Mapping[str, Any], job: str | None = None) -> dict[str, Any]:
        """Have the server ingest a source that it reads itself, in a new job or in this one; returns the job."""
        return self._ingest(job, body={"source": source, **options})

    def _ingest(self, job: str | None, **said: Any) -> dict[str, Any]:
        said |= {"query": self._params_of(job), "is_keyed": True, "timeout": UPLOAD_SECONDS}
        return self._call_patiently("POST", "/v1/images/ingest", answers.Job, **said)

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
            body={"texts": list(texts)},
            query=self._collection,
            timeout=UPLOAD_SECONDS,
        )

    def create_watch(self, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Watch a folder, or find the one that is watched."""
        body = {"source": source, **options}
        return self._call("POST", "/v1/watches", answers.Watch, body=body, query=self._collection)

    def watches(self) -> list[dict[str, Any]]:
        """The watched folders of the collection."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/watches", answers.Watches, query=self._collection)[
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
        self._exchange(Call("DELETE", f"/v1/watches/{quote(id, safe='')}", None, timeout=UPLOAD_SECONDS))

    def watched_files(self, id: str) -> Iterator[dict[str, Any]]:
        """What the server knows of the files of a watched folder."""
        params: dict[str, Any] = {"limit": 1000}
        while True:
            page = self._call("GET", f"/v1/watches/{quote(id, safe='')}/files", answers.WatchedFiles, query=params)
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
        return self._call("POST", path, answers.Applied, body=body, timeout=UPLOAD_SECONDS)

    def send_files(self, id: str, changes: Sequence[Mapping[str, Any]], files: Sequence[IO[bytes]]) -> dict[str, Any]:
        """Send files of a watched folder, with their changes."""
        path = f"/v1/watches/{quote(id, safe='')}/files"
        form = {"files": [NamedPicture("file", file) for file in files], "change": list(changes)}
        return self._send_form("POST", path, answers.Applied, form)

    def job(self, id: str) -> dict[str, Any]:
        return self._call_patiently("GET", f"/v1/jobs/{quote(id, safe='')}", answers.Job)

    def jobs(self, limit: int | None = None) -> dict[str, Any]:
        """The newest jobs: the server's answer."""
        params = {**self._collection, **({} if limit is None else {"limit": limit})}
        return self._call("GET", "/v1/jobs", answers.Jobs, query=params)

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
        return self._call("POST", f"/v1/jobs/{quote(id, safe='')}/{action}", answers.Job, timeout=UPLOAD_SECONDS)

    def reembed(self, model: str, precision: str | None, *, dry_run: bool) -> dict[str, Any]:
        """Begin to move a server to another model, or ask what that costs; returns the job."""
        body = {"model": model, "precision": precision, "dry_run": dry_run}
        return self._call("POST", "/v1/reembed", answers.Job, body=body, timeout=UPLOAD_SECONDS)

    def read_report(self, id: str, status: str | None) -> Iterator[bytes]:
        """A line of JSON for each item of a job, or for each item with this status."""
        params = {"format": "ndjson", **({} if status is None else {"status": status})}
        path = f"/v1/jobs/{quote(id, safe='')}/items"
        with self._stream(Call("GET", path, None, query=params)) as response:
            if response.headers.get("Content-Type", "").partition(";")[0] != REPORT:
                raise self._not_sightline(response)
            yield from response.iter_bytes()

    def items(self, id: str, **which: str) -> Iterator[dict[str, Any]]:
        """The items of a job: `status="failed"`, or `warned="true"`."""
        params: dict[str, Any] = {"limit": 1000, **which}
        while True:
            page = self._call_patiently("GET", f"/v1/jobs/{quote(id, safe='')}/items", answers.Items, query=params)
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
            return self._call("POST", "/v1/search", answers.Found, body=body, query=self._collection)
        params = {"q": words, "k": k, "target": target, **options, **self._collection}
        if filter is not None:
            params["filter"] = json.dumps(filter)
        return self._call("GET", "/v1/search", answers.Found, query=params)

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
        form = {"file": named_file(path), "k": k, "target": target, "filter": filter, "score_threshold": threshold}
        form |= {name: value if value is True else str(value) for name, value in more.items()}
        return self._send_form("POST", "/v1/search/image", answers.Found, form | self._collection, timeout=None)

    def ask(self, id: str, question: str, given: Sequence[str], by: str | None) -> dict[str, Any]:
        """Ask a question about a picture, with candidate answers; `by` is what is to answer."""
        body = {"question": question, "answers": list(given), **({} if by is None else {"by": by})}
        path = f"/v1/images/{quote(id, safe='')}/ask"
        return self._call("POST", path, answers.Answered, body=body, query=self._collection, timeout=UPLOAD_SECONDS)

    def explain(self, id: str, words: str) -> dict[str, Any]:
        """Which part of a picture met the words."""
        query = {**self._collection, "q": words}
        return self._call("GET", self._picture(id, "explain"), answers.Explanation, query=query)

    def draw_explanation(self, id: str, words: str) -> bytes:
        """The picture with a heat map, as a PNG."""
        query = {**self._collection, "q": words}
        return self._exchange(Call("GET", self._picture(id, "explain"), None, query=query, accept="image/png")).content

    def search_batch(self, searches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Up to 100 searches in one call; returns the answer to each, or its `error`."""
        answered = self._call(
            "POST",
            "/v1/search/batch",
            answers.FoundMany,
            body={"searches": list(searches)},
            query=self._collection,
            timeout=UPLOAD_SECONDS,
        )
        found: list[dict[str, Any]] = answered["answers"]
        if len(found) != len(searches):
            raise ServerError(f"the server at {self.server} is not Sightline: it answered {len(found)} searches")
        return found

    def begin_task(self, call: str, options: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
        """POST what a task needs, and the set at `path` if that is given; returns the job."""
        if path is None:
            said = {"query": self._collection, "is_keyed": True}
            return self._call_patiently("POST", call, answers.Job, dict(options), **said)
        form = {name: list(map(str, one)) if isinstance(one, list) else str(one) for name, one in options.items()}
        return self._send_form("POST", call, answers.Job, {"file": named_file(path), **form}, query=self._collection)

    def list_captions(self, most: int) -> Iterator[tuple[str, str]]:
        """The id and caption of pictures that have one, newest first."""
        params: dict[str, Any] = {"limit": 1000, **self._collection}
        count = 0
        while count < most:
            page = self._call_patiently("GET", "/v1/images", answers.Pictures, query=params)
            for image in page["images"]:
                if image["status"] == "ready" and (image["caption"] or "").strip() and count < most:
                    count += 1
                    yield image["id"], image["caption"]
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def download(self, id: str, path: Path) -> None:
        """Write the file of a picture."""
        call: Call[None] = Call("GET", self._picture(id, "file"), None, query=self._collection)
        with self._stream(call) as response, open(path, "wb") as file:
            file.writelines(response.iter_bytes())

    def thumbnail(self, id: str) -> bytes:
        return self._exchange(Call("GET", self._picture(id, "thumbnail"), None, query=self._collection)).content

    @staticmethod
    def _picture(id: str, what: str) -> str:
        return f"/v1/images/{quote(id, safe='')}/{what}"

    def delete(self, filter: Any, *, dry_run: bool) -> dict[str, Any]:
        """Delete the pictures that match a filter; a dry run only counts them and shows examples."""
        return self._call(
            "POST",
            "/v1/images/delete",
            answers.Deleted,
            body={"filter": filter, "dry_run": dry_run},
            query=self._collection,
            timeout=UPLOAD_SECONDS,
        )

    def update_image(self, id: str, change: dict[str, Any]) -> dict[str, Any]:
        """Change caption, tags or metadata of a picture; returns it."""
        path = f"/v1/images/{quote(id, safe='')}"
        return self._call("PATCH", path, answers.Picture, body=change, query=self._collection)

    def find_duplicates(self) -> dict[str, Any]:
        """Begin a search for duplicates; returns its job."""
        return self._call("POST", "/v1/duplicates", answers.Job, query=self._collection)

    def read_camera_data(self, again: bool) -> dict[str, Any]:
        """Begin to read the camera data of stored pictures; returns the job."""
        params = {"again": "true" if again else "false", **self._collection}
        return self._call("POST", "/v1/camera-data", answers.Job, query=params)

    def enrich(self, kind: str, selection: dict[str, Any], *, failed_only: bool) -> dict[str, Any]:
        """Let pictures wait for a second pass again; returns the job, which ends when they do."""
        body = {"kind": kind, "failed_only": failed_only, **selection, **self._collection}
        return self._call("POST", "/v1/enrichments", answers.Job, body=body)

    def duplicates(self, kind: str, threshold: float | None, limit: int = 100, cursor: str = "") -> dict[str, Any]:
        """A page of the groups of duplicates."""
        options: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
        options |= {"cursor": cursor} if cursor else {}
        params = {"kind": kind, "limit": limit, **options, **self._collection}
        return self._call("GET", "/v1/duplicates", answers.Duplicates, query=params, timeout=UPLOAD_SECONDS)

    def all_duplicates(self, kind: str, threshold: float | None) -> dict[str, Any]:
        """All groups of duplicates, as one page."""
        whole = page = self.duplicates(kind, threshold)
        while page["next_cursor"] is not None:
            page = self.duplicates(kind, threshold, cursor=page["next_cursor"])
            whole["groups"] += page["groups"]
        return {**whole, "next_cursor": None}

    def stats(self) -> dict[str, Any]:
        return self._call("GET", "/v1/stats", answers.Stats, query=self._collection)

    def model_hint(self) -> str | None:
        """What people should know of the loaded model, if anything."""
        loaded = self._call_patiently("GET", "/v1/models", answers.Loaded)["loaded"]
        return loaded.get("hint") if loaded else None

    def use_head(self, collection: str, head: str | None) -> dict[str, Any]:
        """Let a collection use this head, or none."""
        return self._call(
            "PUT", f"/v1/collections/{quote(collection, safe='')}/head", answers.Collection, body={"head": head}
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
        return self._call("PUT", self._labels, answers.Labels, body=dict(body))

    def apply_labels(self) -> dict[str, Any]:
        """Tag what is there again; returns the job."""
        return self._call("POST", f"{self._labels}/apply", answers.Job, is_keyed=True)

    def collections(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", "/v1/collections", answers.Collections)["collections"]
        return found

    def make_collection(self, name: str, description: str) -> dict[str, Any]:
        body = {"name": name, "description": description}
        return self._call("POST", "/v1/collections", answers.Collection, body=body)

    def drop_collection(self, name: str) -> None:
        response = self._exchange(Call("DELETE", f"/v1/collections/{quote(name, safe='')}", None))
        if response.status_code != 204:
            raise self._not_sightline(response)

    def readiness(self) -> dict[str, Any]:
        """The body of /readyz, whether the server is ready or not."""
        try:
            response = self._client._exchange(Call("GET", "/readyz", None))
        except SightlineError as failure:
            if isinstance(failure, ApiError) and failure.status == 503:
                with contextlib.suppress(ValueError):
                    not_ready: dict[str, Any] = answers.parse_answer(failure.response, answers.Readiness)
                    return not_ready
            raise self._read_failure(failure) from None
        return self._parse(response, answers.Readiness)

    def _call(
        self, method: str, path: str, shape: type[Answer], body: Mapping[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """The answer to a call with a body of JSON; `more` are fields of a Call. It does not wait."""
        said = {"body": body or {}, "nulls": tuple(body or ()), **more}
        return self._parse(self._exchange(Call(method, path, None, **said)), shape)

    def _call_patiently(self, *call: Any, **more: Any) -> dict[str, Any]:
        """Like `_call`, and waits after `be_patient`. The request changes nothing, or brings an Idempotency-Key."""
        return self._call(*call, **more, patience=PATIENCE_SECONDS)

    def _send_form(
        self, method: str, path: str, shape: type[Answer], form: Mapping[str, Any], **more: Any
    ) -> dict[str, Any]:
        """The answer to a call with a form, whose field `file` or `files` has the files."""
        files = "files" if "files" in form else "file"
        said = {"body": form, "files": files, "is_form": True, "timeout": UPLOAD_SECONDS, **more}
        try:
            return self._parse(self._exchange(Call(method, path, None, **said)), shape)
        except OSError as error:
            raise ServerError(f"{error.filename} cannot be read: {error.strerror}") from None

    def _exchange(self, call: Call[None]) -> httpx.Response:
        try:
            return self._client._exchange(call)
        except SightlineError as failure:
            raise self._read_failure(failure) from None

    @contextlib.contextmanager
    def _stream(self, call: Call[None]) -> Iterator[httpx.Response]:
        """The answer of a call as it comes."""
        try:
            with self._client._stream(call) as response:
                yield response
        except SightlineError as failure:
            raise self._read_failure(failure) from None
        except httpx.HTTPError as error:
            raise self._read_broken(error) from None

    def _parse(self, response: httpx.Response, shape: type[Answer]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = answers.parse_answer(response, shape)
        except ValueError:
            raise self._not_sightline(response) from None
        return answer

    def _read_failure(self, failure: SightlineError) -> ServerError:
        """What the Python client raises, as one line with what to do about it."""
        if not isinstance(failure, ApiError):
            return self._read_broken(failure.__cause__)
        response: httpx.Response = failure.response
        if 300 <= response.status_code < 400:
            return ServerError(describe_redirect(response, self.server))
        problem = answers.parse_problem(response)
        detail = self._describe_refusal(response, problem)
        if response.status_code in BUSY or (problem is not None and problem.retryable):
            return Unavailable(detail, read_retry_after(response.headers.get("Retry-After")), answered=True)
        return ServerError(detail)

    def _read_broken(self, error: BaseException | None) -> ServerError:
        if not isinstance(error, httpx.HTTPError):
            return ServerError(f"{self.server} redirects to what is not an address: {error}")
        detail, may_pass = describe_failure(error, self._name)
        return Unavailable(detail) if may_pass else ServerError(detail)

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


def named_file(path: Path) -> NamedPicture:
    return NamedPicture(to_valid_unicode(path.name), path)


def to_valid_unicode(name: str) -> str:
    """The name of a file with an escape for each byte that is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
