"""What a call sends and how its answer is read; the same for both clients."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Generic, TypeVar
from urllib.parse import quote as quote_path

from pydantic import BaseModel, TypeAdapter

T = TypeVar("T")


class Unset(Enum):
    """The value of a field that stays as it is."""

    UNSET = "unset"


UNSET = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call. `files` is the field of its body that holds pictures: with them the body is a form.

    What is None is not sent, but for the fields `nulls` of its body.

    `accept` is the type of the answer, where the call has several.

    `content` is a body that is sent as it is, of the type `media_type`. `timeout` and `patience`, in seconds, are those
    of this call where it needs others. `headers` are those of a call whose answer is a stream.

    `is_keyed`: it takes an Idempotency-Key, so that it may be sent again. `is_repeatable`: doing it twice is doing it
    once. `is_optional`: its answer may be empty.
    """

    method: str
    path: str
    answer: Any
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    nulls: tuple[str, ...] = ()
    files: str | None = None
    is_form: bool = False
    is_keyed: bool = False
    is_repeatable: bool = True
    is_optional: bool = False
    content: bytes | None = None
    media_type: str = "application/json"
    accept: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    patience: float | None = None

    @property
    def is_file(self) -> bool:
        """Whether the answer is a file, to which a server may redirect; for another call that is a wrong address."""
        return self.method == "GET" and self.path.endswith("/file")

    def with_collection(self, collection: str | None) -> Call[T]:
        """The call in this collection, where it takes one and names none."""
        if collection is not None and self.body.get("collection", "") is None:
            return replace(self, body={**self.body, "collection": collection})
        if collection is not None and self.query.get("collection", "") is None:
            return replace(self, query={**self.query, "collection": collection})
        return self

    def fields(self) -> dict[str, Any]:
        """The fields of the body that are sent, but for its files."""
        return {
            name: value
            for name, value in self.body.items()
            if name != self.files and value is not UNSET and (value is not None or name in self.nulls)
        }

    def read(self, content: bytes) -> T:
        """The answer. Raises ValueError for what is none."""
        if self.answer is bytes or (self.is_optional and not content):
            return content if self.answer is bytes else None  # type: ignore[return-value]
        if self.answer is None:
            return None  # type: ignore[return-value]
        found: T = TypeAdapter(self.answer).validate_json(content)
        return found


def quote(part: object) -> str:
    """A part of a path."""
    return quote_path(str(part), safe="")


def to_plain(value: Any) -> Any:
    """A value as JSON has it, without what is not set."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {name: to_plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [to_plain(one) for one in value]
    return value


def encode_query(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Parameters of a query or fields of a form, without what is None. Objects become JSON."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        many = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        found += [(name, encode_value(one)) for one in many if one is not None]
    return found


def encode_value(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(to_plain(value), ensure_ascii=False)
