"""The table of the key scope that each call needs. A call that is not in it is refused, with any key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.routing import compile_path

from app.core.types import KeyScope

OPEN, SEARCH, WRITE, ADMIN = KeyScope.OPEN, KeyScope.SEARCH, KeyScope.WRITE, KeyScope.ADMIN

ROUTE_SCOPES = {
    # The page itself holds no data; it asks for a key. The other open calls tell nothing to a caller without one.
    "GET /": OPEN,
    "GET /web/{path:path}": OPEN,
    "GET /livez": OPEN,
    "GET /readyz": OPEN,
    "GET /v1/session": OPEN,
    "POST /v1/session": OPEN,
    "DELETE /v1/session": OPEN,
    "POST /knn-service": SEARCH,
    "POST /metadata": SEARCH,
    "GET /indices-list": SEARCH,
    "POST /compat/weaviate/vectorize": SEARCH,
    "GET /compat/weaviate/meta": SEARCH,
    "GET /compat/weaviate/.well-known/live": OPEN,
    "GET /compat/weaviate/.well-known/ready": OPEN,
    "GET /docs": SEARCH,
    "GET /openapi.json": SEARCH,
    "GET /metrics": SEARCH,
    "GET /v1/stats": SEARCH,
    "GET /v1/models": SEARCH,
    "GET /v1/search": SEARCH,
    "POST /v1/search": SEARCH,
    "POST /v1/search/image": SEARCH,
    "POST /v1/search/batch": SEARCH,
    "POST /v1/classify": SEARCH,
    "POST /v1/evaluations": WRITE,
    "POST /v1/match": SEARCH,
    "GET /v1/images": SEARCH,
    "POST /v1/images": WRITE,
    "POST /v1/images/bulk": WRITE,
    "POST /v1/images/ingest": WRITE,
    "POST /v1/images/known": WRITE,
    "POST /v1/images/delete": WRITE,
    "GET /v1/images/{id}": SEARCH,
    "PATCH /v1/images/{id}": WRITE,
    "DELETE /v1/images/{id}": WRITE,
    "POST /v1/images/{id}/ask": SEARCH,
    "GET /v1/images/{id}/explain": SEARCH,
    "GET /v1/images/{id}/file": SEARCH,
    "GET /v1/images/{id}/thumbnail": SEARCH,
    "GET /v1/images/{id}/vector": SEARCH,
    "GET /v1/images/{id}/enrichments": SEARCH,
    "POST /v1/enrichments": WRITE,
    "GET /v1/videos": SEARCH,
    "POST /v1/videos": WRITE,
    "GET /v1/videos/{id}": SEARCH,
    "DELETE /v1/videos/{id}": WRITE,
    "GET /v1/videos/{id}/file": SEARCH,
    "GET /v1/sources": WRITE,
    "GET /v1/watches": WRITE,
    "POST /v1/watches": WRITE,
    "GET /v1/watches/{id}": WRITE,
    "DELETE /v1/watches/{id}": WRITE,
    "GET /v1/watches/{id}/files": WRITE,
    "POST /v1/watches/{id}/files": WRITE,
    "POST /v1/watches/{id}/changes": WRITE,
    "POST /v1/watches/{id}/pause": WRITE,
    "POST /v1/watches/{id}/resume": WRITE,
    "POST /v1/watches/{id}/scan": WRITE,
    "POST /v1/watches/{id}/confirm": WRITE,
    "POST /v1/demo": WRITE,
    "POST /v1/camera-data": WRITE,
    "GET /v1/duplicates": SEARCH,
    "POST /v1/duplicates": WRITE,
    "GET /v1/jobs": SEARCH,
    "GET /v1/jobs/{id}": SEARCH,
    "GET /v1/jobs/{id}/items": SEARCH,
    "GET /v1/jobs/{id}/events": SEARCH,
    "POST /v1/jobs/{id}/pause": WRITE,
    "POST /v1/jobs/{id}/resume": WRITE,
    "POST /v1/jobs/{id}/cancel": WRITE,
    "POST /v1/jobs/{id}/retry": WRITE,
    "GET /v1/texts": SEARCH,
    "POST /v1/texts": WRITE,
    "GET /v1/texts/{id}": SEARCH,
    "DELETE /v1/texts/{id}": WRITE,
    "GET /v1/heads": SEARCH,
    "POST /v1/heads": ADMIN,
    "GET /v1/heads/{id}": SEARCH,
    "DELETE /v1/heads/{id}": ADMIN,
    "GET /v1/collections": SEARCH,
    "POST /v1/collections": ADMIN,
    "GET /v1/collections/{name}": SEARCH,
    "PATCH /v1/collections/{name}": ADMIN,
    "PUT /v1/collections/{name}/head": ADMIN,
    "GET /v1/collections/{name}/labels": SEARCH,
    "PUT /v1/collections/{name}/labels": ADMIN,
    "DELETE /v1/collections/{name}/labels": ADMIN,
    "POST /v1/collections/{name}/labels/apply": WRITE,
    "DELETE /v1/collections/{name}": ADMIN,
    "GET /v1/saved-searches": SEARCH,
    "POST /v1/saved-searches": WRITE,
    "GET /v1/saved-searches/{id}": SEARCH,
    "PATCH /v1/saved-searches/{id}": WRITE,
    "DELETE /v1/saved-searches/{id}": WRITE,
    "GET /v1/saved-searches/{id}/matches": SEARCH,
    "GET /v1/saved-searches/{id}/events": SEARCH,
    "POST /v1/reembed": ADMIN,
    "POST /mcp": SEARCH,  # the calls of its tools need their own scopes
    # The wires of other systems.
    "GET /health": OPEN,
    "GET /models": SEARCH,
    "POST /embeddings": SEARCH,
    "POST /embeddings_image": SEARCH,
    "POST /v1/embed": SEARCH,
    "POST /v1/embeddings": SEARCH,
    "POST /v1/multimodalembeddings": SEARCH,
    "POST /v2/embed": SEARCH,
}
# They concern all collections: not for a key that is bound to some.
ALL_COLLECTIONS_ROUTES = {"GET /metrics", "POST /v1/collections", "POST /v1/reembed"}


@dataclass(frozen=True, slots=True)
class RoutePermission:
    """One line of the table."""

    method: str
    path: str
    scope: KeyScope
    all_collections: bool


class PermissionTable:
    """The calls of one application, with what each needs."""

    def __init__(self, scopes: Mapping[str, KeyScope]) -> None:
        self._lines = [
            RoutePermission(method, path, scope, name in ALL_COLLECTIONS_ROUTES)
            for name, scope in scopes.items()
            for method, path in [name.split(" ")]
        ]
        self._by_path = {(one.method, one.path): one for one in self._lines if "{" not in one.path}
        self._by_pattern: list[tuple[re.Pattern[str], RoutePermission]] = [
            (compile_path(one.path)[0], one) for one in self._lines if "{" in one.path
        ]

    def find(self, method: str, path: str) -> RoutePermission | None:
        """The line for this request, by the patterns that the router itself compiles; None when there is none."""
        if found := self._by_path.get((method, path)):
            return found
        return next((one for pattern, one in self._by_pattern if one.method == method and pattern.match(path)), None)

    def list_methods(self, path: str) -> list[str]:
        """The methods of an address; empty when there is no such address."""
        plain = {one.method for one in self._lines if one.path == path}
        found = plain | {one.method for pattern, one in self._by_pattern if pattern.match(path)}
        return sorted(found | {"HEAD"} if "GET" in found else found)


PERMISSIONS = PermissionTable(ROUTE_SCOPES)
