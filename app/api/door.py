"""How many requests may be inside at once, counted at the door: a refusal there costs a fiftieth of an answer.

Only calls without a body are counted here. One whose body trickles would hold its place for as long as it likes; those
are counted where their work begins, by `app.api.threads`.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Scope

from app.api.threads import Lanes

ENDLESS = ("/v1/jobs/{id}/events",)  # it lasts as long as its job, and waits nearly all of the time


@dataclass(slots=True)
class Door:
    """At most `most` inside."""

    most: int
    inside: int = 0

    @property
    def full(self) -> bool:
        """Whether another one must be refused."""
        return self.inside >= self.most

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        self.inside -= 1


class Doors:
    """One for searches, one for everything else that is read."""

    def __init__(self, lanes: Lanes) -> None:
        self._searches = Door(lanes.queries.most)
        self._reads = Door(lanes.reads.most)

    def of(self, scope: Scope) -> Door | None:
        """The door of this request, which the gate has let in; None when it is not counted here."""
        path = scope["call"].path
        if scope["method"] != "GET" or not path.startswith("/v1/") or path in ENDLESS:
            return None
        return self._searches if path == "/v1/search" else self._reads
