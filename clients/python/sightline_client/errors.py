"""What a call may raise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SightlineError(Exception):
    """A call that did not do what was asked."""


class ConnectionFailed(SightlineError):
    """No answer came: the server is away, or the connection broke."""


class NotSightline(SightlineError):
    """What answered is no Sightline server, or a much newer one."""


class JobFailed(SightlineError):
    """A job that failed as a whole, or was cancelled. `job` is its record."""

    def __init__(self, detail: str, job: Any) -> None:
        super().__init__(detail)
        self.job = job


class ApiError(SightlineError):
    """The server refused. `code` is stable (docs/reference/http.md), `detail` is for people.

    `problem` is the whole answer (RFC 9457), `request_id` finds the request in the server's log, `response` is httpx's.
    """

    def __init__(
        self, status: int, problem: Mapping[str, Any], request_id: str | None = None, response: Any = None
    ) -> None:
        self.status = status
        self.response = response
        self.problem = problem
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", f"the server answered {status}"))
        self.request_id = request_id
        super().__init__(f"{self.detail} ({self.code})")
