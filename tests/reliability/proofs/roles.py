"""Every call is refused to callers without the right to it.

The proof makes every call in `/openapi.json`, and every other call that the router knows: without a key; with an
unknown, revoked or expired key; and with good keys for search, write and admin, and one bound to a collection.

Failing: an answer admits a caller whom the table of permissions (`app/api/permissions.py`) refuses, or the other way
round; the table lacks a call.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from app.api.permissions import ALL_COLLECTIONS_ROUTES, ROUTE_SCOPES
from app.core.types import KeyScope
from tests.app.api.guarded import Guarded, guarded_server
from tests.reliability.promise import Outcome, Promise, Scale

PROMISE = Promise(15, "roles", "Every call is refused by default; what a key may do is enforced for all of them.")
KINDS = {"search": KeyScope.SEARCH, "write": KeyScope.WRITE, "admin": KeyScope.ADMIN, "bound": KeyScope.ADMIN}
STRANGERS = ("none", "unknown", "revoked", "expired")


def run(scale: Scale) -> Outcome:
    """The whole matrix, in both forms."""
    with tempfile.TemporaryDirectory() as folder, guarded_server(Path(folder) / "data") as guarded:
        calls = list_operations(guarded)
        unlisted = sorted(calls - set(ROUTE_SCOPES))
        wrong = [f"{call}: {fault}" for call in ROUTE_SCOPES for fault in list_faults(call, guarded)]
    pairs = len(ROUTE_SCOPES) * (len(KINDS) + len(STRANGERS))
    figure = (
        f"{len(ROUTE_SCOPES)} calls × {len(KINDS)} kinds of keys and {len(STRANGERS)} of none: {pairs - len(wrong)} of"
        f" {pairs} answers as they should, {len(unlisted)} in no table{'; ' + '; '.join(wrong[:3]) if wrong else ''}"
    )
    return Outcome(figure, not wrong and not unlisted and len(calls) > 30)


def list_operations(guarded: Guarded) -> set[str]:
    """Every call of the OpenAPI document."""
    paths = guarded.ask("admin", "GET", "/openapi.json").json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def list_faults(call: str, guarded: Guarded) -> list[str]:
    """The callers that were admitted and should not have been, or the other way round."""
    method, path = call.split(" ")
    where = fill_path(guarded, path, "NONE!")
    if call.endswith("/{id}/events"):
        where = where.replace(guarded.job, "nothing").replace(guarded.saved, "0" * 16)
    found = []
    for kind in STRANGERS:
        answer = guarded.ask(kind, method, where)
        may = ROUTE_SCOPES[call] is KeyScope.OPEN and kind == "none"
        challenged = answer.headers.get("www-authenticate", "").startswith("Bearer")
        if (answer.status_code not in (401, 403)) if may else (answer.status_code == 401 and challenged):
            continue
        found.append(f"{kind} gets {answer.status_code}")
    for kind, has in KINDS.items():
        answer = guarded.ask(kind, method, where)
        may = has >= ROUTE_SCOPES[call] and not (kind == "bound" and call in ALL_COLLECTIONS_ROUTES)
        if (answer.status_code not in (401, 403)) != may:
            found.append(f"{kind} gets {answer.status_code}")
        elif not may and method != "HEAD" and answer.json()["code"] != "forbidden":
            found.append(f"{kind} gets the code {answer.json()['code']}")
    return found


def fill_path(guarded: Guarded, path: str, collection: str) -> str:
    """A path with existing ids. An impossible collection makes sure that no call has an effect."""
    filled = path.replace("{path:path}", "main.js")
    filled = filled.replace("/jobs/{id}", f"/jobs/{guarded.job}").replace("/heads/{id}", f"/heads/{guarded.head}")
    filled = filled.replace("/saved-searches/{id}", f"/saved-searches/{guarded.saved}")
    filled = filled.replace("/watches/{id}", f"/watches/{guarded.watch}")
    filled = filled.replace("{id}", "inside").replace("{name}", "default")
    return f"{filled}?collection={collection}"
