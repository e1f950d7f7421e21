"""MilvusClient: the connection to a Milvus server or to Milvus Lite, with deadlines and a circuit breaker.

pymilvus is an optional dependency and slow to import: the first connection imports it. Whatever it raises becomes
RemoteUnavailable here, so that no caller needs to know it.
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
    """Where the server is. `index_type` is the type of the index there: FLAT or IVF_FLAT.

    `uri` has the form that pymilvus takes: http(s)://host:port, or the path of a Milvus Lite file.
    """

    uri: str
    database: str = ""
    index_type: str = "IVF_FLAT"
    token: str = field(default="", repr=False)

    @property
    def is_lite(self) -> bool:
        """Whether it is a file of Milvus Lite, which runs inside this process."""
        return self.uri.endswith(".db")

    @classmethod
    def parse(cls, text: str, token: str = "") -> Self:
        """The address in `text`, one of FORMS, each with `?index=FLAT` or `?index=IVF_FLAT` if wanted.

        Raises ValueError, which says what is wrong with it.
        """
        scheme, _, rest = text.partition(":")
        if scheme == "milvus" and not rest.startswith("//"):
            path, _, query = rest.partition("?")
            if not path.endswith(".db"):
                raise ValueError(f"{text!r}: a Milvus Lite file ends with .db")
            return cls(str(Path(path).absolute()), "", _parse_index_type(query, "FLAT"), token)
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
        return cls(f"{http}://{host}:{port}", database, _parse_index_type(parts.query, "IVF_FLAT"), token)


def _parse_index_type(query: str, default: str) -> str:
    options = parse_qs(query, keep_blank_values=True)
    index_type = options.pop("index", [default])[-1]
    if options or index_type not in INDEX_TYPES:
        raise ValueError(f"?{query}: expected ?index= and one of {', '.join(INDEX_TYPES)}")
    return index_type


class MilvusClient:
    """One connection, shared by all indexes of a process. Any thread may call any method.

    The first call connects, and so does one after the breaker opened. `epoch` counts the connections: when it has
    moved, anything may have happened to the server meanwhile.
    """

    def __init__(self, address: MilvusAddress) -> None:
        needed = ("pymilvus", "milvus_lite") if address.is_lite else ("pymilvus",)
        for package in needed:
            if importlib.util.find_spec(package) is None:
                raise ValueError(
                    f"{package.replace('_', '-')} is not installed: pip install 'sightline-search[milvus]'"
                )
        self.address = address
        self.name = f"Milvus at {address.uri.rpartition('/')[2]}"  # a file by its name alone: errors show no paths
        self.epoch = 0
        self._breaker = CircuitBreaker(self.name)
        self._lock = threading.Lock()
        self._client: Any = None
        self._retired: list[Any] = []
        self._closed = False

    @property
    def is_away(self) -> bool:
        """Whether calls fail at once at present."""
        return self._breaker.is_open

    def call(self, method: str, seconds: float, **arguments: Any) -> Any:
        """Call `method` of pymilvus's MilvusClient; about twice `seconds` may pass, since pymilvus tries again.

        Raises RemoteEmptied where the collection is not there, else RemoteUnavailable.
        """
        self._breaker.allow_call()
        try:
            client = self._connect(seconds)
            answer = getattr(client, method)(timeout=seconds, **arguments)
        except IndexClosed:
            raise
        except Exception as error:  # grpc's, pymilvus's, and what it lets through from below
            raise self._map_error(error, method) from error
        self._breaker.record_success()
        return answer

    def close(self) -> None:
        """Close the connection; a Milvus Lite in this process stops. May be called again."""
        with self._lock:
            self._closed = True
            if self._client is not None:
                self._retired.append(self._client)
                self._client = None
            self._close_retired()
        if self.address.is_lite and self.epoch:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.address.uri)

    def _close_retired(self) -> None:
        while self._retired:
            self._retired.pop().close()

    def _connect(self, seconds: float) -> Any:
        client = self._client
        if client is not None:
            return client
        if not self._lock.acquire(timeout=seconds):  # another thread is connecting
            raise RemoteUnavailable(f"connecting to {self.name} takes too long")
        try:
            if self._closed:
                raise IndexClosed("the client is closed")
            if self._client is None:
                self._client = _open_connection(self.address)
                self.epoch += 1
                self._close_retired()
                log.info("connected to %s", self.name)
            return self._client
        finally:
            self._lock.release()

    def _map_error(self, error: Exception, method: str) -> RemoteUnavailable:
        """The error as one of ours. No answer counts for the breaker as a failure, any answer as a success."""
        code = getattr(error, "code", None)
        if code == COLLECTION_NOT_FOUND:
            self._breaker.record_success()
            return RemoteEmptied(f"{self.name} does not have the collection any more")
        if isinstance(code, int) and code not in CONNECTION_CODES:
            self._breaker.record_success()
            return RemoteUnavailable(f"{self.name} refuses ({method}, code {code})")
        if self._breaker.record_failure() and (client := self._client) is not None:
            # The channel may hang on a dead address. Other threads may still use it: the next connection closes it.
            self._client = None
            self._retired.append(client)
        return RemoteUnavailable(f"{self.name} does not answer ({_error_word(error)})")


def _error_word(error: BaseException) -> str:
    """The word of grpc for it: UNAVAILABLE, DEADLINE_EXCEEDED, UNAUTHENTICATED."""
    for cause in (error, error.__cause__):
        code = getattr(cause, "code", None)
        word = getattr(code() if callable(code) else code, "name", None)
        if isinstance(word, str):
            return word
    return type(error).__name__


def _open_connection(address: MilvusAddress) -> Any:
    import pymilvus

    for name in ("pymilvus", "pymilvus.decorators"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it logs each failure with its stack; we log it once
    return pymilvus.MilvusClient(
        uri=address.uri, token=address.token, db_name=address.database, timeout=CONNECT_SECONDS, dedicated=True
    )
