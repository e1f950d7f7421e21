"""What Schemathesis checks beside its own list: every error is problem+json with a documented code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import schemathesis

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"
CODES = set(re.findall(r"^\| `([a-z_]+)` \| (?:[\d, ]+|–) \|", PAGE.read_text("utf-8"), re.MULTILINE))
MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "retryable"}


@schemathesis.check
def problem(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]) -> None:
    """A refusal has the one shape of refusals, and says when to come back where that helps."""
    if response.status_code < 400 or (case.path == "/readyz" and response.status_code == 503):
        return
    kind = response.headers.get("content-type", [""])[0]
    assert kind == "application/problem+json", f"the error is {kind}"
    if case.method.upper() == "HEAD":
        return
    told = json.loads(response.content)
    assert set(told) - {"image_id"} == MEMBERS, f"the error has {sorted(told)}"
    assert told["code"] in CODES, f"the code {told['code']} is not documented"
    assert told["status"] == response.status_code, "the status differs"
    if response.status_code in (429, 503):
        assert response.headers.get("retry-after"), "there is no Retry-After"
