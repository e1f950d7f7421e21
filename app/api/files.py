"""Files as answers: each is opened before the head of the answer is sent, and 304 saves what a client has already."""

from __future__ import annotations

import gzip
import math
import os
import stat
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from app.storage.object_store import RemoteFile

KEPT_HEADERS = ("etag", "last-modified", "cache-control", "vary")  # of a 304


class OpenFileResponse(FileResponse):
    """The bytes of an open file, whatever becomes of its name meanwhile; the file is closed at the end.

    Its refusals (of a range) are problem+json, too. Without `etag` it has that of Starlette: time and size of the file.
    """

    def __init__(
        self, file: BinaryIO, media_type: str | None = None, headers: Mapping[str, str] | None = None, etag: str = ""
    ) -> None:
        held = stat_file(file)
        super().__init__(file.name, media_type=media_type, headers=headers, stat_result=held)
        self._file = file
        # Rounded up, so that bytes that come later in the same second are newer than the date that a client has.
        self._changed_at = math.ceil(held.st_mtime)
        self.headers["last-modified"] = formatdate(min(self._changed_at, time.time()), usegmt=True)
        if etag:
            self.headers["etag"] = etag

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_checked(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                size = Headers(raw=message["headers"]).get("content-range")
                headers = {"Content-Range": size} if size else None
                raise HTTPException(message["status"], "this range of the file cannot be served", headers)
            await send(message)

        with self._file:
            sent = Headers(scope=scope)
            if is_not_modified(sent, self.headers["etag"], self._changed_at):
                await not_modified(self)(scope, receive, send)
                return
            if not sent.get("range", "bytes=").strip().lower().startswith("bytes"):  # RFC 9110: as if it were not there
                scope = {**scope, "headers": [one for one in scope["headers"] if one[0] != b"range"]}
            await super().__call__(scope, receive, send_checked)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[anyio.AsyncFile[bytes]]:
        """Starlette would open the file by its name, after it has sent the head of the answer."""
        yield anyio.wrap_file(self._file)


def stat_file(file: BinaryIO) -> os.stat_result:
    """Size and time of an open file, which may be an object of a bucket."""
    raw = getattr(file, "raw", None)
    if not isinstance(raw, RemoteFile):
        return os.fstat(file.fileno())
    changed_at = int(raw.changed_at)
    return os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, 0, 0, raw.size, changed_at, changed_at, changed_at))


class PageFileResponse(OpenFileResponse):
    """A file of the page, compressed for those who take it so; each is compressed once."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = Headers(scope=scope)
        self.headers["vary"] = "Accept-Encoding"
        is_plain = "gzip" not in sent.get("accept-encoding", "") or "range" in sent
        if is_plain or is_not_modified(sent, self.headers["etag"], self._changed_at):
            await super().__call__(scope, receive, send)
            return
        with self._file:
            content = await anyio.to_thread.run_sync(compress_file, str(self.path), self._changed_at)
        headers = {
            name: value for name, value in self.headers.items() if name not in ("content-length", "accept-ranges")
        }
        await Response(content, headers={**headers, "content-encoding": "gzip"})(scope, receive, send)


@lru_cache(maxsize=256)
def compress_file(path: str, changed_at: int) -> bytes:
    return gzip.compress(Path(path).read_bytes())


class PageFiles(StaticFiles):
    """The files of the page."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        try:
            return PageFileResponse(open(full_path, "rb"))
        except OSError:  # it was there a moment ago: somebody installs another version
            raise HTTPException(404) from None


def is_not_modified(sent: Headers, etag: str, changed_at: float | None = None) -> bool:
    """Whether a client has what has this ETag and was changed at this time (seconds since 1970), by its own headers."""
    if tags := sent.getlist("if-none-match"):
        known = {tag.strip().removeprefix("W/") for line in tags for tag in line.split(",")}
        return "*" in known or etag.removeprefix("W/") in known
    if changed_at is None:
        return False
    try:
        return changed_at <= parsedate_to_datetime(sent["if-modified-since"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return False


def not_modified(answer: Response) -> Response:
    """304 in place of this answer."""
    return Response(
        status_code=304, headers={name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}
    )
