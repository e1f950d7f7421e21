"""Engine: the connection to a Milvus server, or to Milvus Lite, with a deadline for each call and a breaker.

pymilvus is an optional dependency and slow to import: it is imported when an engine is opened. Whatever it
raises becomes EngineUnavailable here, so that no caller needs to know it.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from index.circuit_breaker import CircuitBreaker
from index.errors import IndexClosed, RemoteEmptied, RemoteUnavailable

log = logging.getLogger(__name__)

ADDRESS_FORMS = "milvus://HOST[:PORT][/DATABASE], milvus+tls://HOST[:PORT][/DATABASE] or milvus:FILE.db"
INDEX_TYPES = ("FLAT", "IVF_FLAT")
COLLECTION_NOT_FOUND = 100  # Milvus's code for a collection that is not there
CONNECTION_CODES = (1, 2)  # pymilvus's own codes: gave up retrying, could not connect
CONNECT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class MilvusAddress:
    """Where the engine is. `layout` is the kind of index that is made there: FLAT or IVF_FLAT.

    `uri` is in pymilvus's words: http(s)://host:port, or the path of a Milvus Lite file.
    """

    uri: str
    database: str = ""
    layout: str = "IVF_FLAT"
    token: str = field(default="", repr=False)

    @property
    def lite(self) -> bool:
        """Whether it is a file of Milvus Lite, which runs inside this process."""
        return self.uri.endswith(".db")

    @classmethod
    def parse(cls, text: str, token: str = "") -> Self:
        """The address in `text`, one of FORMS, each with `?index=FLAT` or `?index=IVF_FLAT` if wanted.

        Raises ValueError, which names what is wrong with it.
        """
        scheme, _, rest = text.partition(":")
        if scheme == "milvus" and not rest.startswith("//"):
            path, _, query = rest.partition("?")
            if not path.endswith(".db"):
                raise ValueError(f"{text!r}: a Milvus Lite file ends with .db")
            return cls(str(Path(path).absolute()), "", _layout(query, "FLAT"), token)
        if scheme not in ("milvus", "milvus+tls"):
            raise ValueError(f"{text!r} is neither local nor {ADDRESS_FORMS}")
        try:
            parts = urlsplit(text)
            port = parts.port or 19530
        except ValueError as error:
            raise ValueError(f"{scheme} address: {error}") from None
        if parts.username is not None or parts.password is not None:
            raise ValueError("user and password do not belong into the address; use SIGHTLINE_INDEX_TOKEN")
        database = parts.path.strip("/")
        if not parts.hostname or "/" in database or parts.fragment:
            raise ValueError(f"{text!r} is not of the form {ADDRESS_FORMS}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        http = "https" if scheme == "milvus+tls" else "http"
        return cls(f"{http}://{host}:{port}", database, _layout(parts.query, "IVF_FLAT"), token)


def _layout(query: str, default: str) -> str:
    options = parse_qs(query, keep_blank_values=True)
    layout = options.pop("index", [default])[-1]
    if options or layout not in INDEX_TYPES:
        raise ValueError(f"?{query}: expected ?index= and one of {', '.join(INDEX_TYPES)}")
    return layout


class MilvusClient:
    """One engine, shared by all indexes of a process. Any thread may call any method.

    It connects when first called, and anew after the breaker opened. `epoch` counts the connections: whoever
    sees it move does not know what happened to the engine meanwhile.
    """

    def __init__(self, address: MilvusAddress) -> None:
        needed = ("pymilvus", "milvus_lite") if address.lite else ("pymilvus",)
        for package in needed:
            if importlib.util.find_spec(package) is None:
                raise ValueError(f"{package.replace('_', '-')} is not installed: pip install 'sightline[milvus]'")
        self.address = address
        self.name = f"Milvus at {address.uri.rpartition('/')[2]}"  # of a file its name: paths are not told
        self.epoch = 0
        self._breaker = CircuitBreaker(self.name)
        self._lock = threading.Lock()
        self._client: Any = None
        self._retired: list[Any] = []
        self._closed = False

    @property
    def away(self) -> bool:
        """Whether calls fail at once at present."""
        return self._breaker.open

    def call(self, method: str, seconds: float, **arguments: Any) -> Any:
        """Call `method` of pymilvus's MilvusClient; about twice `seconds` may pass, since pymilvus tries again.

        Raises EngineEmptied where the collection is not there, else EngineUnavailable.
        """
        self._breaker.enter()
        try:
            client = self._connected(seconds)
            answer = getattr(client, method)(timeout=seconds, **arguments)
        except IndexClosed:
            raise
        except Exception as error:  # grpc's, pymilvus's, and what it lets through from below
            raise self._told(error, method) from error
        self._breaker.succeeded()
        return answer

    def close(self) -> None:
        """Hang up; a Milvus Lite in this process stops. May be called again."""
        with self._lock:
            self._closed = True
            if self._client is not None:
                self._retired.append(self._client)
                self._client = None
            self._hang_up()
        if self.address.lite and self.epoch:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.address.uri)

    def _hang_up(self) -> None:
        while self._retired:
            self._retired.pop().close()

    def _connected(self, seconds: float) -> Any:
        client = self._client
        if client is not None:
            return client
        if not self._lock.acquire(timeout=seconds):  # somebody else is trying to connect
            raise RemoteUnavailable("connecting takes long")
        try:
            if self._closed:
                raise IndexClosed("the engine is closed")
            if self._client is None:
                self._client = _connect(self.address)
                self.epoch += 1
                self._hang_up()
                log.info("connected to %s", self.name)
            return self._client
        finally:
            self._lock.release()

    def _told(self, error: Exception, method: str) -> RemoteUnavailable:
        """The error in our words; a silence counts against the engine, an answer does not."""
        code = getattr(error, "code", None)
        if code == COLLECTION_NOT_FOUND:
            self._breaker.succeeded()
            return RemoteEmptied(f"{self.name} does not have the collection any more")
        if isinstance(code, int) and code not in CONNECTION_CODES:
            self._breaker.succeeded()
            return RemoteUnavailable(f"{self.name} refuses ({method}, code {code})")
        if self._breaker.failed() and (client := self._client) is not None:
            # The channel may hang on a dead address. It is closed after the next connection: others may use it yet.
            self._client = None
            self._retired.append(client)
        return RemoteUnavailable(f"{self.name} does not answer ({_word(error)})")


def _word(error: BaseException) -> str:
    """What grpc says of it, in a word: UNAVAILABLE, DEADLINE_EXCEEDED, UNAUTHENTICATED."""
    for cause in (error, error.__cause__):
        code = getattr(cause, "code", None)
        word = getattr(code() if callable(code) else code, "name", None)
        if isinstance(word, str):
            return word
    return type(error).__name__


def _connect(address: MilvusAddress) -> Any:
    from pymilvus import MilvusClient

    for name in ("pymilvus", "pymilvus.decorators"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it logs each failure with its stack; ours are told once
    return MilvusClient(
        uri=address.uri, token=address.token, db_name=address.database, timeout=CONNECT_SECONDS, dedicated=True
    )
