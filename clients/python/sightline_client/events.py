"""Server-sent events, as their bytes come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import httpx
from pydantic import BaseModel

from sightline_client.errors import NotSightline

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `id` is empty where it has none."""

    data: str
    id: str


@dataclass(slots=True)
class EventReader:
    """The events of one stream. One that was cut off before its empty line is none.

    It splits at line feeds alone: `iter_lines` of httpx also splits at characters that the text of a caption may have.
    """

    rest: bytes = b""
    fields: dict[str, list[str]] = field(default_factory=dict)

    def feed(self, part: bytes) -> list[Event]:
        """The events that are whole with these bytes."""
        *lines, self.rest = (self.rest + part).split(b"\n")
        events = []
        for line in lines:
            text = line.removesuffix(b"\r").decode("utf-8", "replace")
            name, _, value = text.partition(":")
            if name:
                self.fields.setdefault(name, []).append(value.removeprefix(" "))
            elif not text:
                if "data" in self.fields:
                    events.append(Event("\n".join(self.fields["data"]), self.fields.get("id", [""])[-1]))
                self.fields.clear()
        return events


def check_event_stream(response: httpx.Response) -> None:
    """Raises NotSightline for an answer that is no stream of events."""
    kind = response.headers.get("Content-Type", "nothing")
    if kind.partition(";")[0].strip() != "text/event-stream":
        raise NotSightline(f"{response.request.url} answered {response.status_code} with {kind}: no stream of events")


def read_event(model: type[M], event: Event) -> M:
    """The record that an event brings. Raises NotSightline."""
    try:
        return model.model_validate_json(event.data)
    except ValueError as error:
        raise NotSightline(f"an event is no {model.__name__}: {error}") from error
